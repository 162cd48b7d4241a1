"""The host driver: chunks of the same step that `train` scans, with logs, evaluation and checkpoints between them.

`run(config, seed)` computes bit for bit what `train(config, jax.random.key(seed))` does. A run that was stopped, by
whatever means, goes on from its last checkpoint and ends in the same numbers.
"""

import contextlib
import dataclasses
import json
import operator
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.ops import metrics as m
from jaxrl.reports.curve import learning_curve
from jaxrl.reports.rows import METRICS, TIMING, read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.clock import Clock
from jaxrl.runs.compilation_cache import enable_compilation_cache
from jaxrl.runs.compiled import Asked, Compiled, trace
from jaxrl.runs.directory import as_run, begin_run, check_run_dir
from jaxrl.runs.given import describe
from jaxrl.runs.header import HEADER, lines, run_header
from jaxrl.runs.logger import Bar, Logger
from jaxrl.training import program
from jaxrl.types import InputError, Key, Program, TrainState

_EVAL = 0x6576616C  # folded into the seed's key: far from any number that training folds or splits


class RunResult(NamedTuple):
    """The final state, the figures that an experiment prints, and the directory that holds everything."""

    state: TrainState
    figures: dict[str, Any]
    run_dir: Path


class Diverged(RuntimeError):
    """A learner is no longer finite. Nothing of it was saved: the last checkpoint is from before."""


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How often a run does what, as counts over the whole of it, evenly spaced. A row of metrics is also written at
    every evaluation and save, and covers the updates since the row before."""

    logs: int = 100
    """Rows of metrics."""
    evals: int = 10
    """Evaluations along the way."""
    saves: int = 10
    """Checkpoints."""

    def check(self) -> None:
        """Raises InputError for counts that would leave a run without a log."""
        if self.logs < 1 or self.evals < 0 or self.saves < 0:
            wrong = f"logs = {self.logs}, evals = {self.evals}, saves = {self.saves}"
            raise InputError(f"{wrong}: logs must be at least 1, and the others 0 (none) or more")

    def marks(self, num_updates: int) -> dict[str, set[int]]:
        """For each of logs, evals and saves: the updates after which it is due. All are due after the last."""

        def spread(count: int) -> set[int]:
            return {max(1, round(i * num_updates / count)) for i in range(1, count + 1)}

        return {name: spread(getattr(self, name)) for name in ("logs", "evals", "saves")}


def run(
    config: Any,
    seed: int = 0,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    schedule: Schedule = Schedule(),
    progress: bool = True,
    probe: Callable[[TrainState, Key], dict[str, float]] | None = None,
    export: Callable[[TrainState, Path], None] | None = None,
    **given: Any,
) -> RunResult:
    """Train on the host, with everything a person wants to keep in `run_dir`.

    Main arguments:
    config: an algorithm's config. seed: of everything, 0 … 2³²-1. run_dir: by default a new directory under runs/.
    given: what the config takes beside itself, as for `train`: env and network, or network, params, data and samples.
    Other arguments:
    resume: go on from the newest checkpoint in run_dir, exactly; rows logged after it are cut and written again.
    schedule: how often to log, evaluate and save. progress: show a bar.
    probe(state, key): further figures of every evaluation along the way, logged as eval_*.
    export(state, run_dir): writes what else is to be kept of the final state, before any picture is drawn.
    Raises InputError, before anything is compiled or written, for a bad config, a directory that already holds a run,
    or a resume with another config, seed or thing given. Raises Diverged when the learner is no longer finite.
    """
    schedule.check()
    seed = _checked_seed(seed)
    cache = enable_compilation_cache()
    p = program(config, **given)
    settings, about = as_run(config, p.overrides), describe(given)
    run_dir = None if run_dir is None else Path(run_dir)
    check_run_dir(run_dir, seed, settings, about, resume)
    with contextlib.ExitStack() as stack:
        clock = stack.enter_context(Clock())
        with clock.compiling():
            compile_all = trace(config, given, p)
        if not resume:
            run_dir = begin_run(run_dir, p.label, seed, settings, about)
        saves = stack.enter_context(contextlib.closing(Checkpoints(run_dir / "checkpoints")))
        with clock.compiling():
            compiled = compile_all()
        state = _start(p, compiled, saves, seed, resume)
        done = int(state.num_steps)
        clock.train = sum(row["train_seconds"] for row in read_metrics(run_dir / TIMING)[-1:])
        session = _Session(
            p=p,
            seed=seed,
            run_dir=run_dir,
            compiled=compiled,
            clock=clock,
            saves=saves,
            logger=stack.enter_context(contextlib.closing(Logger(run_dir, done if done else -1))),
            bar=stack.enter_context(contextlib.closing(Bar(p.total_steps, done, progress, p.unit.label.split()[-1]))),
            marks=schedule.marks(p.num_updates),
            probe=probe,
        )
        about = run_header(seed, compiled.memory, cache)
        (run_dir / HEADER).write_text(json.dumps(about, indent=1) + "\n")
        session.bar.say(*lines(about))
        state = session.train(state)
        # Dearest first: the state lies in its checkpoint; now the model, then the figures, and pictures last.
        if export is not None:
            export(state, run_dir)
        final = session.final(state)
        (run_dir / "result.json").write_text(json.dumps(final, indent=1) + "\n")
    _draw(p, run_dir, final)
    return RunResult(state, final, run_dir)


def eval_key(seed: int, step: int) -> jax.Array:
    """The key that evaluates a run after `step` steps, apart from every key of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EVAL), step)


def _checked_seed(seed: Any) -> int:
    try:
        number = operator.index(seed)  # NumPy's integers too
    except TypeError:
        raise InputError(f"seed = {seed!r} is no whole number; give an int") from None
    if not 0 <= number < 2**32:
        raise InputError(f"seed = {number} is out of range; it must be between 0 and {2**32 - 1}")
    return number


def _start(p: Program, compiled: Compiled, saves: Checkpoints, seed: int, resume: bool) -> TrainState:
    key = jax.random.key(seed)
    if resume and saves.steps():
        return saves.restore(jax.eval_shape(p.init, key))
    return compiled.init(key)


@dataclasses.dataclass
class _Session:
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
    found: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)  # of the last evaluation, by evaluator

    def train(self, state: TrainState) -> TrainState:
        """All updates that remain."""
        done = int(state.num_steps) // self.p.steps_per_update
        if not done and (before := self._before(state)):
            self.logger.row(0, before, {"train_seconds": 0.0})
        leaves, _, finite = self.compiled.chunk(jax.tree.leaves(state), 0)
        meant = ~np.asarray(finite)  # to be infinite, such as the best score so far
        for update in sorted(mark for mark in set().union(*self.marks.values()) if mark > done):
            began, count = time.perf_counter(), update - done
            leaves, metrics, finite = self.compiled.chunk(leaves, count)
            metrics, finite = jax.device_get((metrics, finite))  # one wait for all
            timing = self.clock.chunk(time.perf_counter() - began, count * self.p.steps_per_update)
            step, done = update * self.p.steps_per_update, update
            with np.errstate(invalid="ignore", divide="ignore"):  # of what was never counted, the mean is NaN
                row = {name: float(value) for name, value in m.values(m.unpack(metrics)).items()}
            bad = [leaf for leaf, fine in zip(self.compiled.floats, finite | meant, strict=True) if not fine]
            if not bad and update in self.marks["evals"]:
                row |= self._along(self.compiled.whole(leaves))
            self.logger.row(step, row, timing)
            self.bar.update(step, self._headline(row), timing["steps_per_second"])
            if bad:
                self._diverged(step, bad[0])
            if update in self.marks["saves"]:
                self.logger.flush()
                self.saves.save(step, self.compiled.whole(leaves))
        return self.compiled.whole(leaves)

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


def _draw(p: Program, run_dir: Path, final: dict[str, Any]) -> None:
    panels = [panel for e in p.evaluators for panel in e.panels]
    named = [(label, final.get(name)) for e in p.evaluators for label, name in e.references.items()]
    try:
        learning_curve(run_dir, panels, p.unit.label, {label: value for label, value in named if value is not None})
    except Exception as error:  # whatever goes wrong with a picture, the run is done and kept
        warnings.warn(f"the learning curve of {run_dir} could not be drawn: {error!r}", stacklevel=3)
