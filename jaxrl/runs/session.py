"""The part of a run that one process drives: chunks, and what is due between them."""

import dataclasses
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from jaxrl.reports.rows import METRICS, read_metrics
from jaxrl.runs.checkpoints import Checkpoints, NotSaved
from jaxrl.runs.directory import keepsakes, read_result
from jaxrl.runs.divergence import SKIPPED, Diverged, counts, dump
from jaxrl.runs.judging import Judge
from jaxrl.runs.logs import Bar, Logger
from jaxrl.runs.preemption import Interrupted, Interrupts, Partial, Stopped
from jaxrl.training.clock import Clock
from jaxrl.training.compiled import Compiled
from jaxrl.training.processes import waits
from jaxrl.types import HostFailed, Program, TrainState

# Rows that come faster than people read are written several at a time. Each costs half as much then: the processor's
# caches, which a chunk of updates takes, are fetched back once for all of them.
_AT_ONCE, _MOST = 0.25, 16  # seconds, rows
_POLL = 5.0  # seconds between two questions whether to stop
_PATIENCE = 10  # updates in a row, none of whose gradients was finite


@dataclasses.dataclass
class Session:
    """One process's part of a run: from its start, or its newest checkpoint, to its end."""

    p: Program
    run_dir: Path
    compiled: Compiled
    clock: Clock
    saves: Checkpoints
    logger: Logger
    bar: Bar
    judge: Judge
    marks: dict[str, set[int]]
    interrupts: Interrupts
    about: Mapping[str, Any]  # kept with every checkpoint
    partial: Partial | None = None  # of a row that an earlier session had begun
    start: int = 0  # steps before this process began, or went back
    together: int = 1  # rows that are written at once
    piece: int = 1  # updates between two questions whether to stop
    skipped: int = 0  # updates in a row of which every gradient was skipped
    failed: HostFailed | None = None  # why there is no next batch

    def train(self, state: TrainState) -> TrainState:
        """All updates that remain."""
        self.start = int(state.num_steps)
        done = self.start // self.p.steps_per_update
        try:
            if not done and (before := self.judge.before(state)):
                self.logger.row(0, before, {"train_seconds": 0.0})
        except Interrupted:
            self._stop(0, state, self.compiled.nothing, busy=True)
        except HostFailed as error:
            self.failed = error
            self._stop(0, state, self.compiled.nothing)
        leaves, told = self.compiled.chunk(jax.tree.leaves(state), 0)
        meant = ~self.compiled.read(told)[1]  # to be infinite, such as the best score so far
        looked = self.marks["evals"] | self.marks["saves"] | self.marks["keeps"]
        due = {done} if self.partial is not None and self.partial.due else set()
        waiting: list[_Row] = []
        for update in sorted(mark for mark in set().union(*self.marks.values()) | due if mark > done or mark in due):
            count, began = update - done, time.perf_counter()
            leaves, told, left = self._advance(leaves, count)
            if left:
                self._rows(waiting, meant, leaves)
                leaves, told = self.compiled.chunk(leaves, 0, told)  # of a row that has not begun nothing was told
                figures, fine = self.compiled.read(told)
                if why := self._wrong(count - left, figures, fine | meant):
                    self._diverged(update - left, why, leaves)
                self._stop(update - left, self.compiled.whole(leaves), told)
            done = update
            # Rows are written while the next chunk is under way, so that the device never waits for the host.
            if len(waiting) >= self.together:
                self._rows(waiting, meant, leaves)
                waiting = []
            waiting.append(_Row(update, count, began, told))
            # Where the state itself is asked for there is nothing to go on with: the next chunk would overwrite it. And
            # where each program is waited for, or a host is asked between updates, nothing is under way: the row's time
            # has passed.
            if update in looked or update in due or self.p.host is not None or waits():
                self._rows(waiting, meant, leaves, now=True)
                waiting = []
        if waiting:
            self._rows(waiting, meant, leaves)
        self.saves.wait()
        return self.compiled.whole(leaves)

    def go_back(self, step: int, config: Any) -> None:
        """Make ready to train again from `step`, with the floats of `config`."""
        self.logger = self.judge.logger = self.logger.again(step)
        self.compiled, self.about = self.compiled.using(config), keepsakes(self.run_dir)
        self.judge.found, self.skipped = {}, 0

    def _advance(self, leaves: list[jax.Array], count: int) -> tuple[list[jax.Array], Any, int]:
        """The updates of one row, in pieces between which it is asked whether to stop: leaves, what they tell, and the
        updates that are left because it was.
        """
        told, self.partial = self.compiled.nothing if self.partial is None else self.partial.told, None
        while count:
            piece, began = min(count, self.interrupts.agree(self.piece)), time.perf_counter()
            if self.interrupts.asked:
                break
            try:
                leaves, told = self.compiled.chunk(leaves, piece, told)
            except HostFailed as error:  # before anything was learned from the batch: all else is worth keeping
                self.failed = error
                break
            count -= piece
            if count:  # or there is nothing to wait for: the row's own end is read later
                jax.block_until_ready(told)
                wanted = 1 if self.p.host else int(piece * _POLL / (time.perf_counter() - began))
                self.piece = max(1, wanted)
        return leaves, told, count

    def _stop(
        self, update: int, state: TrainState, told: jax.Array, *, due: bool = False, busy: bool = False
    ) -> NoReturn:
        """Save what there is, within a row or, where its evaluation is `due`, at its end; and end. busy: an evaluation
        was left under way.
        """
        step = update * self.p.steps_per_update
        self.logger.flush()
        self._settle()
        if step and step not in self.saves.steps():
            self.saves.save(step, state, {**self.about, "partial": Partial(np.asarray(told), due).plain()})
            self.saves.wait()
        if self.failed is not None:
            kept = "all that was learned before is saved: mend it, and" if step else "mend it, and begin again or"
            raise type(self.failed)(
                f"{self.failed}; {kept} go on by jaxrl resume "
                f"{self.run_dir} --accept-changes (resume=True, accept_changes=True)"
            ) from self.failed
        raise Stopped(
            f"stopped by {self.interrupts.asked} after {step:,} of {self.p.total_steps:,} {self.p.unit.label}; all is "
            f"saved: jaxrl resume {self.run_dir} goes on with it, or the same command with --run-dir {self.run_dir} "
            "--resume (resume=True)",
            busy,
        )

    def _rows(self, rows: list["_Row"], meant: np.ndarray, leaves: list[jax.Array], now: bool = False) -> None:
        """Wait for some chunks, and log them. leaves: as they are `now`, after the last of them, where what is due is
        evaluated and saved; or as they will be after another chunk.
        """
        if not rows:
            return
        told = [self.compiled.read(row.told) for row in reversed(rows)][::-1]  # waits for the last, once
        before = self.clock.train
        timings = self.clock.chunks(rows[0].began, [row.count * self.p.steps_per_update for row in rows])
        seconds = (self.clock.train - before) / len(rows)
        self.together = max(1, min(_MOST, int(_AT_ONCE / seconds))) if seconds else 1
        for row, (figures, fine), timing in zip(rows, told, timings, strict=True):
            step, score = row.update * self.p.steps_per_update, None
            last = now and row is rows[-1]
            why = self._wrong(row.count, figures, fine | meant)
            if last and why is None and row.update in self.marks["evals"]:
                more, score = self._judged(row, leaves)
                figures |= more
            self.logger.row(step, figures, timing)
            self.bar.update(step, self._headline(figures), timing["steps_per_second"])
            self.bar.hint(figures)
            if why is not None:
                self._diverged(row.update, why, leaves)
            # While every gradient is skipped nothing is gained, and what may be gone back to must not be pushed out.
            worth = not self.skipped or row.update == self.p.num_updates
            if last and worth and row.update in self.marks["saves"] | self.marks["keeps"]:
                self.logger.flush()
                self._save(step, self.compiled.whole(leaves), score)

    def _judged(self, row: "_Row", leaves: list[jax.Array]) -> tuple[dict[str, float], float | None]:
        state = self.compiled.whole(leaves)
        try:
            return self.judge.along(state)
        except HostFailed as error:
            self.failed = error
            self._stop(row.update, state, row.told, due=True)
        except Interrupted:
            self._stop(row.update, state, row.told, due=True, busy=True)

    def _save(self, step: int, state: TrainState, score: float | None) -> None:
        self._settle()
        if step == self.start:  # saved where the evaluation that it lacks was interrupted
            self.saves.delete(step)
        self.saves.save(step, state, self.about, score)

    def _settle(self) -> None:
        try:
            self.saves.wait()
        except NotSaved as error:  # a full disk may be emptied; what has been trained is not thrown away for it
            warnings.warn(f"{error}; it goes on without, and tries again at the next one", stacklevel=2)

    def _wrong(self, count: int, figures: dict[str, float], fine: np.ndarray) -> str | None:
        """What is wrong with the learner after a row of `count` updates, if anything is."""
        self.skipped = self.skipped + count if figures.get(SKIPPED) == 1 else 0
        if not fine.all():
            return f"learner{self.compiled.floats[int(np.argmin(fine))]} is not finite"
        return f"no gradient of the last {self.skipped} updates was finite" if self.skipped >= _PATIENCE else None

    def _diverged(self, update: int, why: str, leaves: list[jax.Array]) -> NoReturn:
        """Keep what there is for who wants to know, and end."""
        step, good = (n * self.p.steps_per_update for n in (update, update - self.skipped))
        self.logger.flush()
        self._settle()
        raise Diverged(why, step, good, dump(self.p, self.run_dir, self.compiled.whole(leaves), self.saves.apart))

    def final(self, state: TrainState) -> dict[str, Any]:
        """The figures of a run that has ended."""
        rows = read_metrics(self.run_dir / METRICS)
        try:
            found = self.judge.final(state, (rows or [{}])[0])
        except Interrupted:
            self._stop(self.p.num_updates, state, self.compiled.nothing, busy=True)
        except HostFailed as error:
            self.failed = error
            self._stop(self.p.num_updates, state, self.compiled.nothing)
        done, timing = {self.p.unit.name: int(state.num_steps)}, self.clock.figures()
        on = {"devices": len(state.num_steps.sharding.device_set), "processes": jax.process_count()}
        if not self.clock.steps and (before := read_result(self.run_dir)):  # it had ended: its speed is what it was
            timing = {name: before.get(name, value) for name, value in timing.items()}
        return {**found, **done, **timing, **on, **counts(rows, self.p.steps_per_update), "run_dir": str(self.run_dir)}

    def _headline(self, row: dict[str, float]) -> str:
        shown = {label: [row[n] for n in names if n in row][:1] for label, names in self.p.headline.items()}
        told = {label: f"{value[0]:.4g}" if math.isfinite(value[0]) else "–" for label, value in shown.items() if value}
        return ", ".join(f"{label} {value}" for label, value in told.items())


class _Row(NamedTuple):
    """What a chunk that has been started will tell of the `count` updates up to `update`."""

    update: int
    count: int
    began: float
    told: jax.Array
