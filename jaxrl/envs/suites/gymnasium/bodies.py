"""Live Gymnasium environments, side by side."""

import contextlib
import multiprocessing
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from jaxrl.envs.suites.gymnasium.spaces import flat
from jaxrl.ops.masks import MASK, has_mask
from jaxrl.types import InputError, PyTree


def side_by_side(functions: list[Callable[[], gymnasium.Env]], processes: bool) -> VectorEnv:
    """Gymnasium's own, told not to reset anything by itself."""
    never = AutoresetMode.DISABLED
    if not processes:
        return SyncVectorEnv(functions, autoreset_mode=never)
    # A process that is forked from one with JAX's threads may hang; a fresh one imports what it needs.
    start = multiprocessing.get_start_method(allow_none=True)
    context = start if start in ("spawn", "forkserver") else "spawn"
    return AsyncVectorEnv(functions, context=context, autoreset_mode=never)


def autoreset_mode(envs: VectorEnv) -> AutoresetMode | None:
    """Who resets what has ended, and when; None where a vector environment does not say."""
    # Gymnasium's own also write it into their metadata, which are those of the environment's class: all share them.
    return getattr(envs, "autoreset_mode", envs.metadata.get("autoreset_mode"))


class GymnasiumBodies:
    """N live ones in a vector environment, whose every step is that of its agent: it resets nothing by itself, or in
    the step that ended, and then says what it was that ended.
    """

    def __init__(self, envs: VectorEnv):
        self.envs, space = envs, envs.single_action_space
        self._shape = (envs.num_envs, *space.shape)
        self._dtype = space.dtype
        self._fresh = None  # what they show that have reset themselves

    def reset(self, which: np.ndarray, seeds: list[int] | None) -> PyTree:
        """As `Bodies`."""
        if self._fresh is not None and seeds is None:
            if (which & ~self._ended).any():
                raise InputError(
                    "a vector environment that resets by itself cannot be reset for a time limit of jaxrl's, nor for "
                    "numbers that are not finite; make it with autoreset_mode=AutoresetMode.DISABLED"
                )
            return self._fresh
        some = None if which.all() else {"reset_mask": which}
        seed = None if seeds is None else seeds[0]  # environment i takes seed + i
        obs, info = self.envs.reset(seed=seed, options=some)
        if seed is not None and MASK in info and not has_mask(obs):
            warnings.warn(f"info has an {MASK!r}, which nobody heeds: show it, by options show_mask True", stacklevel=2)
        return self._shown(obs)

    def step(self, action: np.ndarray) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """As `Bodies`."""
        action = np.asarray(action).reshape(self._shape).astype(self._dtype)
        obs, reward, terminated, truncated, info = self.envs.step(action)
        if autoreset_mode(self.envs) == AutoresetMode.SAME_STEP:
            self._ended, self._fresh = terminated | truncated, self._shown(obs)
            if self._ended.any():
                obs = with_ends(obs, self._ended, _final(info))
        return self._shown(obs), reward, terminated, truncated

    def render(self) -> list[Any]:
        """As `Bodies`."""
        return list(self.envs.render())

    def close(self) -> None:
        """As `Bodies`."""
        with contextlib.suppress(Exception):  # of one that has crashed nothing more is wanted
            self.envs.close()

    def _shown(self, obs: Any) -> PyTree:
        return flat(self.envs.single_observation_space, obs)


def _final(info: dict[str, Any]) -> Any:
    if "final_obs" not in info:
        raise InputError(
            "a vector environment that resets in the step that ended must say in info['final_obs'] what it was that "
            "ended; let it, or make it with autoreset_mode=AutoresetMode.DISABLED"
        )
    return info["final_obs"]


def with_ends(obs: PyTree, ended: np.ndarray, final: Any) -> PyTree:
    """What is shown, but for those that have ended what ended them: arrays of all, or one object for each."""
    if not isinstance(final, np.ndarray) or final.dtype != object:
        return jax.tree.map(lambda x, end: np.where(ended.reshape(-1, *[1] * (x.ndim - 1)), end, x), obs, final)
    obs = jax.tree.map(np.array, obs)
    for i in np.flatnonzero(ended):
        jax.tree.map(lambda x, end, i=i: x.__setitem__(i, end), obs, final[i])
    return obs
