"""Environment steps per second of every arm, for one setting: compile time, first update and steady state apart."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.benchmarks import arms
from jaxrl.benchmarks.ceilings import Sizes, floors, measure_ceilings
from jaxrl.benchmarks.timing import free_memory, memory_of, reason, repeats, spread, timed
from jaxrl.envs import registry
from jaxrl.ops.platform import compile_lowered, tuning
from jaxrl.settings import replace
from jaxrl.training import program
from jaxrl.types import InputError

_SHARE = 0.9  # of the free memory: allocators lose some between their blocks
_GIB = 2**30


class Plan(NamedTuple):
    """What to time. rounds: timed calls of each arm, in turns. seconds: aimed at per call. names: of arms."""

    rounds: int = 7
    seconds: float = 0.5
    names: tuple[str, ...] = arms.ARMS

    def check(self) -> None:
        """Raises InputError for a plan that measures nothing."""
        if self.rounds < 1 or not 0 < self.seconds < 3600:
            raise InputError(
                f"rounds = {self.rounds}, seconds = {self.seconds}: give at least 1 round of more than 0 s"
            )
        wrong = [name for name in self.names if name not in arms.ARMS]
        if wrong or not self.names:
            raise InputError(f"arms = {' '.join(wrong) or 'none'}: choose from {', '.join(arms.ARMS)}")


class Compiled(NamedTuple):
    """An arm, ready: start(key) -> carry, go_on(carry, updates) -> carry, and what it cost to get there."""

    start: Any
    go_on: Any
    seconds: float
    held: int
    working: int


def measure(config: Any, agents: int = 1, plan: Plan = Plan()) -> list[dict]:
    """A row of figures for every arm of `plan`, or why it has none: {"left_out": sentence}.

    config: of an algorithm that acts. agents: trained side by side by vmap, from different seeds.
    Raises InputError, before anything is compiled, for a config, a plan or a number of agents that cannot be.
    """
    plan.check()
    if agents < 1:
        raise InputError(f"agents = {agents}: there must be at least 1")
    config, sizes = endless(config), sizes_of(config, agents)
    rows, ready, held = {}, {}, 0
    for name in plan.names:
        rows[name] = {**about(config, agents), "arm": name}
        try:
            made = compiled(name, config, agents)
            fits(made, held)
        except (jax.errors.JaxRuntimeError, MemoryError, DoesNotFit) as error:
            rows[name]["left_out"] = reason(error)
            continue
        ready[name], held = made, held + made.held
        rows[name] |= {"compile_seconds": made.seconds, "memory_bytes": made.held + made.working}
    for name, times in in_turns(ready, config, agents, plan, rows).items():
        per_update = config.env.num_envs * config.num_steps * agents
        rows[name] |= rates(per_update * rows[name]["updates"], times)
    return with_floors(list(rows.values()), sizes)


def about(config: Any, agents: int) -> dict:
    """What names a row."""
    env = config.env
    setting = {"env": env.name, "backend": env.backend, "num_envs": env.num_envs, "agents": agents}
    return {**setting, "num_steps": config.num_steps, "devices": jax.device_count()}


def endless(config: Any) -> Any:
    """The config, long enough that its schedules do not end while it is timed."""
    if not hasattr(config, "env"):
        raise InputError(f"{type(config).__name__} learns from data; what is measured here acts: PPO, A2C, REINFORCE")
    if registry.on_host(config.env):
        raise InputError(
            f"{config.env.name} lives on the host, and what is measured here is compiled; name one of ours"
        )
    rollout = config.env.num_envs * config.num_steps
    return replace(config, total_steps=max(1, (2**31 - 1) // rollout) * rollout)


def sizes_of(config: Any, agents: int) -> Sizes:
    """What floors depend on. Traces and compiles nothing but shapes."""
    p = program(config)
    shapes = jax.eval_shape(p.init, jax.random.key(0))
    batch = jax.eval_shape(p.source.collect, jax.random.key(0), shapes.learner, shapes.carry)[1]
    leaves, n = jax.tree.leaves(shapes.learner.params), config.env.num_envs
    weights = [x.shape for x in leaves if len(x.shape) == 2] or [(1, 1)]
    minibatch = n * config.num_steps // getattr(config, "num_minibatches", 1)
    micro = getattr(config, "micro_batch_size", None) or tuning().micro_batch_rows or minibatch
    stored = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(batch._replace(info={}, memory=())))
    return Sizes(
        agents=agents,
        num_envs=n,
        rows=max(n, min(minibatch, micro)),
        width=max(weights, key=lambda shape: shape[0] * shape[1]),
        acting=arms.acting_operations(config),
        parameters=sum(x.size for x in leaves),
        epochs=getattr(config, "num_epochs", 1),
        stored=stored // (n * config.num_steps),
    )


class DoesNotFit(Exception):
    """A program needs more memory than there is."""


def compiled(name: str, config: Any, agents: int) -> Compiled:
    """Compile an arm ahead of time, as `run` compiles; nothing of it runs."""
    began, work = time.perf_counter(), arms.work(name)
    keys = jax.random.split(jax.random.key(0), agents)
    start = compile_lowered(work.start.lower(config, keys), brief=True)
    carry = jax.eval_shape(work.start, config, keys)
    go_on = compile_lowered(work.go_on.lower(config, carry, jnp.int32(1)), brief=False)
    seconds = time.perf_counter() - began
    return Compiled(
        lambda key: start(config, jax.random.split(key, agents)),
        lambda carry, updates: go_on(config, carry, jnp.int32(updates)),
        seconds,
        *memory_of(go_on),
    )


def fits(made: Compiled, held: int) -> None:
    """Raises DoesNotFit where a program, beside what others hold, needs more than is free."""
    needed, free = held + made.held + made.working, int(_SHARE * free_memory())
    if needed > free:
        raise DoesNotFit(f"needs {needed / _GIB:.1f} GiB, of which {free / _GIB:.1f} are free")


def in_turns(
    ready: dict[str, Compiled], config: Any, agents: int, plan: Plan, rows: dict[str, dict]
) -> dict[str, list[float]]:
    """Seconds of each round of each arm, arms in turns. Writes the first update and the count of updates into `rows`;
    an arm that fails gets its reason there, and no times.
    """
    carries, times = {}, {}
    for name, made in ready.items():
        try:
            carries[name] = jax.block_until_ready(made.start(jax.random.key(0)))
            rows[name]["first_update_seconds"] = _advance(made, carries, name, 1)
            rows[name]["updates"] = repeats(lambda n, m=made, name=name: _step(m, carries, name, n), plan.seconds)
            times[name] = []
        except jax.errors.JaxRuntimeError as error:
            carries.pop(name, None)
            rows[name]["left_out"] = reason(error)
    for _ in range(plan.rounds):
        for name, seen in times.items():
            seen.append(_advance(ready[name], carries, name, rows[name]["updates"]))
    return times


def _advance(made: Compiled, carries: dict, name: str, updates: int) -> float:
    return timed(lambda: _step(made, carries, name, updates))


def _step(made: Compiled, carries: dict, name: str, updates: int) -> Any:
    carries[name] = made.go_on(carries[name], updates)
    return carries[name]


def rates(steps: int, times: Sequence[float]) -> dict[str, float]:
    """Environment steps per second, from the seconds of calls of `steps` each."""
    return spread([steps / seconds for seconds in times])._asdict()


def with_floors(rows: list[dict], sizes: Sizes) -> list[dict]:
    """The rows with the speed at their floor, and the share of it that was reached, where physics, which has none, was
    measured beside them.
    """
    found = {row["arm"]: 1 / row["median"] for row in rows if "median" in row}
    if "physics" not in found:
        return rows
    ceiling = measure_ceilings(sizes)
    floor = floors(sizes, ceiling, found["physics"])
    for row in rows:
        if "median" in row and row["arm"] in floor:
            at_floor = 1 / floor[row["arm"]]
            row |= {"floor": at_floor, "of_floor": row["median"] / at_floor, "ceilings": ceiling.readable()}
    return rows
