"""The pure driver: one `lax.scan` over update ∘ collect. jit it, vmap it over seeds, vmap it over stacked configs."""

from typing import Any

import jax

from jaxrl.data.arrays import Data
from jaxrl.training.programs import program
from jaxrl.types import Key, Metrics, Params, TrainState


def train(
    config: Any,
    key: Key,
    *,
    env: Any = None,
    network: Any = None,
    params: Params | None = None,
    data: Data | None = None,
) -> tuple[TrainState, Metrics]:
    """Train from scratch. Returns the final state and, per update, every metric as a `Mean` of leading axis [updates].

    `jax.jit(train)(config, key)` is one program; `jax.vmap(train, (None, 0))` maps seeds and
    `jax.vmap(train, (axes(config), None))` a stacked config. Arguments and errors as for `program`.
    """
    p = program(config, env=env, network=network, params=params, data=data)
    return jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
