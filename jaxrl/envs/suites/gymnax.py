"""gymnax environments (version 1.0 or later). The only file that imports gymnax."""

import contextlib
import dataclasses
import functools
import importlib
import sys
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.base import cast_like, strong
from jaxrl.envs.deferred import defer
from jaxrl.envs.options import changed, construct
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.types import InputError, Key, PyTree, Step

_FAMILIES = ("classic_control", "bsuite", "minatar", "misc")
defer("gymnax", "gymnax.environments", *(f"gymnax.environments.{family}" for family in _FAMILIES))

import gymnax.environments.spaces as gymnax_spaces  # noqa: E402
from gymnax.environments.environment import Environment  # noqa: E402

UNAVAILABLE = {"MNISTBandit-bsuite": "downloads its images when it is made"}

# What gymnax's own registry says, which imports all of them: two seconds, for one to play. A test compares the two.
GAMES = {
    "CartPole-v1": "classic_control.cartpole:CartPole",
    "Pendulum-v1": "classic_control.pendulum:Pendulum",
    "Acrobot-v1": "classic_control.acrobot:Acrobot",
    "MountainCar-v0": "classic_control.mountain_car:MountainCar",
    "MountainCarContinuous-v0": "classic_control.continuous_mountain_car:ContinuousMountainCar",
    "Asterix-MinAtar": "minatar.asterix:MinAsterix",
    "Breakout-MinAtar": "minatar.breakout:MinBreakout",
    "Freeway-MinAtar": "minatar.freeway:MinFreeway",
    "Seaquest-MinAtar": "minatar.seaquest:MinSeaquest",
    "SpaceInvaders-MinAtar": "minatar.space_invaders:MinSpaceInvaders",
    "Catch-bsuite": "bsuite.catch:Catch",
    "DeepSea-bsuite": "bsuite.deep_sea:DeepSea",
    "MemoryChain-bsuite": "bsuite.memory_chain:MemoryChain",
    "UmbrellaChain-bsuite": "bsuite.umbrella_chain:UmbrellaChain",
    "DiscountingChain-bsuite": "bsuite.discounting_chain:DiscountingChain",
    "MNISTBandit-bsuite": "bsuite.mnist:MNISTBandit",
    "SimpleBandit-bsuite": "bsuite.bandit:SimpleBandit",
    "FourRooms-misc": "misc.rooms:FourRooms",
    "MetaMaze-misc": "misc.meta_maze:MetaMaze",
    "PointRobot-misc": "misc.point_robot:PointRobot",
    "BernoulliBandit-misc": "misc.bernoulli_bandit:BernoulliBandit",
    "GaussianBandit-misc": "misc.gaussian_bandit:GaussianBandit",
    "Reacher-misc": "misc.reacher:Reacher",
    "Swimmer-misc": "misc.swimmer:Swimmer",
    "Pong-misc": "misc.pong:Pong",
    "FrozenLake-misc": "misc.frozen_lake:FrozenLake",
}


def names() -> list[str]:
    """The environments that work: gymnax's own, and those registered with it in this process."""
    registration = sys.modules.get("gymnax.registration")  # who registered one has imported it
    registered = [] if registration is None else registration.registered_envs
    return [name for name in dict.fromkeys([*GAMES, *registered]) if name not in UNAVAILABLE]


class Description(NamedTuple):
    """What is static about an environment with certain parameters."""

    observation_space: Space
    action_space: Space
    time_limit: int | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GymnaxEnv:
    """A gymnax environment. Its parameters (gravity, masses, …) are the leaves.

    gymnax's own `step` resets inside and hides the true successor, so this calls `step_env` and `reset_env`. The time
    limit is left to `vectorize`, save for an environment with a rule of its own (it overrides `is_truncated`).

    `dataclasses.replace(env, params=env.params.replace(max_torque=8.0))` also changes the spaces and the time limit,
    wherever these parameters are those of one body and not traced. Otherwise they remain those of `described`: spaces
    are static, and many bodies share them.
    """

    params: Any
    raw: Any = field(metadata={"static": True})
    name: str = field(default="", metadata={"static": True})
    described: Description | None = field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        # Also called when a pytree is put together again, be it of tracers or of mere marks such as axes.
        if _is_one_body(self.params, self.raw):
            object.__setattr__(self, "params", _typed_like(self.params, self.raw.default_params))
            object.__setattr__(self, "described", _describe(self.raw, self.params))
        elif self.described is None:
            object.__setattr__(self, "described", _describe(self.raw, None))

    @property
    def observation_space(self) -> Space:
        """gymnax's, with these parameters."""
        return self.described.observation_space

    @property
    def action_space(self) -> Space:
        """gymnax's."""
        return self.described.action_space

    @property
    def time_limit(self) -> int | None:
        """Steps after which gymnax ends an episode; None for none."""
        return self.described.time_limit

    @property
    def truncates(self) -> bool:
        """Whether the game has a rule of its own that cuts episodes short."""
        return type(self.raw).is_truncated is not Environment.is_truncated

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start drawn by gymnax: (state, obs)."""
        obs, state = self.raw.reset_env(key, self.params)
        return strong((state, obs))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of gymnax, without its automatic reset."""
        next_obs, next_state, reward, terminated, info = self.raw.step_env(key, state, action, self.params)
        like = jax.eval_shape(self.raw.reset_env, key, self.params)
        next_obs, next_state = cast_like((next_obs, next_state), like)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        terminated = jnp.asarray(terminated, bool).reshape(())
        truncated = self.raw.is_truncated(next_state, self.params) if self.truncates else False
        truncated = jnp.asarray(truncated, bool).reshape(())
        return next_state, Step(next_obs, reward, terminated, truncated, strong(info))


@functools.lru_cache(maxsize=None, typed=True)
def make(name: str, /, **options: Any) -> GymnaxEnv:
    """The environment registered in gymnax under `name`. `options` that are fields of its parameters change these; the
    others go to its constructor.

    Raises InputError for one that cannot work here, with the reason, and for an option that nothing takes.
    """
    title = f"gymnax/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    with computed_now():  # what is cached must not belong to the trace that asked first
        raw = _make(name)
        known = [f.name for f in dataclasses.fields(raw.default_params)]
        physical = {k: v for k, v in options.items() if k in known}
        others = {k: v for k, v in options.items() if k not in known}
        if others:
            raw = construct(title, type(raw), others, also=known)
        return GymnaxEnv(changed(title, strong(raw.default_params), physical), raw, name)


def _make(name: str) -> Any:
    module, _, kind = GAMES.get(name, "").partition(":")
    found = None
    if module:
        with contextlib.suppress(ModuleNotFoundError):  # a version that keeps it elsewhere
            found = getattr(importlib.import_module(f"gymnax.environments.{module}"), kind, None)
    return importlib.import_module("gymnax.registration").make(name)[0] if found is None else found()


def _is_one_body(params: Any, raw: Any) -> bool:
    """Whether these are parameters that say something now: concrete, of the shapes and kinds of the default ones."""
    leaves, template = jax.tree.flatten(raw.default_params)
    given, tree = jax.tree.flatten(params)
    if tree != template or not all(map(_concrete, given)):
        return False
    alike = all(jnp.shape(x) == jnp.shape(y) and _kind(x) <= _kind(y) for x, y in zip(given, leaves, strict=True))
    # jax.tree.map(lambda _: 0, env) is a pytree of axes, not a body
    return alike and int(getattr(params, "max_steps_in_episode", 1)) >= 1


def _concrete(x: Any) -> bool:
    numbers = (bool, int, float, np.generic, np.ndarray, jax.Array)
    return isinstance(x, numbers) and not isinstance(x, jax.core.Tracer)


def _kind(x: Any) -> int:
    return "biuf".find(jnp.result_type(x).kind)


def _typed_like(params: Any, like: Any) -> Any:
    with computed_now():
        return jax.tree.map(lambda x, y: jnp.asarray(x, jnp.result_type(y)), params, like)


def _describe(raw: Any, params: Any) -> Description:
    with computed_now():
        params = raw.default_params if params is None else params
        limit = getattr(params, "max_steps_in_episode", None)
        observation, action = _space(raw.observation_space(params)), _space(raw.action_space(params))
        if isinstance(observation, Box):  # gymnax's space may name another dtype than the one shown
            shown = jax.eval_shape(raw.reset_env, jax.random.key(0), params)[0]
            observation = dataclasses.replace(observation, dtype=shown.dtype)
    return Description(observation, action, None if limit is None else int(limit))


def _space(space: Any) -> Space:
    if isinstance(space, gymnax_spaces.Discrete):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(x, np.float64), space.shape) for x in (space.low, space.high))
    # gymnax writes "unbounded" as the largest float32
    low, high = (np.where(np.abs(x) > 1e30, np.copysign(np.inf, x), x) for x in (low, high))
    return Box(tuple(space.shape), low, high)
