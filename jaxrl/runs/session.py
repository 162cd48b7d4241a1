"""The part of a run that one process drives: chunks, and what is due between them."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.reports.rows import METRICS, read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.clock import Clock
from jaxrl.runs.logger import Bar, Logger
from jaxrl.runs.preemption import Interrupts, Stopped
from jaxrl.training.compiled import Asked, Compiled
from jaxrl.types import Key, Program, TrainState

# Rows that come faster than people read are written several at a time. Each costs half as much then: the processor's
# caches, which a chunk of updates takes, are fetched back once for all of them.
_AT_ONCE, _MOST = 0.25, 16  # seconds, rows
_POLL = 5.0  # seconds between two questions whether to stop
PARTIAL = "partial.npz"
_EVAL = 0x6576616C  # folded into the seed's key: far from any number that training folds or splits


class Diverged(RuntimeError):
    """A learner is no longer finite. Nothing of it was saved: the last checkpoint is from before."""


@dataclasses.dataclass
class Session:
    """One process's part of a run: from its start, or its newest checkpoint, to its end."""

    p: Program
    seed: int
    run_dir: Path
    compiled: Compiled
    clock: Clock
    saves: Checkpoints
    logger: Logger
    bar: Bar
    marks: dict[str, set[int]]
    probe: Callable[[TrainState, Key], dict[str, float]] | None
    interrupts: Interrupts
    found: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)  # of the last evaluation, by evaluator
    together: int = 1  # rows that are written at once
    piece: int = 1  # updates between two questions whether to stop
    partial: jax.Array | None = None  # what a row was told that an earlier session had begun

    def train(self, state: TrainState) -> TrainState:
        """All updates that remain."""
        done = int(state.num_steps) // self.p.steps_per_update
        if not done and (before := self._before(state)):
            self.logger.row(0, before, {"train_seconds": 0.0})
        leaves, told = self.compiled.chunk(jax.tree.leaves(state), 0)
        meant = ~self.compiled.read(told)[1]  # to be infinite, such as the best score so far
        looked = self.marks["evals"] | self.marks["saves"]
        waiting: list[_Row] = []
        for update in sorted(mark for mark in set().union(*self.marks.values()) if mark > done):
            count, began = update - done, time.perf_counter()
            leaves, told, left = self._advance(leaves, count)
            if left:
                self._rows(waiting, meant)
                leaves, told = self.compiled.chunk(leaves, 0, told)  # of a row that has not begun nothing was told
                if bad := self._bad(self.compiled.read(told)[1] | meant):
                    self._diverged((update - left) * self.p.steps_per_update, bad[0])
                self._stop(update - left, leaves, told)
            done = update
            # Rows are written while the next chunk is under way, so that the device never waits for the host.
            if len(waiting) >= self.together:
                self._rows(waiting, meant)
                waiting = []
            waiting.append(_Row(update, count, began, told))
            # Where the state itself is asked for there is nothing to go on with: the next chunk would overwrite it.
            if update in looked:
                self._rows(waiting, meant, leaves)
                waiting = []
        if waiting:
            self._rows(waiting, meant)
        return self.compiled.whole(leaves)

    def _advance(self, leaves: list[jax.Array], count: int) -> tuple[list[jax.Array], jax.Array, int]:
        """The updates of one row, in pieces between which it is asked whether to stop: leaves, what they tell, and the
        updates that are left because it was.
        """
        told, self.partial = self.compiled.nothing if self.partial is None else self.partial, None
        while count and not self.interrupts.asked:
            piece, began = min(count, self.piece), time.perf_counter()
            leaves, told = self.compiled.chunk(leaves, piece, told)
            count -= piece
            if count:  # or there is nothing to wait for: the row's own end is read later
                jax.block_until_ready(told)
                self.piece = max(1, int(piece * _POLL / (time.perf_counter() - began)))
        return leaves, told, count

    def _stop(self, update: int, leaves: list[jax.Array], told: jax.Array) -> None:
        """Save what there is between two rows, and end."""
        step = update * self.p.steps_per_update
        self.logger.flush()
        np.savez(self.run_dir / PARTIAL, step=step, told=np.asarray(told))  # before what says that it counts
        if step and step not in self.saves.steps():
            self.saves.save(step, self.compiled.whole(leaves))
        raise Stopped(
            f"stopped by {self.interrupts.asked} after {step:,} of {self.p.total_steps:,} {self.p.unit.label}; all is "
            f"saved, and the same command with --run-dir {self.run_dir} --resume (resume=True) goes on with it"
        )

    def _rows(self, rows: list["_Row"], meant: np.ndarray, leaves: list[jax.Array] | None = None) -> None:
        """Wait for some chunks, and log them; `leaves`: evaluate and save what is due after the last."""
        if not rows:
            return
        told = [self.compiled.read(row.told) for row in reversed(rows)][::-1]  # waits for the last, once
        before = self.clock.train
        timings = self.clock.chunks(rows[0].began, [row.count * self.p.steps_per_update for row in rows])
        seconds = (self.clock.train - before) / len(rows)
        self.together = max(1, min(_MOST, int(_AT_ONCE / seconds)))
        for row, (figures, finite), timing in zip(rows, told, timings, strict=True):
            self._row(row.update, figures, finite | meant, timing, leaves if row is rows[-1] else None)

    def _row(
        self, update: int, row: dict[str, float], fine: np.ndarray, timing: dict, leaves: list[jax.Array] | None
    ) -> None:
        step = update * self.p.steps_per_update
        bad = self._bad(fine)
        if leaves is not None and not bad and update in self.marks["evals"]:
            row |= self._along(self.compiled.whole(leaves))
        self.logger.row(step, row, timing)
        self.bar.update(step, self._headline(row), timing["steps_per_second"])
        if bad:
            self._diverged(step, bad[0])
        if leaves is not None and update in self.marks["saves"]:
            self.logger.flush()
            self.saves.save(step, self.compiled.whole(leaves))

    def _bad(self, fine: np.ndarray) -> list[str]:
        return [leaf for leaf, is_fine in zip(self.compiled.floats, fine, strict=True) if not is_fine]

    def final(self, state: TrainState) -> dict[str, Any]:
        """The figures of a run that has ended."""
        first, found = (read_metrics(self.run_dir / METRICS) or [{}])[0], {}
        for asked in self.compiled.evaluators:
            e = asked.evaluator
            found |= self.found.get(e.name) or self._figures(asked, state, 0)
            for case in range(1, len(e.cases)):
                found |= self._figures(asked, state, case)
            found |= {f"{name}_before": first.get(f"{e.prefix}{name}") for name in e.before}
        done, timing, kept = (
            {self.p.unit.name: int(state.num_steps)},
            self.clock.figures(),
            self.run_dir / "result.json",
        )
        if not self.clock.steps and kept.is_file():  # of a run that had ended: its speed is what it was
            before = json.loads(kept.read_text())
            timing = {name: before.get(name, value) for name, value in timing.items()}
        return {**found, **done, **timing, "run_dir": str(self.run_dir)}

    def _before(self, state: TrainState) -> dict[str, float]:
        return self._ask_all(state, [a for a in self.compiled.evaluators if a.evaluator.at_start], start=True)

    def _along(self, state: TrainState) -> dict[str, float]:
        more = {}
        if self.probe is not None:
            key = eval_key(self.seed, int(state.num_steps))
            more = {f"eval_{name}": float(value) for name, value in self.probe(state, key).items()}
        return self._ask_all(state, self.compiled.evaluators) | more

    def _ask_all(self, state: TrainState, evaluators: Sequence[Asked], start: bool = False) -> dict[str, float]:
        row = {}
        for asked in evaluators:
            e = asked.evaluator
            measured = self._measured(asked, state, 0)
            figures = e.read(e.cases[0], measured)
            if not start:
                self.found[e.name] = figures
            elif e.check_start is not None:
                e.check_start(figures)
            if e.keep is not None:
                self.logger.keep(e.name, int(state.num_steps), e.keep(measured))
            row |= {f"{e.prefix}{name}": value for name, value in figures.items()}
        return row

    def _figures(self, asked: Asked, state: TrainState, case: int) -> dict[str, float]:
        return asked.evaluator.read(asked.evaluator.cases[case], self._measured(asked, state, case))

    def _measured(self, asked: Asked, state: TrainState, case: int) -> Any:
        with self.clock.compiling():
            ask = asked.compiled()
        return ask(eval_key(self.seed, int(state.num_steps)), state.learner, case)

    def _headline(self, row: dict[str, float]) -> str:
        shown = {label: [row[n] for n in names if n in row][:1] for label, names in self.p.headline.items()}
        return ", ".join(f"{label} {value[0]:.4g}" for label, value in shown.items() if value)

    def _diverged(self, step: int, leaf: str) -> None:
        saved = self.saves.steps()
        good = f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint had been saved yet"
        sentence = (
            f"training has diverged: learner{leaf} is not finite after {step} {self.p.unit.label}; {good} in "
            f"{self.run_dir}. Look at its metrics, and try a smaller learning rate"
        )
        (self.run_dir / "result.json").write_text(json.dumps({"diverged": sentence}, indent=1) + "\n")
        raise Diverged(sentence)


class _Row(NamedTuple):
    """What a chunk that has been started will tell of the `count` updates up to `update`."""

    update: int
    count: int
    began: float
    told: jax.Array


def eval_key(seed: int, step: int) -> jax.Array:
    """The key that evaluates a run after `step` steps, apart from every key of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EVAL), step)
