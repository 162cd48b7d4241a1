"""Tiny environments with known answers: if learning fails here, the one thing each of them isolates is broken."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.envs.options import changed, refuse_unknown
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, PyTree, Step


class Rules(NamedTuple):
    """A probe: reset(key) -> state, obs(state), step(state, action) -> (state, reward, terminated), and its spaces."""

    reset: Callable
    obs: Callable
    step: Callable
    observation_space: Space = Box((1,), -1.0, 1.0)
    action_space: Space = Discrete(2)
    time_limit: int | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Probe:
    """A probe whose rewards are multiplied by `reward`."""

    reward: Any
    rules: Rules = field(metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def time_limit(self) -> int | None:
        """Of the rules."""
        return self.rules.time_limit

    @property
    def truncates(self) -> bool:
        """Never: a time limit is left to `vectorize`."""
        return False

    @property
    def observation_space(self) -> Space:
        """Of the rules."""
        return self.rules.observation_space

    @property
    def action_space(self) -> Space:
        """Of the rules."""
        return self.rules.action_space

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start by the rules: (state, obs)."""
        state = self.rules.reset(key)
        return state, self.rules.obs(state)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step by the rules, its reward times `reward`."""
        state, reward, terminated = self.rules.step(state, action)
        reward = self.reward * jnp.asarray(reward, jnp.float32)
        return state, Step(self.rules.obs(state), reward, jnp.asarray(terminated), jnp.zeros((), bool), {})


def _start(key: Key) -> jax.Array:
    return jnp.zeros(())


def _same(state: jax.Array) -> jax.Array:
    return jnp.zeros(1)


def _itself(state: jax.Array) -> jax.Array:
    return state.reshape(1)


PROBES = {
    # reward for ever, cut by a time limit: V = 1/(1-γ), which only bootstrapping on truncation finds
    "constant": Rules(_start, _same, lambda s, a: (s, 1.0, False), time_limit=10),
    # one step and the end: V = 1; the value loss and its optimiser
    "one_step": Rules(_start, _same, lambda s, a: (s, 1.0, True)),
    # two steps, paid at the end: V = γ, then 1; discounting
    "two_steps": Rules(_start, _itself, lambda s, a: (s + 1, s, s == 1), Box((1,), 0.0, 2.0)),
    # a sign is shown, reward for the action that matches it; the policy gradient
    "match": Rules(
        lambda key: jax.random.rademacher(key, (), jnp.float32), _itself, lambda s, a: (s, s == 2 * a - 1, True)
    ),
    # a sign is shown once, and paid for two steps later: what remembers earns 1, what does not 1/2 on average
    "recall": Rules(
        lambda key: (jax.random.rademacher(key, (), jnp.float32), jnp.zeros(())),
        lambda s: jnp.where(s[1] == 0, s[0], 0.0).reshape(1),
        lambda s, a: ((s[0], s[1] + 1), (s[1] == 2) & (s[0] == 2 * a - 1), s[1] == 2),
    ),
    # a number is shown, reward -(action - number)²; the policy gradient of continuous actions
    "target": Rules(
        lambda key: jax.random.uniform(key, (), minval=-0.8, maxval=0.8),
        _itself,
        lambda s, a: (s, -jnp.square(a[0] - s), True),
        action_space=Box((1,), -1.0, 1.0),
    ),
}
UNAVAILABLE: dict[str, str] = {}


def names() -> list[str]:
    """The probes."""
    return list(PROBES)


def make(name: str, /, **options: Any) -> Probe:
    """The probe `name`; the one option is `reward`, by which its rewards are multiplied."""
    title = f"probe/{name}"
    refuse_unknown(title, options, ["reward"])
    options = changed(title, _Options(), options)
    return Probe(jnp.asarray(options.reward, jnp.float32), PROBES[name], name)


@dataclass(frozen=True)
class _Options:
    reward: float = 1.0
