"""gymnax environments (version 1.0 or later). The only file that imports gymnax."""

import functools
from dataclasses import dataclass, field
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces as gymnax_spaces

from jaxrl.envs.base import cast_like, strong
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import Key, PyTree, Step

UNAVAILABLE = {"MNISTBandit-bsuite": "downloads its images when it is made"}


def names() -> list[str]:
    """The registered environments that work."""
    return [name for name in gymnax.registered_envs if name not in UNAVAILABLE]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GymnaxEnv:
    """A gymnax environment. Its parameters (gravity, masses, …) are the leaves.

    gymnax's own `step` resets inside and hides the true successor, so this calls `step_env` and `reset_env`; the time
    limit is left to `vectorize`.
    """

    params: Any
    raw: Any = field(metadata={"static": True})
    time_limit: int | None = field(metadata={"static": True})

    @property
    def observation_space(self) -> Space:
        with jax.ensure_compile_time_eval():
            return _space(self.raw.observation_space(self.raw.default_params))

    @property
    def action_space(self) -> Space:
        with jax.ensure_compile_time_eval():
            return _space(self.raw.action_space(self.raw.default_params))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        obs, state = self.raw.reset_env(key, self.params)
        return strong((state, obs))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        next_obs, next_state, reward, terminated, info = self.raw.step_env(key, state, action, self.params)
        like = jax.eval_shape(self.raw.reset_env, key, self.params)
        next_obs, next_state = cast_like((next_obs, next_state), like)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        terminated = jnp.asarray(terminated, bool).reshape(())
        return next_state, Step(next_obs, reward, terminated, jnp.zeros((), bool), strong(info))


@functools.cache
def make(name: str, **options: Any) -> GymnaxEnv:
    """The environment registered in gymnax under `name`; `options` go to its constructor.

    Raises ValueError for one that cannot work here, with the reason.
    """
    if name in UNAVAILABLE:
        raise ValueError(f"gymnax/{name} is not available: it {UNAVAILABLE[name]}")
    with jax.ensure_compile_time_eval():  # what is cached must not belong to the trace that asked first
        raw, params = gymnax.make(name, **options)
        return GymnaxEnv(strong(params), raw, int(params.max_steps_in_episode))


def _space(space: Any) -> Space:
    if isinstance(space, gymnax_spaces.Discrete):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(x, np.float64), space.shape) for x in (space.low, space.high))
    # gymnax writes "unbounded" as the largest float32
    low, high = (np.where(np.abs(x) > 1e30, np.copysign(np.inf, x), x) for x in (low, high))
    return Box(tuple(space.shape), low, high)
