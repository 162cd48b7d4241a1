"""The host driver: chunks of the same step that `train` scans, with logs, evaluation and checkpoints between them.

`run(config, seed)` computes bit for bit what `train(config, jax.random.key(seed))` does. A run that was stopped, by
whatever means, goes on from its last checkpoint and ends in the same numbers.
"""

import contextlib
import dataclasses
import json
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import metrics as m
from jaxrl.checkpoint import Checkpoints
from jaxrl.config import float32
from jaxrl.config_file import load, save
from jaxrl.evaluate import BEHAVIOURS, evaluate, figures
from jaxrl.logs import TIMING, Bar, Logger, read_rows
from jaxrl.report import learning_curve
from jaxrl.train import Program, program
from jaxrl.types import Network, TrainState

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
        if p.env.time_limit is None:
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
    network: Network | None = None,
) -> RunResult:
    """Train on the host, with everything a person wants to keep in `run_dir`.

    Main arguments:
    config: an algorithm's config. seed: of everything. run_dir: by default a new directory under runs/.
    Other arguments:
    resume: go on from the newest checkpoint in run_dir, exactly; rows logged after it are cut and written again.
    schedule: how often to log, evaluate and save. progress: show a bar.
    env, network: as in `train`.
    Raises ValueError, before anything is compiled, for a bad config, a directory that already holds a run, or a resume
    with another config or seed.
    """
    p = program(config, env=env, network=network)
    schedule.check(p)
    run_dir = _directory(config, seed, run_dir, resume)
    checkpoints, clock = Checkpoints(run_dir / "checkpoints"), _Clock()
    state, done = _start(p, seed, checkpoints, resume, clock)
    steps_done = done * p.steps_per_update
    logger, bar = Logger(run_dir, steps_done), Bar(config.total_steps, steps_done, progress)
    clock.train = sum(row["train_seconds"] for row in read_rows(run_dir / TIMING)[-1:])
    try:
        compiled = _compile(config, state, clock, env, network, schedule.eval_episodes)
        state = _loop(p, state, done, compiled, schedule, seed, logger, bar, checkpoints, clock)
        final = _final(compiled, state, seed)
    finally:
        bar.close()
        logger.close()
        checkpoints.close()
    final |= {"env_steps": int(state.num_steps), **clock.figures(), "run_dir": str(run_dir)}
    references = {"zero action": final["zero_action_return"], "random actions": final["random_return"]}
    learning_curve(run_dir, references)
    (run_dir / "result.json").write_text(json.dumps(final, indent=1) + "\n")
    return RunResult(state, final, run_dir)


class _Clock:
    """Seconds spent training, over all sessions of a run, and compiling, in this one."""

    def __init__(self):
        self.train, self.compile = 0.0, 0.0
        self.trained, self.steps = 0.0, 0

    def chunk(self, seconds: float, steps: int) -> dict[str, float]:
        self.train += seconds
        self.trained += seconds
        self.steps += steps
        return {"train_seconds": self.train, "steps_per_second": steps / seconds}

    @contextlib.contextmanager
    def compiling(self):
        began = time.perf_counter()
        yield
        self.compile += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        rate = self.steps / self.trained if self.trained else 0.0
        seconds = {"train_seconds": round(self.train, 2), "compile_seconds": round(self.compile, 2)}
        return {**seconds, "steps_per_second": round(rate)}


class _Compiled(NamedTuple):
    chunk: Any  # (state, updates) -> (state, metrics summed)
    evaluate: Any  # (learner, key, behaviour) -> Evaluation


def _compile(config: Any, state: TrainState, clock: _Clock, env: Any, network: Any, episodes: int) -> _Compiled:
    traced = float32(config)

    def chunk(config, state, updates):
        step = program(config, env=env, network=network).step
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state)[1])

        def body(_, carry):
            state, total = carry
            state, metrics = step(state)
            return state, m.add(total, metrics)

        return jax.lax.fori_loop(0, updates, body, (state, zeros))

    def evaluation(config, learner, key, behaviour):
        policy = program(config, env=env, network=network).algorithm.policy
        return evaluate(config.env, policy, learner, key, num_episodes=episodes, behaviour=behaviour, body=env)

    number = jnp.zeros((), jnp.int32)
    with clock.compiling():
        chunk = jax.jit(chunk, donate_argnums=1).lower(traced, state, number).compile()
        evaluation = jax.jit(evaluation).lower(traced, state.learner, jax.random.key(0), number).compile()
    return _Compiled(
        lambda state, updates: chunk(traced, state, jnp.asarray(updates, jnp.int32)),
        lambda learner, key, name: evaluation(traced, learner, key, jnp.asarray(BEHAVIOURS.index(name), jnp.int32)),
    )


def _loop(p: Program, state, done: int, compiled: _Compiled, schedule: Schedule, seed: int, logger, bar, saves, clock):
    marks = schedule.marks(p.num_updates)
    for update in sorted(mark for mark in set().union(*marks.values()) if mark > done):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled.chunk(state, update - done))
        timing = clock.chunk(time.perf_counter() - began, (update - done) * p.steps_per_update)
        step, done = update * p.steps_per_update, update
        row = {name: float(value) for name, value in m.values(metrics).items()}
        if update in marks["evals"]:
            found = figures(compiled.evaluate(state.learner, eval_key(seed, step), "mode"))
            row |= {f"eval_{name}": value for name, value in found.items() if name != "episodes"}
        logger.row(step, row, timing)
        bar.update(step, row, timing["steps_per_second"])
        if update in marks["saves"]:
            saves.save(step, state)
    return state


def _final(compiled: _Compiled, state: TrainState, seed: int) -> dict[str, Any]:
    key = eval_key(seed, int(state.num_steps))
    found = {name: figures(compiled.evaluate(state.learner, key, name)) for name in ("mode", "zero", "random")}
    references = {"zero_action_return": found["zero"]["return"], "random_return": found["random"]["return"]}
    return {**found["mode"], **references}


def eval_key(seed: int, step: int) -> jax.Array:
    """The key that evaluates a run after `step` environment steps, apart from every key of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EVAL), step)


def _start(p: Program, seed: int, checkpoints: Checkpoints, resume: bool, clock: _Clock) -> tuple[TrainState, int]:
    key = jax.random.key(seed)
    if resume and checkpoints.steps():
        state = checkpoints.restore(jax.eval_shape(p.init, key))
        return state, int(state.num_steps) // p.steps_per_update
    with clock.compiling():
        init = jax.jit(p.init).lower(key).compile()
    return init(key), 0


def _directory(config: Any, seed: int, run_dir: str | Path | None, resume: bool) -> Path:
    if run_dir is None:
        if resume:
            raise ValueError("resume needs the run_dir to go on in")
        name = f"{config.env.name.replace('/', '-')}_{type(config).__name__.lower()}_s{seed}"
        run_dir = Path("runs") / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}"
    run_dir = Path(run_dir)
    about, described = run_dir / "run.json", {"seed": seed, **machine()}
    if resume:
        _same_run(config, seed, run_dir, about)
    elif about.exists():
        raise ValueError(f"{run_dir} already holds a run; pass resume=True to go on with it, or another run_dir")
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        save(config, run_dir / "config.yaml")
        about.write_text(json.dumps(described, indent=1) + "\n")
    return run_dir


def _same_run(config: Any, seed: int, run_dir: Path, about: Path) -> None:
    if not about.exists():
        raise ValueError(f"{run_dir} holds no run to resume; leave resume out to start one there")
    saved = load(run_dir / "config.yaml", {type(config).__name__.lower(): type(config)})
    for f in dataclasses.fields(config):
        old, new = getattr(saved, f.name), getattr(config, f.name)
        if old != new:
            raise ValueError(f"{run_dir} was run with {f.name} = {old}, not {new}; resume with its own config.yaml")
    then = json.loads(about.read_text())
    if then["seed"] != seed:
        raise ValueError(f"{run_dir} was run with seed = {then['seed']}, not {seed}; resume with that seed")
    changed = [f"{name} was {then.get(name)}, is {now}" for name, now in machine().items() if then.get(name) != now]
    if changed:
        warnings.warn(f"resuming where {'; '.join(changed)}: it goes on, but not bit for bit", stacklevel=4)


def machine() -> dict[str, Any]:
    """What exactness depends on: versions, device, processor and core count."""
    packages = ("jax", "jaxlib", "flax", "optax", "brax", "gymnax")
    device = jax.devices()[0]
    about = {"platform": device.platform, "device": device.device_kind, "devices": jax.device_count()}
    return {**about, "processor": platform.machine(), "cores": os.cpu_count(), **{p: version(p) for p in packages}}
