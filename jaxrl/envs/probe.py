"""Tiny environments with known answers: if learning fails here, the one thing each of them isolates is broken."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Constant:
    """Reward 1 for ever, cut by a time limit: V = 1/(1-γ), which only bootstrapping on truncation finds."""

    reward: Float[Array, ""] = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=10, metadata={"static": True})

    observation_space: Space = field(default=Box((1,), 0.0, 1.0), metadata={"static": True})
    action_space: Space = field(default=Discrete(2), metadata={"static": True})

    def reset(self, key: Key):
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(self, key: Key, state: Int[Array, ""], action: Int[Array, ""]):
        step = Step(jnp.zeros(1), self.reward, jnp.zeros((), bool), jnp.zeros((), bool), {})
        return state + 1, step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneStep:
    """One step, reward 1, the end: V = 1. The value loss and its optimiser."""

    reward: Float[Array, ""] = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=None, metadata={"static": True})

    observation_space: Space = field(default=Box((1,), 0.0, 1.0), metadata={"static": True})
    action_space: Space = field(default=Discrete(2), metadata={"static": True})

    def reset(self, key: Key):
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(self, key: Key, state: Int[Array, ""], action: Int[Array, ""]):
        return state + 1, Step(jnp.zeros(1), self.reward, jnp.ones((), bool), jnp.zeros((), bool), {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TwoSteps:
    """Two steps, reward 1 at the end: V(first) = γ, V(second) = 1. Discounting."""

    reward: Float[Array, ""] = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=None, metadata={"static": True})

    observation_space: Space = field(default=Box((1,), 0.0, 1.0), metadata={"static": True})
    action_space: Space = field(default=Discrete(2), metadata={"static": True})

    def reset(self, key: Key):
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(self, key: Key, state: Int[Array, ""], action: Int[Array, ""]):
        last = state == 1
        reward = jnp.where(last, self.reward, 0.0)
        return state + 1, Step(jnp.ones(1), reward, last, jnp.zeros((), bool), {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Match:
    """A sign is shown and one step is played: reward 1 for the action that matches it, else 0. The policy gradient."""

    reward: Float[Array, ""] = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=None, metadata={"static": True})

    observation_space: Space = field(default=Box((1,), -1.0, 1.0), metadata={"static": True})
    action_space: Space = field(default=Discrete(2), metadata={"static": True})

    def reset(self, key: Key):
        sign = jax.random.bernoulli(key).astype(jnp.int32)
        return sign, self._show(sign)

    def step(self, key: Key, state: Int[Array, ""], action: Int[Array, ""]):
        reward = jnp.where(action == state, self.reward, 0.0)
        return state, Step(self._show(state), reward, jnp.ones((), bool), jnp.zeros((), bool), {})

    def _show(self, sign: Int[Array, ""]) -> Float[Array, "1"]:
        return 2.0 * sign.astype(jnp.float32)[None] - 1.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Target:
    """A number is shown and one step is played: reward -(action - number)². The policy gradient of continuous actions."""

    scale: Float[Array, ""] = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=None, metadata={"static": True})

    observation_space: Space = field(default=Box((1,), -1.0, 1.0), metadata={"static": True})
    action_space: Space = field(default=Box((1,), -1.0, 1.0), metadata={"static": True})

    def reset(self, key: Key):
        number = jax.random.uniform(key, (1,), minval=-0.8, maxval=0.8)
        return number, number

    def step(self, key: Key, state: Float[Array, "1"], action: Float[Array, "1"]):
        reward = -self.scale * jnp.square(action - state)[0]
        return state, Step(state, reward, jnp.ones((), bool), jnp.zeros((), bool), {})


_PROBES = {"constant": Constant, "one_step": OneStep, "two_steps": TwoSteps, "match": Match, "target": Target}
UNAVAILABLE: dict[str, str] = {}


def names() -> list[str]:
    """The probes."""
    return list(_PROBES)


def make(name: str, **options: float) -> Constant | OneStep | TwoSteps | Match | Target:
    """The probe `name`; options are its fields, such as reward=2.0."""
    return _PROBES[name](**options)
