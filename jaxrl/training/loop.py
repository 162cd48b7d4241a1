"""The pure driver: one `lax.scan` over update ∘ collect. jit it, vmap it over seeds, vmap it over stacked configs."""

from typing import Any

import jax

from jaxrl.training.programs import program
from jaxrl.types import Key, Metrics, TrainState, check_key


def train(config: Any, key: Key, **given: Any) -> tuple[TrainState, Metrics]:
    """Train from scratch. Returns the final state and, per update, every metric as a `Mean` of leading axis [updates].

    `jax.jit(train)(config, key)` is one program; `jax.vmap(train, (None, 0))` maps seeds and
    `jax.vmap(train, (axes(config), None))` a stacked config.
    given: what the config's `program` takes beside the config, by name: env and network for control; network, params
    and data for language models. Close over them, `jax.vmap(lambda key: train(config, key, env=mine))(keys)`: JAX maps
    keyword arguments too, and takes no functions. Raises InputError as `program` does, and for a seed that is no key.
    """
    check_key(key, "train(config")
    p = program(config, **given)
    return jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
