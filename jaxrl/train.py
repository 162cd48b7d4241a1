"""The pure driver: one `lax.scan` over update ∘ collect. jit it, vmap it over seeds, vmap it over stacked configs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.config import check, float32
from jaxrl.envs import registry
from jaxrl.types import Algorithm, Key, Metrics, Network, TrainState


class Program(NamedTuple):
    """One training run as pure functions: init(key) -> state, step(state) -> (state, metrics); and its length."""

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState], tuple[TrainState, Metrics]]
    num_updates: int
    steps_per_update: int
    algorithm: Algorithm
    env: Any


def program(config: Any, *, env: Any = None, network: Network | None = None) -> Program:
    """Assemble environment, algorithm and source. Raises ValueError for a bad config before anything is compiled.

    env: an Environment to use instead of the one that `config.env` names. network: instead of the config's own.
    """
    check(config)
    config = float32(config)
    vector_env = registry.from_config(config.env, env)
    algorithm = config.make(vector_env.spaces, network)
    source = config.source(vector_env, algorithm)
    steps_per_update = config.env.num_envs * config.num_steps

    def init(key: Key) -> TrainState:
        key, k_learner, k_source = jax.random.split(key, 3)
        return TrainState(key, algorithm.init(k_learner), source.init(k_source), jnp.zeros((), jnp.int32))

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        key, k_collect, k_update = jax.random.split(state.key, 3)
        carry, batch = source.collect(k_collect, state.learner, state.carry)
        learner, metrics = algorithm.update(k_update, state.learner, batch)
        return TrainState(key, learner, carry, state.num_steps + steps_per_update), metrics

    updates = config.total_steps // steps_per_update
    return Program(init, step, updates, steps_per_update, algorithm, vector_env)


def train(config: Any, key: Key, *, env: Any = None, network: Network | None = None) -> tuple[TrainState, Metrics]:
    """Train from scratch. Returns the final state and, per update, every metric as a `Mean` of leading axis [updates].

    `jax.jit(train)(config, key)` is one program; `jax.vmap(train, (None, 0))` maps seeds and
    `jax.vmap(train, (axes(config), None))` a stacked config. Raises ValueError as `program` does.
    """
    p = program(config, env=env, network=network)
    return jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
