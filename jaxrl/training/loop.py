"""The pure driver: one `lax.scan` over update ∘ collect. jit it, vmap it over seeds, vmap it over stacked configs."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.training.programs import program
from jaxrl.types import InputError, Key, Metrics, TrainState


def train(config: Any, key: Key, **given: Any) -> tuple[TrainState, Metrics]:
    """Train from scratch. Returns the final state and, per update, every metric as a `Mean` of leading axis [updates].

    `jax.jit(train)(config, key)` is one program; `jax.vmap(train, (None, 0))` maps seeds and
    `jax.vmap(train, (axes(config), None))` a stacked config.
    given: what the config's `program` takes beside the config, by name: env and network for control; network, params
    and data for language models. Close over them, `jax.vmap(lambda key: train(config, key, env=mine))(keys)`: JAX maps
    keyword arguments too, and takes no functions. Raises InputError as `program` does, and for a seed that is no key.
    """
    if jnp.ndim(key) == 0 and not jnp.issubdtype(getattr(key, "dtype", jnp.int32), jax.dtypes.prng_key):
        raise InputError("key is a number, perhaps a seed; give a key, as in train(config, jax.random.key(0))")
    p = program(config, **given)
    return jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
