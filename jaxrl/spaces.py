"""Spaces: what an observation or an action looks like. Static descriptions, never traced, compared by value.

An observation may also be a pytree: its space is then a dict, tuple or list of the spaces of its parts. They sit
beside `types` rather than in `envs`, because algorithms read them and may not import environments.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from jaxrl.types import InputError


@dataclass(frozen=True)
class Discrete:
    """Integers start … start + n-1."""

    n: int
    start: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> Any:
        return np.int32

    def sample(self, key: PRNGKeyArray) -> Int[Array, ""]:
        return jax.random.randint(key, (), self.start, self.start + self.n, jnp.int32)

    def zero(self) -> Int[Array, ""]:
        """The first of them."""
        return jnp.full((), self.start, jnp.int32)


@dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers; entry i lies in start[i] … start[i] + nvec[i]-1. start: zeros where none is given."""

    nvec: tuple[int, ...]
    start: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.start and len(self.start) != len(self.nvec):
            raise InputError(f"start = {self.start} has {len(self.start)} entries for the {len(self.nvec)} of nvec")
        object.__setattr__(self, "start", tuple(self.start) or (0,) * len(self.nvec))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> Any:
        return np.int32

    def sample(self, key: PRNGKeyArray) -> Int[Array, " k"]:
        first = jnp.asarray(self.start, jnp.int32)
        return first + jax.random.randint(key, self.shape, 0, jnp.asarray(self.nvec, jnp.int32), jnp.int32)

    def zero(self) -> Int[Array, " k"]:
        """The first of each."""
        return jnp.asarray(self.start, jnp.int32)


@dataclass(frozen=True, eq=False)  # bounds may be arrays, which dataclasses cannot compare
class Box:
    """Arrays of one shape, each entry between low and high (scalars or arrays of that shape; ±inf allowed)."""

    shape: tuple[int, ...]
    low: Any = -math.inf
    high: Any = math.inf
    dtype: Any = np.float32

    def __post_init__(self) -> None:
        """Raises InputError for a shape that is none, as of arguments in Gymnasium's order."""
        if not isinstance(self.shape, tuple) or not all(isinstance(n, int | np.integer) and n >= 0 for n in self.shape):
            raise InputError(
                f"shape = {self.shape!r:.60} of a Box is no tuple of sizes; a Box is Box(shape, low, high), or name "
                "them: Box(shape=(2,), low=-1.0, high=1.0)"
            )
        for name in ("low", "high"):
            given = np.shape(getattr(self, name))
            if given != () and given != self.shape[-len(given) :]:
                raise InputError(
                    f"{name} of a Box of shape {self.shape} has shape {given}; give one number, or one for each entry"
                )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.static_bounds)))

    @property
    def static_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) as NumPy arrays of `shape`, in float32, or float64 for a box of float64."""
        kind = np.float64 if np.dtype(self.dtype) == np.float64 else np.float32
        low, high = (np.broadcast_to(np.asarray(x, kind), self.shape) for x in (self.low, self.high))
        # The largest float32 is how some write "unbounded"; half of its range overflows.
        low, high = (np.where(np.abs(x) > 1e30, np.copysign(np.inf, x), x).astype(kind) for x in (low, high))
        return low, high

    @property
    def bounds(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(low, high) as arrays of `shape`."""
        low, high = map(jnp.asarray, self.static_bounds)
        return low, high

    def sample(self, key: PRNGKeyArray) -> Shaped[Array, "..."]:
        """Uniform between two bounds; from one bound on an exponential; without any a standard normal. Of a box of
        integers these are rounded down, and both bounds are drawn.
        """
        low, high = self.bounds
        whole = not jnp.issubdtype(self.dtype, jnp.floating)
        has_low, has_high = jnp.isfinite(low), jnp.isfinite(high)
        low, high = jnp.where(has_low, low, 0.0), jnp.where(has_high, high, 0.0)
        k_uniform, k_tail, k_normal = jax.random.split(key, 3)
        uniform = low + (high + whole - low) * jax.random.uniform(k_uniform, self.shape, low.dtype)
        tail = jax.random.exponential(k_tail, self.shape, low.dtype)
        normal = jax.random.normal(k_normal, self.shape, low.dtype)
        unbounded = jnp.where(has_low, low + tail, jnp.where(has_high, high - tail, normal))
        drawn = jnp.where(has_low & has_high, uniform, unbounded)
        if whole:  # the rounding of low + (high + 1 - low)·u may reach high + 1
            drawn = jnp.where(has_high, jnp.minimum(jnp.floor(drawn), high), jnp.floor(drawn))
        return drawn.astype(self.dtype)

    def zero(self) -> Shaped[Array, "..."]:
        """Zero, or the bound nearest to it."""
        low, high = self.bounds
        return jnp.clip(jnp.zeros(self.shape, low.dtype), low, high).astype(self.dtype)

    def _value(self) -> tuple:
        # + 0.0 makes 0 of -0, which equals it and differs in its bytes
        return self.shape, np.dtype(self.dtype), *((x + 0.0).tobytes() for x in self.static_bounds)


# A space, or a pytree of them for observations that are pytrees.
Space = Discrete | MultiDiscrete | Box | dict[str, Any] | tuple[Any, ...] | list[Any]


class Spaces(NamedTuple):
    """What an algorithm needs to know of an environment.

    `truncates`: whether a time limit can cut episodes. Where it cannot, V(next_obs) is the shifted V(obs), for free.
    """

    observation: Space
    action: Space
    truncates: bool = True
