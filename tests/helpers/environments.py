"""Environments with known answers, for tests of more than one module."""

from dataclasses import dataclass, field
from typing import Any

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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Flawed:
    """Another environment, of which some copies give NaN: a share `flaw` of their starts and of their steps."""

    inner: Any
    flaw: jax.Array

    @classmethod
    def some(cls, inner, flaws):
        """One body for each share in `flaws`."""
        return cls(jax.tree.map(lambda x: jnp.broadcast_to(x, (len(flaws), *jnp.shape(x))), inner), jnp.array(flaws))

    observation_space = property(lambda self: self.inner.observation_space)
    action_space = property(lambda self: self.inner.action_space)
    time_limit = property(lambda self: self.inner.time_limit)
    truncates = property(lambda self: self.inner.truncates)

    def reset(self, key):
        k_flaw, k_reset = jax.random.split(key)
        state, obs = self.inner.reset(k_reset)
        return state, self._spoilt(k_flaw, obs)

    def step(self, key, state, action):
        k_flaw, k_step = jax.random.split(key)
        state, step = self.inner.step(k_step, state, action)
        return state, step._replace(next_obs=self._spoilt(k_flaw, step.next_obs), reward=self._spoilt(key, step.reward))

    def _spoilt(self, key, x):
        return jnp.where(jax.random.bernoulli(key, self.flaw), jnp.nan, x)
