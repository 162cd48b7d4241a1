"""Environments with known answers, for tests of more than one module."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from jaxrl.spaces import Box, Discrete
from jaxrl.types import Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counter:
    """Counts its steps from a random start in [0, 1); terminates when told to (action 1); breaks on action 2."""

    step_size: jax.Array = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=None, metadata={"static": True})
    observation_space = Box((1,))
    action_space = Discrete(3)

    def reset(self, key):
        start = jax.random.uniform(key, (1,))
        return start, start

    def step(self, key, state, action):
        state = jnp.where(action == 2, jnp.nan, state + self.step_size)
        return state, Step(state, state[0], action == 1, jnp.zeros((), bool), {"size": self.step_size})
