"""Environments that no compiled program can hold: N as one, stepped by the host, on the terms of `VectorEnv`."""

import sysconfig
import traceback
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Bool

from jaxrl.spaces import Space, Spaces
from jaxrl.types import HostFailed, InputError, PyTree, Step

_INSTALLED = (Path(__file__).parents[1], *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))


class Bodies(Protocol):
    """N live environments, in NumPy. None of them resets itself."""

    def reset(self, which: Bool[np.ndarray, " N"], seeds: list[int] | None) -> PyTree:
        """What all show, of which those in `which` have just been reset, with these seeds if any are given."""
        ...

    def step(self, action: PyTree) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """(true successors, rewards, terminated, truncated) of all."""
        ...

    def render(self) -> list[Any]:
        """A picture of each, where that was asked for."""
        ...

    def close(self) -> None:
        """End them."""
        ...


class HostedEnv(Protocol):
    """One kind of environment that lives on the host, as its suite makes it: its name, spaces and time limit, and
    open(num_envs, processes) -> Bodies.
    """

    hosted: bool  # True
    name: str
    observation_space: Space
    action_space: Space
    time_limit: int | None

    def open(self, num_envs: int, processes: bool) -> Bodies:
        """So many of it, which live until they are closed; each in a process of its own if asked for."""
        ...


def is_hosted(env: Any) -> bool:
    """Whether an environment lives on the host."""
    return getattr(env, "hosted", False)


class HostVectorEnv:
    """N environments side by side. They live in here, and not in a state: who has stepped one cannot go back."""

    def __init__(self, env: Any, num_envs: int, time_limit: int | None, processes: bool):
        self.env, self.num_envs, self.processes = env, num_envs, processes
        self.time_limit = env.time_limit if time_limit is None else time_limit
        self._bodies: Bodies | None = None

    @property
    def spaces(self) -> Spaces:
        """Of one environment. Any of them may cut an episode short."""
        return Spaces(self.env.observation_space, self.env.action_space, True)

    @property
    def action_space(self) -> Space:
        """Of one environment."""
        return self.env.action_space

    def reset(self, seed: int) -> PyTree:
        """Fresh starts for all, environment i of `seed` + i; what they show."""
        if self._bodies is None:
            self._bodies = self._asked(lambda: self.env.open(self.num_envs, self.processes))
        every = np.ones(self.num_envs, bool)
        obs = self._asked(lambda: self._bodies.reset(every, [(seed + i) % 2**31 for i in range(self.num_envs)]))
        self._elapsed, self._return = np.zeros(self.num_envs, np.int32), np.zeros(self.num_envs, np.float32)
        obs = self._typed(obs)
        self._bad_start = _not_finite(obs, self.num_envs)
        return _zero_where(self._bad_start, obs)

    def step(self, action: np.ndarray, reset: bool = True) -> tuple[PyTree, Step]:
        """(obs to act on next, Step), as `VectorEnv.step` says, in NumPy: true successors, numbers that are not finite
        contained, returns and lengths counted up to and including this step. reset: whether what has ended begins anew;
        if not, it is not to be stepped again before a `reset`.
        """
        next_obs, reward, terminated, truncated = self._asked(lambda: self._bodies.step(action))
        next_obs, reward = self._typed(next_obs), reward.astype(np.float32)
        invalid = self._bad_start | ~np.isfinite(reward) | _not_finite(next_obs, self.num_envs)
        next_obs, reward = _zero_where(invalid, next_obs), np.where(invalid, np.float32(0), reward)
        terminated = terminated | invalid
        self._elapsed += 1
        if self.time_limit is not None:
            truncated = truncated | (self._elapsed >= self.time_limit)
        truncated = truncated & ~terminated
        self._return += reward
        info = {
            "episode_return": self._return.copy(),
            "episode_length": self._elapsed.copy(),
            "invalid": invalid,
        }
        done = terminated | truncated
        shown = next_obs
        if done.any() and reset:
            fresh = self._typed(self._asked(lambda: self._bodies.reset(done, None)))
            bad = _not_finite(fresh, self.num_envs) & done
            shown = jax.tree.map(lambda x, y: np.where(_wide(done, x), x, y), _zero_where(bad, fresh), next_obs)
            self._bad_start = np.where(done, bad, False)
            self._elapsed[done], self._return[done] = 0, 0
        else:
            self._bad_start = np.zeros(self.num_envs, bool)
        return shown, Step(next_obs, reward, terminated, truncated, info)

    def render(self) -> list[Any]:
        """A picture of each."""
        return self._asked(self._bodies.render)

    def close(self) -> None:
        """End them; a reset opens others."""
        if self._bodies is not None:
            self._bodies.close()
            self._bodies = None

    def _typed(self, obs: PyTree) -> PyTree:
        # As a copy: some environments write into the array that they have shown.
        return jax.tree.map(lambda part, x: np.array(x, part.dtype), self.env.observation_space, obs)

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except InputError:
            raise
        except Exception as error:  # whatever the code of somebody else raises
            self._bodies = None  # what is left of them cannot be trusted
            what = f"{type(error).__name__}: {error}"
            raise HostFailed(f"{self.env.name} failed on the host ({what:.500}{_where(error)})") from error


def _where(error: Exception) -> str:
    """The innermost line of code that is of no installed package, for whoever wrote the environment."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not any(file.is_relative_to(place) for place in _INSTALLED):
            return f", in {frame.name} at {file.name}:{frame.lineno}"
    return ""


def _wide(flag: np.ndarray, x: np.ndarray) -> np.ndarray:
    return flag.reshape(flag.shape + (1,) * (x.ndim - 1))


def _not_finite(obs: PyTree, num_envs: int) -> Bool[np.ndarray, " N"]:
    found = np.zeros(num_envs, bool)
    for x in jax.tree.leaves(obs):
        if x.dtype.kind == "f":
            found |= ~np.isfinite(x.reshape(num_envs, -1)).all(axis=1)
    return found


def _zero_where(flag: Bool[np.ndarray, " N"], obs: PyTree) -> PyTree:
    if not flag.any():
        return obs
    return jax.tree.map(lambda x: np.where(_wide(flag, x), np.zeros((), x.dtype), x), obs)
