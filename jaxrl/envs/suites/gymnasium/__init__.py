"""Gymnasium environments, of any package that registers with it, and its vector environments. Only this folder imports
gymnasium.

They live on the host, in Python: acting and learning are compiled, stepping is not. An observation is stored as
float32 where it is of floats. Wrappers are Gymnasium's own: name a function of yours that makes the environment,
"package.module:function"; or one that makes many as a vector environment of yours, function(num_envs=1).
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxrl.envs.suites.gymnasium.bodies import GymnasiumBodies, autoreset_mode, side_by_side
from jaxrl.envs.suites.gymnasium.mask import ShowMask
from jaxrl.envs.suites.gymnasium.spaces import as_space
from jaxrl.envs.suites.gymnasium.trial import check_once
from jaxrl.settings import EnvOptions
from jaxrl.spaces import Space
from jaxrl.types import InputError

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
    """A kind of Gymnasium environment: `function(**options)` makes one of it; or, where `many`, N of them as one vector
    environment, by `function(num_envs=N, **options)`. action_shape: of an action as it takes it; ours have one axis.
    """

    function: Callable[..., gymnasium.Env]
    options: EnvOptions
    name: str
    observation_space: Space = field(compare=False)
    action_space: Space = field(compare=False)
    action_shape: tuple[int, ...] = field(compare=False)
    time_limit: int | None
    fps: float | None = None
    many: bool = False
    hosted: bool = True

    def filmed(self) -> "GymnasiumEnv":
        """The same, making pictures."""
        return replace(self, options=EnvOptions({**self.options, "render_mode": "rgb_array"}))

    def open(self, num_envs: int, processes: bool) -> "GymnasiumBodies":
        """So many of them; each in a process of its own if asked for."""
        if not self.many:
            return GymnasiumBodies(
                side_by_side([functools.partial(self.function, **self.options)] * num_envs, processes)
            )
        if processes:
            raise InputError(f"env.processes = True: {self.name} makes many as one itself; leave it out")
        return GymnasiumBodies(self.function(num_envs=num_envs, **self.options))


def from_function(function: Callable[..., Any], name: str, options: EnvOptions) -> GymnasiumEnv:
    """The kind of environment that `function(**options)` makes, which is asked once. Raises InputError as it does, for
    spaces that have no like here, for a reset or a step that gives something else than Gymnasium wants, and for a
    vector environment whose steps are not all those of its agent."""
    try:
        one = function(**options)
    except Exception as error:  # whatever the code of somebody else raises
        raise InputError(f"{name} cannot be made ({type(error).__name__}: {error})") from error
    many = isinstance(one, VectorEnv)
    with contextlib.closing(one):
        if many:
            _check_resets(one, name)
        limit = _time_limit(one)
        fps = one.metadata.get("render_fps")
        single = "single_" if many else ""
        try:
            seen, done = (getattr(one, f"{single}{which}_space") for which in ("observation", "action"))
            spaces = as_space(seen), as_space(done, action=True)
        except (InputError, AttributeError) as error:  # the latter where it has no spaces
            raise InputError(f"{name}: {error}") from error
        if not many:
            check_once(one, name)
    return GymnasiumEnv(function, options, name, *spaces, done.shape, limit, fps, many)


def _check_resets(envs: VectorEnv, name: str) -> None:
    mode = autoreset_mode(envs)
    if mode not in (AutoresetMode.DISABLED, AutoresetMode.SAME_STEP):
        raise InputError(
            f"{name} makes a vector environment with autoreset_mode = {mode}, in which an action does nothing after "
            "every end: no step to learn from; make it with autoreset_mode=AutoresetMode.DISABLED, or SAME_STEP"
        )


def _time_limit(env: gymnasium.Env | VectorEnv) -> int | None:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return env._max_episode_steps
        env = env.env
    return None if env.spec is None else env.spec.max_episode_steps


def masked(function: Callable[..., gymnasium.Env], **options: Any) -> gymnasium.Env:
    """What `function` makes, showing its mask."""
    return ShowMask(function(**options))


@functools.lru_cache(maxsize=None, typed=True)
def make(name: str, /, show_mask: bool = False, **options: Any) -> GymnasiumEnv:
    """The environment registered under `name`; `options` go to `gymnasium.make`. show_mask: whether actions that
    info["action_mask"] forbids are to be left alone, as `ShowMask` says.

    Raises InputError for one that cannot be made here, with the reason.
    """
    title = f"gymnasium/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    function = functools.partial(gymnasium.make, name)
    return from_function(functools.partial(masked, function) if show_mask else function, title, EnvOptions(options))
