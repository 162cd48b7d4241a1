"""The host driver: chunks of the same step that `train` scans, with logs, evaluation and checkpoints between them.

`run(config, seed)` computes bit for bit what `train(config, jax.random.key(seed))` does. A run that was stopped, by
whatever means, goes on from its last checkpoint and ends in the same numbers.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.data.arrays import Data
from jaxrl.evaluators.held_out import EpisodeJudge, HeldOutJudge
from jaxrl.ops import metrics as m
from jaxrl.reports.curve import learning_curve
from jaxrl.reports.rows import METRICS, TIMING, read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import open_run
from jaxrl.runs.logger import Bar, Logger
from jaxrl.settings import float32
from jaxrl.training.programs import Program, program
from jaxrl.types import Key, Params, TrainState

_EVAL = 0x6576616C  # folded into the seed's key: far from any number that training folds or splits


class RunResult(NamedTuple):
    """The final state, the figures that an experiment prints, and the directory that holds everything."""

    state: TrainState
    figures: dict[str, Any]
    run_dir: Path


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How often a run does what, as counts over the whole of it, evenly spaced."""

    logs: int = 100
    """Rows of metrics."""
    evals: int = 10
    """Evaluations along the way."""
    saves: int = 10
    """Checkpoints."""
    eval_episodes: int = 128
    """Episodes per evaluation, one per environment."""

    def check(self, p: Program) -> None:
        """Raises ValueError for counts that would leave a run without a log, or an evaluation without an end."""
        if self.logs < 1 or self.eval_episodes < 1:
            raise ValueError(f"logs = {self.logs}, eval_episodes = {self.eval_episodes}: each must be at least 1")
        if p.env is not None and p.env.time_limit is None:
            raise ValueError("evaluation needs a time limit, lest an episode never end; set env.time_limit")

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
    env: Any = None,
    network: Any = None,
    params: Params | None = None,
    data: Data | None = None,
    probe: Callable[[TrainState, Key], dict[str, float]] | None = None,
) -> RunResult:
    """Train on the host, with everything a person wants to keep in `run_dir`.

    Main arguments:
    config: an algorithm's config. seed: of everything. run_dir: by default a new directory under runs/.
    Other arguments:
    resume: go on from the newest checkpoint in run_dir, exactly; rows logged after it are cut and written again.
    schedule: how often to log, evaluate and save. progress: show a bar.
    env, network, params, data: as in `train`. probe: further figures of an evaluation, for those that learn from data.
    Raises ValueError, before anything is compiled, for a bad config, a directory that already holds a run, or a resume
    with another config, seed, parameters or data.
    """
    given = _Given({"env": env, "network": network}, {"params": params, "data": data})
    p = given.program(config)
    schedule.check(p)
    run_dir = open_run(config, seed, None if run_dir is None else Path(run_dir), resume, network, given.arrays)
    checkpoints, clock = Checkpoints(run_dir / "checkpoints"), _Clock()
    state, done = _start(config, given, p, seed, checkpoints, resume, clock)
    steps_done = done * p.steps_per_update
    logger = Logger(run_dir, steps_done if done else -1)
    bar = Bar(p.num_updates * p.steps_per_update, steps_done, progress)
    clock.train = sum(row["train_seconds"] for row in read_metrics(run_dir / TIMING)[-1:])
    try:
        chunk, judge = _compile(config, given, p, state, clock, schedule.eval_episodes, probe)
        state = _loop(p, state, done, chunk, judge, schedule, seed, logger, bar, checkpoints, clock)
        final = judge.final(state, eval_key(seed, int(state.num_steps)), read_metrics(run_dir / METRICS))
    finally:
        bar.close()
        logger.close()
        checkpoints.close()
        clock.close()
    unit = "env_steps" if p.env else "rows_seen"
    final |= {unit: int(state.num_steps), **clock.figures(), "run_dir": str(run_dir)}
    learning_curve(run_dir, judge.panels, judge.unit, judge.references(final))
    (run_dir / "result.json").write_text(json.dumps(final, indent=1) + "\n")
    return RunResult(state, final, run_dir)


class _Given(NamedTuple):
    """What a run is given beside its config: functions, which fix the program, and arrays, which are its arguments."""

    functions: dict[str, Any]
    arrays: dict[str, Any]

    def program(self, config: Any, arrays: dict[str, Any] | None = None) -> Program:
        return program(config, **self.functions, **(self.arrays if arrays is None else arrays))


class _Clock:
    """Seconds spent training, over all sessions of a run, and compiling, in this one; and how often it compiled."""

    def __init__(self):
        self.train, self.compile = 0.0, 0.0
        self.trained, self.steps, self.compilations = 0.0, 0, 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def close(self) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event: str, *_: Any, **__: Any) -> None:
        self.compilations += event == "/jax/core/compile/backend_compile_duration"

    def chunk(self, seconds: float, steps: int) -> dict[str, float]:
        self.train += seconds
        self.trained += seconds
        self.steps += steps
        rate = {"train_seconds": self.train, "steps_per_second": steps / seconds}
        return {**rate, "num_compilations": self.compilations}

    @contextlib.contextmanager
    def compiling(self):
        began = time.perf_counter()
        yield
        self.compile += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        rate = self.steps / self.trained if self.trained else 0.0
        seconds = {"train_seconds": round(self.train, 2), "compile_seconds": round(self.compile, 2)}
        rate = round(rate, 0 if rate >= 100 else 2)
        return {**seconds, "steps_per_second": rate, "num_compilations": self.compilations}


def _compile(config: Any, given: _Given, p: Program, state: TrainState, clock: _Clock, episodes: int, probe):
    """(chunk, judge): the training of a number of updates, and what evaluates it, compiled."""
    traced, arrays = float32(config), given.arrays

    def chunk(config, arrays, state, updates):
        step = given.program(config, arrays).step
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state)[1])

        def body(_, carry):
            state, total = carry
            state, metrics = step(state)
            return state, m.add(total, metrics)

        return jax.lax.fori_loop(0, updates, body, (state, zeros))

    number = jnp.zeros((), jnp.int32)
    with clock.compiling():
        chunk = jax.jit(chunk, donate_argnums=2).lower(traced, arrays, state, number).compile()
        if p.env is None:
            judge = HeldOutJudge(lambda *x: given.program(*x).measure, traced, arrays, state.learner, probe)
        else:
            policy, env = lambda *x: given.program(*x).algorithm.policy, given.functions["env"]
            judge = EpisodeJudge(policy, traced, arrays, env, state.learner, episodes)
    return lambda state, updates: chunk(traced, arrays, state, jnp.asarray(updates, jnp.int32)), judge


def _loop(p: Program, state, done: int, chunk, judge, schedule: Schedule, seed: int, logger, bar, saves, clock):
    marks = schedule.marks(p.num_updates)
    if not done and (before := judge.start(state, eval_key(seed, 0))):
        logger.row(0, before, {"train_seconds": 0.0})
    for update in sorted(mark for mark in set().union(*marks.values()) if mark > done):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(chunk(state, update - done))
        timing = clock.chunk(time.perf_counter() - began, (update - done) * p.steps_per_update)
        step, done = update * p.steps_per_update, update
        row = {name: float(value) for name, value in m.values(metrics).items()}
        if update in marks["evals"]:
            row |= judge.along(state, eval_key(seed, step))
        logger.row(step, row, timing)
        bar.update(step, judge.line(row), timing["steps_per_second"])
        if update in marks["saves"]:
            saves.save(step, state)
    return state


def eval_key(seed: int, step: int) -> jax.Array:
    """The key that evaluates a run after `step` environment steps, apart from every key of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EVAL), step)


def _start(
    config: Any, given: _Given, p: Program, seed: int, checkpoints: Checkpoints, resume: bool, clock: _Clock
) -> tuple[TrainState, int]:
    key = jax.random.key(seed)
    if resume and checkpoints.steps():
        state = checkpoints.restore(jax.eval_shape(p.init, key))
        return state, int(state.num_steps) // p.steps_per_update
    with clock.compiling():
        init = jax.jit(lambda arrays, key: given.program(config, arrays).init(key)).lower(given.arrays, key).compile()
    return init(given.arrays, key), 0
