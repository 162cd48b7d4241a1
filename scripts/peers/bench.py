"""The arms of one comparison: their processes, what they say of themselves, and why some were not measured."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers.arithmetic import Ratio, paired
from peers.environments import NotMeasured, python_of
from peers.processes import Worker


@dataclass
class Bench:
    """pythons: arm -> Python, where given. folder: of the environments that are made, and of the arms' logs.
    checkout: of PureJaxRL. started: the machine before anything ran.
    """

    pythons: dict[str, str]
    folder: Path
    checkout: Path | None
    started: dict
    about: dict[str, dict] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def start(self, arm: str, question: dict) -> Worker | None:
        """The process of an arm, or None, with one line that says why."""
        try:
            if arm == "purejaxrl":
                if self.checkout is None or not (self.checkout / "purejaxrl" / "ppo.py").is_file():
                    raise NotMeasured("name a checkout of PureJaxRL: --purejaxrl FOLDER")
                question = {**question, "checkout": str(self.checkout.absolute())}
            worker = Worker(
                arm, python_of(arm, self.pythons, self.folder), question, self.folder / "logs" / f"{arm}.log"
            )
        except NotMeasured as reason:
            self.miss(arm, reason)
            return None
        self.about[arm] = worker.ready["about"]
        return worker

    def miss(self, arm: str, reason: Exception) -> None:
        """Note that an arm was not measured."""
        self.missing[arm] = str(reason)
        told(f"{arm}: not measured: {reason}")

    def rounds(self, arms: tuple[str, ...], question: dict, rounds: int) -> dict[str, list]:
        """Calls of all arms in turns, jaxrl first and last in every round; each call once beforehand, untimed.

        Returns arm -> a call's figures of each round; of jaxrl a pair of them.
        """
        workers = {arm: worker for arm in ("jaxrl", *arms) if (worker := self.start(arm, question))}
        found = {arm: [] for arm in workers}
        try:
            for number in range(rounds + 1):
                before = self._ask(workers, "jaxrl", number)
                # there and back again, so that no arm is always the one that runs later
                for arm in sorted(set(workers) - {"jaxrl"}, reverse=bool(number % 2)):
                    found[arm].append(self._ask(workers, arm, number))
                found["jaxrl"].append((before, self._ask(workers, "jaxrl", number)))
                last = {arm: found[arm][-1][0] if arm == "jaxrl" else found[arm][-1] for arm in workers}
                speeds = ", ".join(f"{arm} {call['steps'] / call['cpu']:,.0f}" for arm, call in last.items())
                told(f"round {number} of {rounds}, steps per CPU second: {speeds}")
        finally:
            for worker in workers.values():
                worker.close()
        return {arm: calls[1:] for arm, calls in found.items() if arm in workers}

    def _ask(self, workers: dict[str, Worker], arm: str, number: int) -> dict | None:
        try:
            return workers[arm].ask(number)
        except NotMeasured as reason:
            if arm == "jaxrl":
                raise
            self.miss(arm, reason)
            workers.pop(arm).close()


def told(line: str) -> None:
    """Progress, for those who wait."""
    print(line, file=sys.stderr, flush=True)


def rates(calls: list[dict], clock: str) -> list[float]:
    """Steps per second of each call, by its "wall" or "cpu" clock."""
    return [call["steps"] / call[clock] for call in calls]


def compared(found: dict[str, list], arm: str, clock: str) -> Ratio:
    """How many times as fast as the arm jaxrl is."""
    ours = [tuple(rates(pair, clock)) for pair in found["jaxrl"]]
    return paired(ours, rates(found[arm], clock))


COLUMNS = ("steps/CPU s", "steps/s", "jaxrl ÷ it", "of all rounds", "a repeat", "void", "jaxrl is")


def cells(found: dict[str, list], arm: str) -> tuple[str, ...]:
    """An arm's part of a row of a table of speeds."""
    if arm not in found:
        return ("not measured", *[""] * (len(COLUMNS) - 1))
    calls = [call for pair in found[arm] for call in pair] if arm == "jaxrl" else found[arm]
    speeds = [f"{np.median(rates(calls, clock)):,.0f}" for clock in ("cpu", "wall")]
    if arm == "jaxrl":
        return (*speeds, "1", "", "", "", "")
    ratio = compared(found, arm, "cpu")
    spread, void = f"{ratio.low:.3f} … {ratio.high:.3f}", f"{ratio.void} of {ratio.rounds}"
    return (*speeds, f"{ratio.median:.3f} ×", spread, f"± {100 * (ratio.repeat - 1):.1f} %", void, ratio.says)
