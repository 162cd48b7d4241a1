"""EnvPool: Atari, Procgen, MuJoCo and others, stepped by threads in C++. The only file that imports envpool.

They live on the host. EnvPool resets an environment in the step after its end; that step is never taken here, for what
has ended is reset before.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import envpool
import numpy as np

from jaxrl.envs.suites.gymnasium import as_space
from jaxrl.settings import EnvOptions
from jaxrl.spaces import Box, Space
from jaxrl.types import InputError, PyTree

_SUDOKU = "needs a file of puzzles that EnvPool's assets leave out"
_SEVERAL = "shows each of several agents an observation of its own"
_GAMES = """
    Go9x9 Go13x13 Go19x19 ChineseGo9x9 ChineseGo13x13 ChineseGo19x19 TicTacToe ConnectFour Hex Othello KuhnPoker
    LeducHoldem AnimalShogi Backgammon Chess GardnerChess Shogi SparrowMahjong
"""
_DOOM = "ends the process (a segmentation fault in EnvPool): it waits for other players of Doom"
UNAVAILABLE = {
    **dict.fromkeys((f"{of}Sudoku-{kind}" for of in ("", "Jumanji/") for kind in ("v0", "very-easy-v0")), _SUDOKU),
    **{f"{name}-v{i}": _SEVERAL for name in ("IntersectionMultiAgent", "intersection-multi-agent") for i in (0, 1)},
    **dict.fromkeys((f"{game}-v1" for game in _GAMES.split()), _SEVERAL),
    "Cig-v1": _DOOM,
    "MultiDuel-v1": _DOOM,
    "VizdoomCustom-v1": "needs a scenario's own files",
}


def names() -> list[str]:
    """Those that EnvPool lists."""
    return [name for name in envpool.list_all_envs() if name not in UNAVAILABLE]


@dataclass(frozen=True)
class EnvpoolEnv:
    """A kind of EnvPool's environments. Pictures are shown as [height, width, channels], floats as float32."""

    options: EnvOptions
    name: str
    observation_space: Space = field(compare=False)
    action_space: Space = field(compare=False)
    time_limit: int | None
    fps: float | None = None
    hosted: bool = True

    def filmed(self) -> "EnvpoolEnv":
        """The same, making pictures."""
        return replace(self, options=EnvOptions({**self.options, "render_mode": "rgb_array"}))

    def open(self, num_envs: int, processes: bool) -> "EnvpoolBodies":
        """So many of them. Raises InputError for processes = True."""
        if processes:
            raise InputError(f"{self.name} steps in threads of its own; leave env.processes out")
        return EnvpoolBodies(self, num_envs)


class EnvpoolBodies:
    """N live ones, in a pool that is made anew for each set of seeds, which EnvPool takes only then."""

    def __init__(self, env: EnvpoolEnv, num_envs: int):
        self.env, self.num_envs, self.pool = env, num_envs, None

    def reset(self, which: np.ndarray, seeds: list[int] | None) -> PyTree:
        """As `Bodies`."""
        if seeds is not None or self.pool is None:
            self.close()
            self.pool = _opened(self.env.name.partition("/")[2], self.num_envs, seeds or 0, self.env.options)
            self.obs = self._shown(self.pool.reset()[0], self.num_envs)
            return self.obs
        ids = np.flatnonzero(which).astype(np.int32)
        fresh, info = self.pool.reset(ids)
        order = np.asarray(info["env_id"])
        obs, fresh = _leaves(self.obs), _leaves(self._shown(fresh, len(ids)))
        for old, new in zip(obs, fresh, strict=True):
            old[order] = new
        return self.obs

    def step(self, action: np.ndarray) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """As `Bodies`."""
        space = self.pool.action_space
        action = np.asarray(action).reshape(self.num_envs, *space.shape).astype(space.dtype)
        obs, reward, terminated, truncated, _ = self.pool.step(action)
        self.obs = self._shown(obs, self.num_envs)
        return self.obs, np.asarray(reward), np.asarray(terminated, bool), np.asarray(truncated, bool)

    def render(self) -> list[Any]:
        """As `Bodies`."""
        return list(self.pool.render(np.arange(self.num_envs)))

    def close(self) -> None:
        """As `Bodies`."""
        if self.pool is not None:
            self.pool.close()
            self.pool = None

    def _shown(self, obs: Any, num_envs: int) -> PyTree:
        return _mapped(functools.partial(_of_space, num_envs), self.env.observation_space, obs)


def _opened(name: str, num_envs: int, seed: Any, options: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's, of bounds that lose precision
        return envpool.make_gymnasium(name, **{"num_envs": num_envs, "seed": seed, **options})


def _mapped(function: Callable, space: Space, obs: Any) -> Any:
    if isinstance(space, dict):
        return {name: _mapped(function, part, obs[name]) for name, part in space.items()}
    if isinstance(space, tuple):
        return tuple(_mapped(function, part, x) for part, x in zip(space, obs, strict=True))
    return function(space, obs)


def _of_space(num_envs: int, space: Space, obs: Any) -> np.ndarray:
    """A copy, for EnvPool may use its buffers again."""
    obs = np.asarray(obs)
    if obs.shape[1:] != space.shape and isinstance(space, Box) and len(space.shape) == 3:
        obs = np.moveaxis(obs, 1, -1)
    return np.array(obs.reshape(num_envs, *space.shape), space.dtype)


def _leaves(obs: Any) -> list[np.ndarray]:
    if isinstance(obs, dict):
        return [x for part in obs.values() for x in _leaves(part)]
    if isinstance(obs, tuple):
        return [x for part in obs for x in _leaves(part)]
    return [obs]


def _as_shown(space: Space) -> Space:
    """The same with the channels of pictures last, where they are first, and without bounds where none are meant."""
    if isinstance(space, dict):
        return {name: _as_shown(part) for name, part in space.items()}
    if isinstance(space, tuple):
        return tuple(_as_shown(part) for part in space)
    if not isinstance(space, Box):
        return space
    # In C++ the least number of a float type is the least positive one, and that is how some write "unbounded" there.
    low = np.asarray(space.low)
    if np.any((low > 0) & (low < 1e-30)):
        return Box(space.shape, np.where((low > 0) & (low < 1e-30), -np.inf, low), space.high, space.dtype)
    if len(space.shape) != 3 or np.dtype(space.dtype) != np.uint8:
        return space
    channels, *sides = space.shape
    if channels >= min(sides):
        return space
    return Box((*sides, channels), np.min(space.low), np.max(space.high), space.dtype)


@functools.lru_cache(maxsize=None, typed=True)
def make(name: str, /, **options: Any) -> EnvpoolEnv:
    """The environment that EnvPool lists as `name`; `options` are EnvPool's for it, such as max_episode_steps 1000.

    Raises InputError for one that cannot be made here, and for an option that EnvPool refuses.
    """
    title = f"envpool/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    for option in ("num_envs", "batch_size", "seed"):
        if option in options:
            raise InputError(f"{title}: {option} is not an option; set env.num_envs, and the seed of the run")
    try:
        pool = _opened(name, 1, 0, options)
    except Exception as error:  # whatever EnvPool makes of the options
        raise InputError(f"{title} cannot be made with {options} ({type(error).__name__}: {error})") from error
    try:
        spaces = _as_shown(as_space(pool.observation_space)), as_space(pool.action_space, action=True)
        limit = pool.spec.config.max_episode_steps
    finally:
        pool.close()
    return EnvpoolEnv(EnvOptions(options), title, *spaces, int(limit) if 0 < limit < 2**31 - 1 else None)
