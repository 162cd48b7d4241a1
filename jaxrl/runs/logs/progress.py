"""What a run shows of itself: a bar on a terminal, else a few plain lines."""

from collections.abc import Collection, Mapping

_MOST = 24  # plain lines of progress: with what comes before and after them a run has thirty

HINTS = {  # what it means that a figure is so much, where nothing can be learned
    (
        "finished",
        0,
    ): "no completion ends: all are cut by sampling.max_new_tokens; raise it, or begin with a model that has "
    "learned to end",
    ("spread", 0): "all completions of a prompt have the same reward, of which nothing is learned: see that the reward "
    "tells them apart, and that temperature is above 0",
    ("invalid_rewards", 1): "no completion has a finite reward, so that nothing is learned: see what the reward gives "
    "for the completions in samples.jsonl",
}


class Bar:
    """A progress bar on stderr: share done, time to go, steps (of whatever unit) per second, what the run says.

    lines: the steps after which a plain line is written instead, where stderr is not a terminal.
    """

    def __init__(
        self, total_steps: int, done: int, shown: bool, unit: str = "steps", lines: Collection[int] = frozenset()
    ):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = [
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("to go"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        ]
        console = Console(stderr=True)
        self._plain = None if console.is_terminal or not shown else console
        self._progress = Progress(*columns, console=console, disable=not (shown and console.is_terminal))
        self._task = self._progress.add_task("", total=total_steps, completed=done, text="compiling")
        self._total, self._unit, self._lines = total_steps, unit, frozenset(lines)
        self._shown, self._hinted = console if shown else None, set()
        self._progress.start()

    def say(self, *lines: str) -> None:
        """Lines above the bar, as they are."""
        for line in lines if self._shown is not None else ():
            self._shown.print(line, markup=False, highlight=False, soft_wrap=True)

    def hint(self, figures: Mapping[str, float]) -> None:
        """Say, once, what those of the figures mean that stand where nothing can be learned."""
        new = [case for case in HINTS if figures.get(case[0]) == case[1] and case not in self._hinted]
        self._hinted.update(new)
        self.say(*(HINTS[case] for case in new))

    def update(self, step: int, says: str, steps_per_second: float, line: bool = False) -> None:
        """Show where the run is and what it says of itself. line: write a plain line where there is no terminal, also
        after a step that is not among `lines`."""
        text = f"{steps_per_second:,.{0 if steps_per_second > 100 else 1}f} {self._unit}/s   {says}"
        self._progress.update(self._task, completed=step, text=text)
        if self._plain is not None and (line or step in self._lines):
            self._plain.print(f"{step:>12,} of {self._total:,} {self._unit}   {text}", soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()


def plain_lines(evals: Collection[int], others: Collection[int], most: int = _MOST) -> set[int]:
    """Of the steps that are evaluated, and of the others that are logged, those that get a line: as many as possible of
    the first, evenly spread, and of the others what room is left. Both include the last.
    """
    chosen = _spread(sorted(evals), most)
    return chosen | _spread(sorted(set(others) - chosen), most - len(chosen))


def _spread(steps: list[int], most: int) -> set[int]:
    count = min(most, len(steps))
    return {steps[round(i * len(steps) / count) - 1] for i in range(1, count + 1)}
