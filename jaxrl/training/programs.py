"""The pure driver: one `lax.scan` over update ∘ collect. jit it, vmap it over seeds, vmap it over stacked configs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.data.arrays import Data, in_order
from jaxrl.envs import registry
from jaxrl.ops import metrics as m
from jaxrl.settings import check, float32
from jaxrl.sources.rows import batches, batches_per_epoch
from jaxrl.types import Algorithm, Key, Learner, Metrics, Params, Source, TrainState


class Program(NamedTuple):
    """One training run as pure functions: init(key) -> state, step(state) -> (state, metrics); and its length.

    env: the environments, or None for algorithms that learn from data; those have measure(learner) -> metrics of the
    held-out rows, or of the first training rows where there are none.
    """

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState], tuple[TrainState, Metrics]]
    num_updates: int
    steps_per_update: int
    algorithm: Algorithm
    env: Any
    measure: Callable[[Learner], Metrics] | None = None


def program(
    config: Any, *, env: Any = None, network: Any = None, params: Params | None = None, data: Data | None = None
) -> Program:
    """Assemble algorithm and source. Raises ValueError for a bad config before anything is compiled.

    For control: env, an Environment to use instead of the one that `config.env` names; network, a Network instead of
    the config's own. For language models: network, a LanguageModel; params, its pre-trained parameters; data.
    """
    check(config)
    config = float32(config)
    if hasattr(config, "env"):
        if params is not None or data is not None:
            raise ValueError(f"{type(config).__name__} learns from environments; leave params and data out")
        return _control(config, env, network)
    if env is not None or network is None or params is None or data is None:
        raise ValueError(f"{type(config).__name__} learns from data; give network, params and data, and no env")
    return _language(config, network, params, data)


def _control(config: Any, env: Any, network: Any) -> Program:
    vector_env = registry.from_config(config.env, env)
    algorithm = config.make(vector_env.spaces, network)
    source = config.source(vector_env, algorithm)
    steps_per_update = config.env.num_envs * config.num_steps
    updates = config.total_steps // steps_per_update
    return _assemble(algorithm, source, updates, steps_per_update)._replace(env=vector_env)


def _language(config: Any, network: Any, params: Params, data: Data) -> Program:
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(data))
    if hasattr(config, "check_data") and not traced:
        config.check_data(data)
    loop = config.loop
    updates = loop.epochs * batches_per_epoch(data.train, loop.batch_size)
    updates = updates if loop.max_updates is None else min(updates, loop.max_updates)
    algorithm = config.make(network, params, updates)
    made = _assemble(algorithm, batches(data.train, loop.batch_size), updates, loop.batch_size)
    few = jax.tree.map(lambda x: x[: loop.batch_size], data.train[:1])
    held_out = in_order(data.held_out or few, loop.batch_size)

    def measure(learner: Learner) -> Metrics:
        of_batch = partial(algorithm.measure, jax.random.key(0), learner)
        buckets = [m.total(jax.lax.map(of_batch, bucket)) for bucket in held_out]
        return jax.tree.map(lambda *x: sum(x), *buckets)

    return made._replace(measure=measure)


def _assemble(algorithm: Algorithm, source: Source, num_updates: int, steps_per_update: int) -> Program:
    def init(key: Key) -> TrainState:
        key, k_learner, k_source = jax.random.split(key, 3)
        return TrainState(key, algorithm.init(k_learner), source.init(k_source), jnp.zeros((), jnp.int32))

    def step_with(collect: Callable, state: TrainState) -> tuple[TrainState, Metrics]:
        key, k_collect, k_update = jax.random.split(state.key, 3)
        carry, batch = collect(k_collect, state.learner, state.carry)
        learner, metrics = algorithm.update(k_update, state.learner, batch)
        return TrainState(key, learner, carry, state.num_steps + steps_per_update), metrics

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        if source.branch is None:
            return step_with(source.collect, state)
        return jax.lax.switch(source.branch(state.carry), [partial(step_with, c) for c in source.collect], state)

    return Program(init, step, num_updates, steps_per_update, algorithm, None)
