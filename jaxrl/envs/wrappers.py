"""Environments around environments."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxrl.envs.base import select, strong, truncates
from jaxrl.ops.masks import MASK
from jaxrl.settings import EnvConfig
from jaxrl.spaces import Box, Space
from jaxrl.types import InputError, Key, PyTree, Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wrapper:
    """As the environment that it holds, but for what a subclass changes."""

    env: Any

    @property
    def observation_space(self) -> Space:
        """The environment's."""
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        """The environment's."""
        return self.env.action_space

    @property
    def time_limit(self) -> int | None:
        """The environment's."""
        return self.env.time_limit

    @property
    def truncates(self) -> bool:
        """Whether the environment cuts episodes short itself."""
        return truncates(self.env)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """The environment's: (state, obs)."""
        return self.env.reset(key)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """The environment's: (state, Step)."""
        return self.env.step(key, state, action)

    def inner(self, state: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
        """What the environment itself has as its state, and showed of it, as far as that is known here."""
        return state, obs


def wrapped(env: Any, config: EnvConfig) -> Any:
    """The environment as a config wants it: sticky actions, repeated, what is hidden, and several frames at once."""
    if config.sticky_actions:
        env = StickyActions(env, config.sticky_actions)
    if config.action_repeat > 1:
        env = ActionRepeat(env, config.action_repeat)
    if config.hide:
        env = Hide(env, config.hide)
    return FrameStack(env, config.frame_stack) if config.frame_stack > 1 else env


def bare(env: Any, state: PyTree = None, obs: PyTree = None) -> tuple[Any, PyTree, PyTree]:
    """What lies in all wrappers, its state, and what it showed."""
    while isinstance(env, Wrapper):
        state, obs = env.inner(state, obs)
        env = env.env
    return env, state, obs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ActionRepeat(Wrapper):
    """Executes each action `repeat` times; sums rewards; stops at the end of the episode. Info is the last step's."""

    repeat: int = field(default=1, metadata={"static": True})

    @property
    def time_limit(self) -> int | None:
        """In actions, of which the last may be cut short; None for none."""
        return None if self.env.time_limit is None else -(-self.env.time_limit // self.repeat)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """Up to `repeat` steps of the environment: (state, Step)."""

        def again(carry, key):
            state, last = carry
            next_state, step = self.env.step(key, state, action)
            step = step._replace(reward=last.reward + step.reward)
            return strong(select(last.terminated | last.truncated, carry, (next_state, step))), None

        k_first, k_rest = jax.random.split(key)
        first = strong(self.env.step(k_first, state, action))
        return jax.lax.scan(again, first, jax.random.split(k_rest, self.repeat - 1))[0]


class Stuck(NamedTuple):
    """The environment's state, the action executed last, and whether there was one in this episode."""

    env_state: PyTree
    action: PyTree
    acted: Bool[Array, ""]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StickyActions(Wrapper):
    """With this probability the action executed last is executed again, whatever is asked for: no fixed sequence of
    actions then plays a deterministic game (Machado et al. 2018, arXiv 1709.06009, §5.2).
    """

    probability: float = field(default=0.25, metadata={"static": True})

    def reset(self, key: Key) -> tuple[Stuck, PyTree]:
        """The environment's start, and no action yet."""
        state, obs = self.env.reset(key)
        return Stuck(state, self.env.action_space.zero(), jnp.zeros((), bool)), obs

    def step(self, key: Key, state: Stuck, action: PyTree) -> tuple[Stuck, Step]:
        """One step of the environment, with this action or the last."""
        k_stick, k_env = jax.random.split(key)
        again = state.acted & (jax.random.uniform(k_stick) < self.probability)
        action = jnp.where(again, state.action, action).astype(state.action.dtype)
        env_state, step = self.env.step(k_env, state.env_state, action)
        return Stuck(env_state, action, jnp.ones((), bool)), step

    def inner(self, state: Stuck, obs: PyTree) -> tuple[PyTree, PyTree]:
        """The environment's own state."""
        return (None if state is None else state.env_state), obs


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hide(Wrapper):
    """Shows a vector without some of its entries: positions without velocities, for what must remember."""

    entries: tuple[int, ...] = field(default=(), metadata={"static": True})

    @property
    def _shown(self) -> np.ndarray:
        space = self.env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise InputError(f"env.hide = {self.entries} takes entries from a vector, and observations are {space}")
        (n,) = space.shape
        if not all(-n <= i < n for i in self.entries) or len({i % n for i in self.entries}) == n:
            raise InputError(f"env.hide = {self.entries}: name some of the entries 0 … {n - 1}, not all")
        return np.delete(np.arange(n), self.entries)

    @property
    def observation_space(self) -> Box:
        """The entries that are left."""
        shown, space = self._shown, self.env.observation_space
        low, high = (bound[shown] for bound in space.static_bounds)
        return Box((len(shown),), low, high, space.dtype)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """The environment's start, in part."""
        state, obs = self.env.reset(key)
        return state, obs[self._shown]

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """The environment's step, in part."""
        state, step = self.env.step(key, state, action)
        return state, step._replace(next_obs=step.next_obs[self._shown])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FrameStack(Wrapper):
    """Shows the last `frames` observations as one, the newest last, along the last axis: a vector of as many times the
    length, a picture of as many times the channels. An episode begins with its first, repeated. An action mask is that
    of the newest.
    """

    frames: int = field(default=4, metadata={"static": True})

    @property
    def observation_space(self) -> Space:
        """Every part as often as there are frames."""
        return self._of_parts(lambda part: _stacked(part, self.frames), self.env.observation_space)

    def reset(self, key: Key) -> tuple[tuple[PyTree, PyTree], PyTree]:
        """The environment's start, as often as there are frames."""
        state, obs = self.env.reset(key)
        obs = self._of_parts(lambda x: jnp.concatenate([x] * self.frames, axis=-1), obs)
        return (state, obs), obs

    def step(self, key: Key, state: tuple[PyTree, PyTree], action: PyTree) -> tuple[tuple[PyTree, PyTree], Step]:
        """The environment's step; its successor is the newest frame, also at an end."""
        env_state, before = state
        env_state, step = self.env.step(key, env_state, action)
        obs = self._of_parts(
            lambda x, old: jnp.concatenate([old[..., x.shape[-1] :], x], axis=-1), step.next_obs, before
        )
        return (env_state, obs), step._replace(next_obs=obs)

    def inner(self, state: tuple[PyTree, PyTree] | None, obs: PyTree) -> tuple[PyTree, PyTree]:
        """The environment's own state, and the newest frame."""
        newest = self._of_parts(lambda x: x[..., -(x.shape[-1] // self.frames) :], obs)
        return (None if state is None else state[0]), newest

    def _of_parts(self, function: Any, tree: PyTree, *more: PyTree) -> PyTree:
        def part(path: tuple, x: Any, *xs: Any) -> Any:
            is_mask = path and getattr(path[0], "key", None) == MASK and len(path) == 1
            return x if is_mask else function(x, *xs)

        return jax.tree_util.tree_map_with_path(part, tree, *more)


def _stacked(space: Space, frames: int) -> Box:
    if not isinstance(space, Box) or not space.shape:
        raise InputError(f"env.frame_stack = {frames} stacks vectors and pictures, and observations hold {space}")
    low, high = (np.concatenate([bound] * frames, axis=-1) for bound in space.static_bounds)
    return replace(space, shape=low.shape, low=low, high=high)
