"""What a run writes while it goes: rows to metrics.jsonl and timing.jsonl, TensorBoard, and a progress bar.

metrics.jsonl holds only what the seed determines, so that two runs can be compared byte by byte; wall-clock numbers
go to timing.jsonl, row for row.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from jaxrl.reports.rows import METRICS, TIMING, read_metrics


class Logger:
    """Appends rows to the files of a run directory, each flushed as it is written.

    `last_step`: rows after this step are cut: a resumed run writes them again.
    """

    def __init__(self, run_dir: Path, last_step: int = 0):
        for path in run_dir.glob("*.jsonl"):  # what evaluators keep, too
            keep_until(path, last_step)
        self._run_dir = run_dir
        self._files = {name: (run_dir / name).open("a") for name in (METRICS, TIMING)}
        self._events = _Events(run_dir / "tensorboard", last_step + 1)

    def row(self, step: int, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """One row after `step` steps. Numbers that are not finite are written as null."""
        for name, values in ((METRICS, metrics), (TIMING, timing)):
            plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
            self._files[name].write(json.dumps({"step": step, **plain}) + "\n")
            self._files[name].flush()
        self._events.row(step, {k: v for k, v in {**metrics, **timing}.items() if math.isfinite(v)})

    def keep(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """One line {step, NAME: rows} at the end of NAME.jsonl."""
        with (self._run_dir / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, name: rows}) + "\n")

    def flush(self) -> None:
        """What was logged is on disk: a checkpoint after it is never ahead of it."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close all."""
        for file in self._files.values():
            file.close()
        self._events.close()


class _Events:
    """TensorBoard's file: one event a row, which reaches the disk within a second of the next row. Its own writer takes
    an event and a thread's turn for every number; and events written one by one, between chunks that have the
    processor's caches, cost twice as much as together.
    """

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        directory.mkdir(exist_ok=True)
        self._event, self._summary, self._waiting = Event, Summary, []
        self._writer = EventsWriter(str(directory / "events"))
        # What an earlier session wrote from this step on is not shown.
        start = Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(start)
        self.flush()

    def row(self, step: int, values: dict[str, float]) -> None:
        self._waiting.append((time.time(), step, values))
        if time.time() > self._flushed + 1:
            self.flush()

    def flush(self) -> None:
        for wall_time, step, values in self._waiting:
            value = [self._summary.Value(tag=name, simple_value=x) for name, x in values.items()]
            event = self._event(wall_time=wall_time, step=step, summary=self._summary(value=value))
            self._writer.write_event(event)
        self._waiting.clear()
        self._writer.flush()
        self._flushed = time.time()

    def close(self) -> None:
        self.flush()
        self._writer.close()


def keep_until(path: Path, step: int) -> None:
    """Cut the rows of a .jsonl file that lie after `step`."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= step]
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept))
    os.replace(draft, path)


class Bar:
    """A progress bar on stderr: share done, time to go, steps (of whatever unit) per second, what the run says."""

    def __init__(self, total_steps: int, done: int, shown: bool, unit: str = "steps"):
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
        self._total, self._unit = total_steps, unit
        self._shown = console if shown else None
        self._progress.start()

    def say(self, *lines: str) -> None:
        """Lines above the bar, as they are."""
        for line in lines if self._shown is not None else ():
            self._shown.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, step: int, says: str, steps_per_second: float) -> None:
        """Show where the run is and what it says of itself; one plain line where stderr is not a terminal."""
        text = f"{steps_per_second:,.{0 if steps_per_second > 100 else 1}f} {self._unit}/s   {says}"
        self._progress.update(self._task, completed=step, text=text)
        if self._plain is not None:
            self._plain.print(f"{step:>12,} of {self._total:,} {self._unit}   {text}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._progress.stop()
