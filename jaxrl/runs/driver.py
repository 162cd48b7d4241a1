"""The host driver: chunks of the same step that `train` scans, with logs, evaluation and checkpoints between them.

`run(config, seed)` computes bit for bit what `train(config, jax.random.key(seed))` does where both are compiled by the
options of `jaxrl.ops.platform.compiler_options`. A run that was stopped, by whatever means, goes on from its last
checkpoint and ends in the same numbers.
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

from jaxrl.config_file import to_dict
from jaxrl.data.fingerprints import name_of
from jaxrl.envs.custom import refuse_within_import
from jaxrl.reports.curve import learning_curve
from jaxrl.reports.rows import TIMING, read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import (
    CHECKPOINTS,
    RESULT,
    adopt,
    alone,
    as_path,
    as_run,
    begin_run,
    check_run_dir,
    keepsakes,
    mend,
    on_disk,
    own_directory,
    read_about,
    shards_of,
    shared,
)
from jaxrl.runs.divergence import again, slower, train_on
from jaxrl.runs.header import HEADER, lines, run_header
from jaxrl.runs.judging import Judge
from jaxrl.runs.logs import Bar, Logger, WandbRun, check_wandb, plain_lines
from jaxrl.runs.preemption import Interrupts, Partial
from jaxrl.runs.session import Session
from jaxrl.settings import Parallel, only_places, replace
from jaxrl.training import program
from jaxrl.training.clock import Clock
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.training.compiled import Compiled, trace
from jaxrl.training.given import describe
from jaxrl.training.parallel import over_devices
from jaxrl.training.processes import is_first
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
    """Checkpoints. The two newest are kept, and the best of those that were evaluated."""
    keeps: int = 0
    """Checkpoints that are kept for good."""

    def check(self) -> None:
        """Raises InputError for counts that would leave a run without a log."""
        if self.logs < 1 or min(self.evals, self.saves, self.keeps) < 0:
            wrong = f"logs = {self.logs}, evals = {self.evals}, saves = {self.saves}, keeps = {self.keeps}"
            raise InputError(f"{wrong}: logs must be at least 1, and the others 0 (none) or more")

    def marks(self, num_updates: int) -> dict[str, set[int]]:
        """For each of logs, evals, saves and keeps: the updates after which it is due. All are due after the last."""

        def spread(count: int) -> set[int]:
            return {max(1, round(i * num_updates / count)) for i in range(1, count + 1)}

        return {name: spread(getattr(self, name)) for name in ("logs", "evals", "saves", "keeps")}


def run(
    config: Any,
    seed: int = 0,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    backoff: float = 1.0,
    schedule: Schedule = Schedule(),
    wandb: str | None = None,
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
    again. A damaged one is moved aside, with a warning. accept_changes: also with another config, seed or thing given.
    backoff: what the learning rate is multiplied by when a run that diverged goes back to its last good checkpoint. It
    does so once, with another key.
    schedule: how often to log, evaluate and save. wandb: a project of Weights & Biases to log to as well. progress:
    show a bar, or a few plain lines where there is no terminal.
    probe(state, key): further figures of every evaluation along the way, logged as eval_*.
    export(state, run_dir): writes what else is to be kept of the final state, before any picture is drawn.
    more: what else run.json is to say of this run.
    Raises InputError, before anything is compiled or written, for a bad config, a directory that already holds a run,
    or a resume with another config, seed or thing given, or of a run that another process is at. Raises Diverged when
    the learner, or ten updates' gradients in a row, are not finite for the second time, and Stopped, after saving,
    where SIGTERM or SIGINT (Ctrl-C) asks for it: between updates or within an evaluation, in seconds. Raises NotSaved
    where the disk takes no more.
    """
    refuse_within_import()
    schedule.check()
    progress = progress and is_first()
    seed = checked_seed(seed)
    cache = enable_compilation_cache()
    run_dir = own_directory(None if run_dir is None else as_path(run_dir), resume)
    config, p, settings = _spread(config, given, run_dir if resume else None)
    told = describe(given)
    slower(config, backoff)
    with on_disk(run_dir), contextlib.ExitStack() as stack:
        if resume and run_dir is not None and run_dir.is_dir():
            stack.enter_context(alone(run_dir))
            _mend(run_dir, settings)
        changes = check_run_dir(run_dir, seed, settings, told, resume, accept_changes)
        wandb = check_wandb(wandb, run_dir if resume else None)
        interrupts, clock = stack.enter_context(Interrupts()), stack.enter_context(Clock())
        with clock.compiling():
            compile_all = trace(config, given, p)
        if not resume:
            more = {"schedule": dataclasses.asdict(schedule), "backoff": backoff, **more}
            more |= {"probe": name_of(probe)} if probe is not None else {}
            run_dir = begin_run(run_dir, p.label, seed, settings, told, more)
            stack.enter_context(alone(run_dir))
        elif changes:
            adopt(run_dir, seed, settings, told, changes, more)
        boards = []
        if wandb is not None:
            there = WandbRun(wandb, run_dir, {**to_dict(settings), "seed": seed}, p.unit.name)
            stack.callback(there.close)
            boards.append(there.row)
        marks = schedule.marks(p.num_updates)
        always = {mark * p.steps_per_update for mark in marks["keeps"]}
        kept = Checkpoints(run_dir / CHECKPOINTS, always=always, apart=not shared(run_dir))
        saves = stack.enter_context(contextlib.closing(kept))
        with clock.compiling():
            compiled = compile_all()
        state, compiled = _start(p, config, compiled, saves, run_dir, seed, resume)
        done = int(state.num_steps)
        partial = Partial.of((saves.about() or {}).get("partial")) if done else None
        # A row whose evaluation is due is written now, or again.
        last = done - 1 if not done or (partial is not None and partial.due) else done
        logger = Logger(run_dir, last, boards)
        clock.go_on(done, sum(row.get("train_seconds", 0.0) for row in read_metrics(run_dir / TIMING)[-1:]))
        session = Session(
            p=p,
            run_dir=run_dir,
            compiled=compiled,
            clock=clock,
            saves=saves,
            logger=logger,
            bar=stack.enter_context(contextlib.closing(_bar(p, done, progress, marks))),
            judge=Judge(compiled.evaluators, seed, clock, logger, interrupts, probe),
            marks=marks,
            interrupts=interrupts,
            about=keepsakes(run_dir),
            partial=partial,
        )
        stack.callback(lambda: session.logger.close())  # another one by then, if the run went back
        header = run_header(seed, compiled.memory, cache, len(state.num_steps.sharding.device_set))
        (run_dir / HEADER).write_text(json.dumps(header, indent=1) + "\n")
        session.bar.say(*lines(header))
        state = train_on(session, state, config, backoff)
        # Dearest first: the state lies in its checkpoint; now the model, then the figures, and pictures last.
        if export is not None:
            export(state, run_dir)
        final = session.final(state)
        (run_dir / RESULT).write_text(json.dumps(final, indent=1) + "\n")
        _draw(p, run_dir, final)
    return RunResult(state, final, run_dir)


def _spread(config: Any, given: dict[str, Any], resumed: Path | None) -> tuple[Any, Program, Any]:
    """The config on the devices that there are, its program, and the config as a run's directory keeps it: with the
    number of shards, which that of the run that is resumed has decided, and without devices that decide nothing."""
    shards = None if resumed is None else shards_of(resumed, config)
    shared = over_devices(config) if shards is None else replace(config, parallel=Parallel(shards))
    if only_places(getattr(config, "parallel", None)):
        p = program(shared, **given)
        return shared, p, as_run(config, p.overrides)
    p = program(config, **given)
    if shared is not config and p.host is None:
        config, p = shared, program(shared, **given)
    return config, p, as_run(config, p.overrides)


def _bar(p: Program, done: int, progress: bool, marks: dict[str, set[int]]) -> Bar:
    steps = {name: {mark * p.steps_per_update for mark in found} for name, found in marks.items()}
    return Bar(p.total_steps, done, progress, p.unit.label.split()[-1], plain_lines(steps["evals"], steps["logs"]))


def checked_seed(seed: Any) -> int:
    """As an int. Raises InputError for what is no seed."""
    try:
        number = operator.index(seed)  # NumPy's integers too
    except TypeError:
        raise InputError(f"seed = {seed!r} is no whole number; give an int") from None
    if not 0 <= number < 2**32:
        raise InputError(f"seed = {number} is out of range; it must be between 0 and {2**32 - 1}")
    return number


def _mend(run_dir: Path, config: Any) -> None:
    with contextlib.closing(Checkpoints(run_dir / CHECKPOINTS, read_only=True)) as saves:
        for note in mend(run_dir, config, saves.about()):
            warnings.warn(note, stacklevel=3)


def _start(
    p: Program, config: Any, compiled: Compiled, saves: Checkpoints, run_dir: Path, seed: int, resume: bool
) -> tuple[TrainState, Compiled]:
    key = jax.random.key(seed)
    if not resume or not saves.steps():
        return compiled.init(key), compiled
    template = jax.eval_shape(p.init, key)
    found = saves.newest(template, p.places and p.places(template))
    for note in found.notes:
        warnings.warn(note, stacklevel=3)
    done = int(found.tree.num_steps)
    if done > p.total_steps:
        learned = f"{run_dir} has learned from {done} {p.unit.label}"
        raise InputError(f"{learned}, and total_steps = {p.total_steps}; give at least as many")
    state, back = compiled.place(found.tree), read_about(run_dir).get("went_back")
    if back is None:
        return state, compiled
    state = again(state) if found.step == back["to"] else state
    return state, compiled.using(slower(config, back["backoff"]))


def _draw(p: Program, run_dir: Path, final: dict[str, Any]) -> None:
    panels = [panel for e in p.evaluators for panel in e.panels]
    named = [(label, final.get(name)) for e in p.evaluators for label, name in e.references.items()]
    try:
        learning_curve(run_dir, panels, p.unit.label, {label: value for label, value in named if value is not None})
    except Exception as error:  # whatever goes wrong with a picture, the run is done and kept
        warnings.warn(f"the learning curve of {run_dir} could not be drawn: {error!r}", stacklevel=3)
