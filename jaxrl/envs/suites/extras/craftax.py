"""Craftax and Craftax-Classic, each shown as symbols and as pixels. The only file that imports craftax."""

import contextlib
import functools
import importlib
import io
from dataclasses import dataclass, field
from typing import Any

import craftax  # noqa: F401  # so that its absence is known from the start: the games are imported as they are made
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.base import cast_like, strong
from jaxrl.envs.options import changed, construct, refuse_unknown
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete
from jaxrl.types import InputError, Key, PyTree, Step

UNAVAILABLE: dict[str, str] = {}
# Module and class of the environment that does not reset itself, below the package of its game.
_GAMES = {
    "Craftax-Symbolic-v1": ("craftax", "envs.craftax_symbolic_env", "CraftaxSymbolicEnvNoAutoReset"),
    "Craftax-Pixels-v1": ("craftax", "envs.craftax_pixels_env", "CraftaxPixelsEnvNoAutoReset"),
    "Craftax-Classic-Symbolic-v1": (
        "craftax_classic",
        "envs.craftax_symbolic_env",
        "CraftaxClassicSymbolicEnvNoAutoReset",
    ),
    "Craftax-Classic-Pixels-v1": ("craftax_classic", "envs.craftax_pixels_env", "CraftaxClassicPixelsEnvNoAutoReset"),
}
_NEVER = np.iinfo(np.int32).max


def names() -> list[str]:
    """Both games, as symbols and as pixels."""
    return list(_GAMES)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CraftaxEnv:
    """A game of Craftax. Its parameters (day_length, spawn_cow_chance, …) are the leaves.

    Craftax ends an episode at its time limit as it does at a death. Here its clock is stopped and the limit left to
    `vectorize`, so that what is terminated has really ended. info holds for each achievement whether it was unlocked
    in this episode, 0 or 1; Craftax's own says so only where an episode ends.
    """

    params: Any
    raw: Any = field(metadata={"static": True})
    achievements: tuple[str, ...] = field(metadata={"static": True}, repr=False)
    time_limit: int | None = field(default=None, metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def truncates(self) -> bool:
        """Never: the time limit is left to `vectorize`."""
        return False

    @property
    def observation_space(self) -> Box:
        """A vector of symbols, or a picture [height, width, 3] between 0 and 1."""
        return Box(_observation_shape(self.raw), 0.0, 1.0)

    @property
    def action_space(self) -> Discrete:
        """Craftax's."""
        return Discrete(int(self.raw.num_actions))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A world drawn by Craftax: (state, obs)."""
        obs, state = strong(self.raw.reset_env(key, self.params))
        return state, obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of Craftax, without its automatic reset."""
        endless = self.params.replace(max_timesteps=_NEVER)
        obs, after, reward, terminated, _ = self.raw.step_env(key, state, action, endless)
        after, obs = cast_like(after, state), obs.astype(jnp.float32)
        reward, terminated = jnp.asarray(reward, jnp.float32), jnp.asarray(terminated, bool)
        info = {name: after.achievements[i].astype(jnp.float32) for i, name in enumerate(self.achievements)}
        return after, Step(obs, reward, terminated, jnp.zeros((), bool), info)


@functools.cache
def _observation_shape(raw: Any) -> tuple[int, ...]:
    return jax.eval_shape(raw.reset_env, jax.random.key(0), raw.default_params)[0].shape


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, **options: Any) -> CraftaxEnv:
    """The game `name`. `options` are parameters of it, such as day_length 600; max_timesteps is the time limit.

    Raises InputError for an option that is none of its parameters, or does not fit.
    """
    title = f"craftax/{name}"
    game, module, kind = _GAMES[name]
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its textures
        constants = importlib.import_module(f"craftax.{game}.constants")
        raw = construct(title, getattr(importlib.import_module(f"craftax.{game}.{module}"), kind), {})
    numbers = {k: v for k, v in vars(raw.default_params).items() if isinstance(v, int | float)}
    refuse_unknown(title, options, numbers)
    with computed_now():  # what is kept must not belong to a trace that may be under way
        params = changed(title, strong(raw.default_params), options)
    limit = int(params.max_timesteps)
    if limit < 1:
        raise InputError(f"{title}: max_timesteps = {limit} must be 1 or more")
    achievements = tuple(one.name.lower() for one in sorted(constants.Achievement, key=lambda one: one.value))
    return CraftaxEnv(params, raw, achievements, limit, name)
