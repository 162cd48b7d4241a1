"""The host driver: chunks of the same step that `train` scans, with logs, evaluation and checkpoints between them.

`run(config, seed)` computes bit for bit what `train(config, jax.random.key(seed))` does. A run that was stopped, by
whatever means, goes on from its last checkpoint and ends in the same numbers.
"""

import contextlib
import dataclasses
import json
import operator
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.reports.curve import learning_curve
from jaxrl.reports.rows import TIMING, read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.clock import Clock
from jaxrl.runs.compilation_cache import enable_compilation_cache
from jaxrl.runs.directory import as_run, begin_run, check_run_dir
from jaxrl.runs.header import HEADER, lines, run_header
from jaxrl.runs.logger import Bar, Logger
from jaxrl.runs.preemption import Interrupts
from jaxrl.runs.session import PARTIAL, Session
from jaxrl.training import program
from jaxrl.training.compiled import Compiled, trace
from jaxrl.training.given import describe
from jaxrl.types import InputError, Key, Program, TrainState


class RunResult(NamedTuple):
    """The final state, the figures that an experiment prints, and the directory that holds everything."""

    state: TrainState
    figures: dict[str, Any]
    run_dir: Path


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How often a run does what, as counts over the whole of it, evenly spaced. A row of metrics is also written at
    every evaluation and save, and covers the updates since the row before."""

    logs: int = 100
    """Rows of metrics."""
    evals: int = 10
    """Evaluations along the way."""
    saves: int = 10
    """Checkpoints, of which the two newest are kept."""

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
    more: Mapping[str, Any] = {},
    **given: Any,
) -> RunResult:
    """Train on the host, with everything a person wants to keep in `run_dir`.

    Main arguments:
    config: an algorithm's config. seed: of everything, 0 … 2³²-1. run_dir: by default a new directory under runs/.
    given: what the config takes beside itself, as for `train`: env and network, or network, params, data and samples.
    Other arguments:
    resume: go on from the newest checkpoint in run_dir that is whole, exactly; rows logged after it are cut and written
    again. A damaged one is moved aside, with a warning.
    schedule: how often to log, evaluate and save. progress: show a bar.
    probe(state, key): further figures of every evaluation along the way, logged as eval_*.
    export(state, run_dir): writes what else is to be kept of the final state, before any picture is drawn.
    more: what else run.json is to say of this run.
    Raises InputError, before anything is compiled or written, for a bad config, a directory that already holds a run,
    or a resume with another config, seed or thing given. Raises Diverged when the learner is no longer finite, and
    Stopped, after saving, where SIGTERM or SIGINT (Ctrl-C) asks for it: between updates, within seconds.
    """
    schedule.check()
    seed = _checked_seed(seed)
    cache = enable_compilation_cache()
    p = program(config, **given)
    settings, about = as_run(config, p.overrides), describe(given)
    run_dir = None if run_dir is None else Path(run_dir)
    check_run_dir(run_dir, seed, settings, about, resume)
    with contextlib.ExitStack() as stack:
        interrupts, clock = stack.enter_context(Interrupts()), stack.enter_context(Clock())
        with clock.compiling():
            compile_all = trace(config, given, p)
        if not resume:
            more = {"schedule": dataclasses.asdict(schedule), **more}
            run_dir = begin_run(run_dir, p.label, seed, settings, about, more)
        saves = stack.enter_context(contextlib.closing(Checkpoints(run_dir / "checkpoints")))
        with clock.compiling():
            compiled = compile_all()
        state = _start(p, compiled, saves, seed, resume)
        done = int(state.num_steps)
        logger = stack.enter_context(contextlib.closing(Logger(run_dir, done if done else -1)))
        clock.go_on(done, sum(row["train_seconds"] for row in read_metrics(run_dir / TIMING)[-1:]))
        session = Session(
            p=p,
            seed=seed,
            run_dir=run_dir,
            compiled=compiled,
            clock=clock,
            saves=saves,
            logger=logger,
            bar=stack.enter_context(contextlib.closing(Bar(p.total_steps, done, progress, p.unit.label.split()[-1]))),
            marks=schedule.marks(p.num_updates),
            probe=probe,
            interrupts=interrupts,
            partial=_partial(run_dir, done),
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
    if not resume or not saves.steps():
        return compiled.init(key)
    found = saves.newest(jax.eval_shape(p.init, key))
    for note in found.notes:
        warnings.warn(note, stacklevel=3)
    return found.tree


def _partial(run_dir: Path, step: int) -> jax.Array | None:
    """What the row that an earlier session stopped in was told up to `step`."""
    if not (run_dir / PARTIAL).is_file():
        return None
    with np.load(run_dir / PARTIAL) as kept:
        return jnp.asarray(kept["told"]) if int(kept["step"]) == step else None


def _draw(p: Program, run_dir: Path, final: dict[str, Any]) -> None:
    panels = [panel for e in p.evaluators for panel in e.panels]
    named = [(label, final.get(name)) for e in p.evaluators for label, name in e.references.items()]
    try:
        learning_curve(run_dir, panels, p.unit.label, {label: value for label, value in named if value is not None})
    except Exception as error:  # whatever goes wrong with a picture, the run is done and kept
        warnings.warn(f"the learning curve of {run_dir} could not be drawn: {error!r}", stacklevel=3)
