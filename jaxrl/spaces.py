"""Spaces: what an observation or an action looks like. Static descriptions, never traced.

They sit beside `types` rather than in `envs`, because algorithms read them and may not import environments.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray


@dataclass(frozen=True)
class Discrete:
    """Integers 0 … n-1."""

    n: int

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def sample(self, key: PRNGKeyArray) -> Int[Array, ""]:
        return jax.random.randint(key, (), 0, self.n)

    def zero(self) -> Int[Array, ""]:
        return jnp.zeros((), jnp.int32)


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers; entry i lies in 0 … nvec[i]-1."""

    nvec: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    def sample(self, key: PRNGKeyArray) -> Int[Array, " k"]:
        return jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec))

    def zero(self) -> Int[Array, " k"]:
        return jnp.zeros(self.shape, jnp.int32)


@dataclass(frozen=True, eq=False)  # compared by identity: its bounds may be arrays
class Box:
    """Arrays of one shape, each entry between low and high (scalars or arrays of that shape; ±inf allowed)."""

    shape: tuple[int, ...]
    low: Any = -math.inf
    high: Any = math.inf
    dtype: Any = np.float32

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def bounds(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(low, high) as arrays of `shape`."""
        low, high = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), self.shape) for x in (self.low, self.high))
        return low, high

    def sample(self, key: PRNGKeyArray) -> Float[Array, "..."]:
        """Uniform between two bounds; from one bound on an exponential; without any a standard normal."""
        low, high = self.bounds
        has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
        low, high = jnp.where(has_low, low, 0.0), jnp.where(has_high, high, 0.0)
        k_uniform, k_tail, k_normal = jax.random.split(key, 3)
        uniform = low + (high - low) * jax.random.uniform(k_uniform, self.shape)
        tail, normal = jax.random.exponential(k_tail, self.shape), jax.random.normal(k_normal, self.shape)
        unbounded = jnp.where(has_low, low + tail, jnp.where(has_high, high - tail, normal))
        return jnp.where(has_low & has_high, uniform, unbounded)

    def zero(self) -> Float[Array, "..."]:
        low, high = self.bounds
        return jnp.clip(jnp.zeros(self.shape), low, high)


Space = Discrete | MultiDiscrete | Box


class Spaces(NamedTuple):
    """What an algorithm needs to know of an environment.

    `truncates`: whether a time limit can cut episodes. Where it cannot, V(next_obs) is the shifted V(obs), for free.
    """

    observation: Space
    action: Space
    truncates: bool = True
