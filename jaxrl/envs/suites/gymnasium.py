"""Gymnasium environments, of any package that registers with it, and its vector environments. The only file here that
imports gymnasium, beside `exported`.

They live on the host, in Python: acting and learning are compiled, stepping is not. An observation is stored as
float32 where it is of floats. Wrappers are Gymnasium's own: name a function of yours that makes the environment,
"package.module:function".
"""

import contextlib
import functools
import importlib.util
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from jaxrl.settings import EnvOptions
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import InputError, PyTree

# Where an environment's code lies -> the packages that it needs beside Gymnasium.
_NEEDS = {"gymnasium.envs.box2d": ("Box2D", "pygame"), "gymnasium.envs.mujoco": ("mujoco", "imageio")}
_EXTRA = {"Box2D": "box2d", "pygame": "classic-control", "mujoco": "mujoco", "imageio": "mujoco"}  # of Gymnasium's own


def _unavailable() -> dict[str, str]:
    found = {}
    for name, spec in gymnasium.registry.items():
        where = spec.entry_point if isinstance(spec.entry_point, str) else getattr(spec.entry_point, "__module__", "")
        needs = [one for prefix, some in _NEEDS.items() if str(where).startswith(prefix) for one in some]
        absent = [one for one in needs if importlib.util.find_spec(one) is None]
        if name.startswith("GymV"):
            found[name] = "is a bridge to environments of the old `gym`, which it is given as objects"
        elif name.endswith(("-v2", "-v3")) and f"{name[:-1]}5" in gymnasium.registry:
            found[name] = f"needs mujoco-py, which is no longer maintained; take {name[:-1]}5"
        elif name == "Pusher-v4":
            found[name] = "needs a MuJoCo older than 3; take Pusher-v5"
        elif absent:
            found[name] = f"needs {' and '.join(absent)}; install gymnasium[{_EXTRA[absent[0]]}]"
        elif spec.entry_point is None:
            found[name] = "can only be made as a vector environment of its own"
    return found


UNAVAILABLE = _unavailable()


def names() -> list[str]:
    """Those registered with Gymnasium in this process that can be made here."""
    return [name for name in gymnasium.registry if name not in UNAVAILABLE]


@dataclass(frozen=True)
class GymnasiumEnv:
    """A kind of Gymnasium environment: `function(**options)` makes one of it."""

    function: Callable[..., gymnasium.Env]
    options: EnvOptions
    name: str
    observation_space: Space = field(compare=False)
    action_space: Space = field(compare=False)
    time_limit: int | None
    fps: float | None = None
    hosted: bool = True

    def filmed(self) -> "GymnasiumEnv":
        """The same, making pictures."""
        return replace(self, options=EnvOptions({**self.options, "render_mode": "rgb_array"}))

    def open(self, num_envs: int, processes: bool) -> "GymnasiumBodies":
        """So many of them; each in a process of its own if asked for."""
        return GymnasiumBodies(self, num_envs, processes)


class GymnasiumBodies:
    """N live ones, in Gymnasium's own vector environment, which is told not to reset anything by itself: so that the
    observation that ended an episode is the one it gives.
    """

    def __init__(self, env: GymnasiumEnv, num_envs: int, processes: bool):
        functions = [functools.partial(env.function, **env.options)] * num_envs
        never = AutoresetMode.DISABLED
        if processes:
            # A process that is forked from one with JAX's threads may hang; a fresh one imports what it needs.
            start = multiprocessing.get_start_method(allow_none=True)
            context = start if start in ("spawn", "forkserver") else "spawn"
            self.envs = AsyncVectorEnv(functions, context=context, autoreset_mode=never)
        else:
            self.envs = SyncVectorEnv(functions, autoreset_mode=never)
        space = self.envs.single_action_space
        self._start = space.start if isinstance(space, gymnasium.spaces.MultiDiscrete) else 0
        self._shape = (num_envs, *space.shape)
        self._dtype = space.dtype

    def reset(self, which: np.ndarray, seeds: list[int] | None) -> PyTree:
        """As `Bodies`."""
        some = None if which.all() else {"reset_mask": which}
        return self._shown(self.envs.reset(seed=seeds, options=some)[0])

    def step(self, action: np.ndarray) -> tuple[PyTree, np.ndarray, np.ndarray, np.ndarray]:
        """As `Bodies`."""
        action = (np.asarray(action).reshape(self._shape) + self._start).astype(self._dtype)
        obs, reward, terminated, truncated, _ = self.envs.step(action)
        return self._shown(obs), reward, terminated, truncated

    def render(self) -> list[Any]:
        """As `Bodies`."""
        return list(self.envs.render())

    def close(self) -> None:
        """As `Bodies`."""
        with contextlib.suppress(Exception):  # of one that has crashed nothing more is wanted
            self.envs.close()

    def _shown(self, obs: Any) -> PyTree:
        return _counted_from_zero(self.envs.single_observation_space, obs)


def _counted_from_zero(space: gymnasium.Space, obs: Any) -> PyTree:
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: _counted_from_zero(part, obs[name]) for name, part in space.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(_counted_from_zero(part, x) for part, x in zip(space, obs, strict=True))
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return (obs - space.start).reshape(len(obs), -1)
    return obs


def as_space(space: gymnasium.Space, action: bool = False) -> Space:
    """Ours for one of Gymnasium's. Raises InputError for one that has none: of texts, graphs, or of varying length."""
    kinds = gymnasium.spaces
    if isinstance(space, kinds.Dict):
        return {name: as_space(part) for name, part in space.items()}
    if isinstance(space, kinds.Tuple):
        return tuple(as_space(part) for part in space)
    if isinstance(space, kinds.Discrete):
        return Discrete(int(space.n), int(space.start))
    if isinstance(space, kinds.MultiDiscrete):
        return MultiDiscrete(tuple(int(n) for n in space.nvec.reshape(-1)))
    if isinstance(space, kinds.MultiBinary):
        return MultiDiscrete((2,) * int(np.prod(space.shape))) if action else Box(space.shape, 0, 1, np.int8)
    if isinstance(space, kinds.Box):
        dtype = np.float32 if space.dtype.kind == "f" else space.dtype
        low, high = (_one_number(bound) for bound in (space.low, space.high))
        return Box(space.shape, low, high, dtype)
    raise InputError(f"no space here for {space} of Gymnasium; wrap the environment so that it shows arrays")


def _one_number(bound: np.ndarray) -> Any:
    same = bound.size and np.all(bound == bound.flat[0])
    return bound.flat[0].item() if same else bound


def from_function(function: Callable[..., Any], name: str, options: EnvOptions) -> GymnasiumEnv:
    """The kind of environment that `function(**options)` makes, which is asked once. Raises InputError as it does, and
    for spaces that have no like here."""
    try:
        one = function(**options)
    except Exception as error:  # whatever the code of somebody else raises
        raise InputError(f"{name} cannot be made ({type(error).__name__}: {error})") from error
    with contextlib.closing(one):
        limit = _time_limit(one)
        fps = one.metadata.get("render_fps")
        spaces = as_space(one.observation_space), as_space(one.action_space, action=True)
    return GymnasiumEnv(function, options, name, *spaces, limit, fps)


def _time_limit(env: gymnasium.Env) -> int | None:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None if env.spec is None else env.spec.max_episode_steps


@functools.lru_cache(maxsize=None, typed=True)
def make(name: str, /, **options: Any) -> GymnasiumEnv:
    """The environment registered under `name`; `options` go to `gymnasium.make`.

    Raises InputError for one that cannot be made here, with the reason.
    """
    title = f"gymnasium/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    return from_function(functools.partial(gymnasium.make, name), title, EnvOptions(options))
