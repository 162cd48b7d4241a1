"""jaxrl's environments for code that speaks Gymnasium: one as gymnasium.Env, or many side by side as a VectorEnv.

    env = jaxrl.to_gymnasium("brax/hopper")                  # for Stable-Baselines3, CleanRL, anybody's loop
    envs = jaxrl.to_gymnasium_vector("gymnax/CartPole-v1", 64)

Steps are compiled; what they take and give is NumPy. What several steps a call are worth is lost: a loop in Python
steps a few thousand times a second, `train` a hundred times that.
"""

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxrl.envs import registry
from jaxrl.envs.base import select
from jaxrl.envs.suites.gymnasium.spaces import as_gymnasium_space
from jaxrl.envs.vector import vectorize
from jaxrl.ops.masks import MASK
from jaxrl.spaces import Discrete, MultiDiscrete, Space
from jaxrl.types import InputError, PyTree, Step


def _shown(space: Space, obs: PyTree) -> PyTree:
    """An observation as NumPy, of the space's dtypes, its lists as Gymnasium's tuples. A copy, which may be written."""
    # [()] makes a number of an array without axes, as Gymnasium's Discrete has it.
    return _tuples(jax.tree.map(lambda part, x: np.array(x, _dtype(part))[()], space, jax.device_get(obs)))


def _dtype(part: Space) -> Any:
    return np.int64 if isinstance(part, Discrete | MultiDiscrete) else part.dtype


def _tuples(obs: PyTree) -> PyTree:
    if isinstance(obs, dict):
        return {name: _tuples(part) for name, part in obs.items()}
    return tuple(map(_tuples, obs)) if isinstance(obs, tuple | list) else obs


def _action(space: gymnasium.Space, dtype: Any, action: Any) -> np.ndarray:
    """An action as ours. Raises InputError for one of another shape, and for a choice that there is not: nobody's step
    may be taken with it, nor would a compiled one say so.
    """
    action = np.asarray(action)
    if action.shape != space.shape:
        raise InputError(f"action = {action!r:.200} has shape {action.shape}; {space} has {space.shape}")
    if not isinstance(space, gymnasium.spaces.Box):
        whole = action.astype(np.int64)
        if (whole != action).any() or not space.contains(whole if whole.ndim else whole[()]):
            raise InputError(f"action = {action!r:.200} lies outside {space}")
    return action.astype(dtype)


def _with_mask(info: dict[str, Any], obs: PyTree) -> dict[str, Any]:
    return {**info, MASK: obs[MASK].astype(np.int8)} if isinstance(obs, dict) and MASK in obs else info


class _Keys:
    """Keys from Gymnasium's seeds: one after the other from a seed, or from where the last seed has led."""

    def __init__(self) -> None:
        self._key = None

    def seeded(self, seed: int | None) -> None:
        """Begin anew where a seed is given, or where there was never one."""
        if seed is None and self._key is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        if seed is not None:
            self._key = jax.random.key(seed)

    def next(self) -> jax.Array:
        """Another one."""
        self._key, key = _split(self._key)
        return key


@jax.jit
def _split(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    return first, second


class Single(gymnasium.Env):
    """As `registry.to_gymnasium` says; one copy of many, so that limits and broken numbers are as in training."""

    def __init__(self, env: Any, render_mode: str | None):
        can = ["rgb_array"] if callable(getattr(env, "render", None)) else []
        if render_mode is not None and render_mode not in can:
            has = f"it has {can}" if can else "it has none, so leave it out (`jaxrl render` draws what a policy does)"
            raise InputError(f"render_mode = {render_mode!r} is none of {registry.name_of(env)}: {has}")
        self.metadata = {"render_modes": can, "render_fps": round(1 / getattr(env, "dt", 0.1))}
        self.render_mode, self._env, self._vector = render_mode, env, vectorize(env, 1)
        self.observation_space = as_gymnasium_space(env.observation_space)
        self.action_space = as_gymnasium_space(env.action_space)
        self._keys, self._state, self._over = _Keys(), None, True
        self._reset, self._step = jax.jit(self._vector.reset), jax.jit(self._vector.step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Gymnasium's: (obs, info)."""
        super().reset(seed=seed)
        self._keys.seeded(seed)
        self._state, obs = self._reset(self._keys.next())
        self._over, obs = False, self._one(obs)
        return obs, _with_mask({}, obs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Gymnasium's: (obs, reward, terminated, truncated, info)."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or has not begun: call reset() before step()")
        action = _action(self.action_space, self._vector.action_space.dtype, action)[None]
        self._state, _, said = self._step(self._keys.next(), self._state, action)
        said = said._replace(next_obs=self._one(said.next_obs))
        terminated, truncated = bool(said.terminated[0]), bool(said.truncated[0])
        self._over = terminated or truncated
        info = {name: np.asarray(x)[0] for name, x in said.info.items()}
        return said.next_obs, float(said.reward[0]), terminated, truncated, _with_mask(info, said.next_obs)

    def render(self) -> np.ndarray | None:
        """A picture of the state, where render_mode asks for one."""
        if self.render_mode is None or self._state is None:
            return None
        return np.asarray(self._env.render(jax.tree.map(lambda x: x[0], self._state.env_state)), np.uint8)

    def _one(self, obs: PyTree) -> PyTree:
        return _shown(self._env.observation_space, jax.tree.map(lambda x: x[0], obs))


class Vector(VectorEnv):
    """As `registry.to_gymnasium_vector` says."""

    def __init__(self, env: Any, num_envs: int):
        self._env, self._vector = env, vectorize(env, num_envs)
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = as_gymnasium_space(env.observation_space)
        self.single_action_space = as_gymnasium_space(env.action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._keys, self._state = _Keys(), None
        self._reset, self._step = jax.jit(self._vector.reset), jax.jit(self._vector.step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Gymnasium's: (obs, infos). seed: one number, of all."""
        if isinstance(seed, list | tuple):
            raise InputError("all environments are one program: give one seed, not one for each")
        if options and "reset_mask" in options:
            raise InputError("what ends is reset in the same step, and nothing else alone: leave reset_mask out")
        super().reset(seed=seed)
        self._keys.seeded(seed)
        self._state, obs = self._reset(self._keys.next())
        self._waiting, self._fresh = np.zeros(self.num_envs, bool), obs
        obs = _shown(self._env.observation_space, obs)
        return obs, _with_mask({}, obs)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Gymnasium's: (obs, rewards, terminations, truncations, infos)."""
        actions = self._taken(actions)
        self._state, obs, said = self._step(self._keys.next(), self._state, actions)
        shown = functools.partial(_shown, self._env.observation_space)
        obs, (reward, terminated, truncated) = shown(obs), map(np.asarray, said[1:4])
        done, infos = terminated | truncated, _with_mask(jax.device_get(said.info), obs)
        if done.any():
            final = shown(said.next_obs)
            rows = [jax.tree.map(lambda x, i=i: x[i], final) if over else None for i, over in enumerate(done)]
            made = np.empty(self.num_envs, object)
            made[:] = rows
            infos |= {"final_obs": made, "_final_obs": done}
        return obs, reward.astype(np.float64), terminated, truncated, infos

    def _taken(self, actions: Any) -> np.ndarray:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() before step()")
        return _action(self.action_space, self._vector.action_space.dtype, actions)


class Waiting(Vector):
    """The same, but what has ended waits: it is shown as it ended, and begins anew in the next step, which its action
    has no part in.
    """

    def __init__(self, env: Any, num_envs: int):
        super().__init__(env, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._step = jax.jit(self._waited)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Gymnasium's: (obs, rewards, terminations, truncations, infos)."""
        actions = self._taken(actions)
        was = self._state, self._waiting, self._fresh
        self._state, self._fresh, said = self._step(self._keys.next(), *was, actions)
        obs, info = _shown(self._env.observation_space, said.next_obs), jax.device_get(said.info)
        reward, terminated, truncated = map(np.asarray, said[1:4])
        self._waiting = terminated | truncated
        return obs, reward.astype(np.float64), terminated, truncated, _with_mask(info, obs)

    def _waited(self, key: Any, state: Any, waiting: Any, fresh: PyTree, action: Any) -> tuple[Any, PyTree, Step]:
        stepped, next_fresh, said = self._vector.step(key, state, action)
        still = jax.tree.map(jnp.zeros_like, said)._replace(next_obs=fresh)
        return select(waiting, state, stepped), next_fresh, select(waiting, still, said)
