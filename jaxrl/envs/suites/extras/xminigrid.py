"""XLand-MiniGrid: XLand's rules and goals, and MiniGrid's tasks, in grids. The only file that imports xminigrid."""

import functools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from xminigrid import registration
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from jaxrl.envs.base import cast_like, strong
from jaxrl.envs.options import refuse_unknown
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete
from jaxrl.types import InputError, Key, PyTree, Step

UNAVAILABLE: dict[str, str] = {}


def names() -> list[str]:
    """The environments registered with XLand-MiniGrid in this process."""
    return [name for name in registration.registered_environments() if name not in UNAVAILABLE]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class XMiniGridEnv:
    """An environment of XLand-MiniGrid. Where it has a ruleset, that is the data; all else is static.

    XLand's own have no goal until they are given one: `dataclasses.replace(env, params=env.params.replace(ruleset=…))`.
    The benchmarks of rulesets that XLand-MiniGrid offers are downloaded, by its own code.
    """

    params: Any
    raw: Any = field(metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def time_limit(self) -> int:
        """XLand-MiniGrid's, in steps; the reward of a success falls with the share of it that was used."""
        return int(self.params.max_steps)

    @property
    def truncates(self) -> bool:
        """Never: the time limit is left to `vectorize`."""
        return False

    @property
    def observation_space(self) -> Box:
        """What the agent sees, itself in the middle of the last row: a picture [view, view, 25] of which each cell's
        kind of tile, of 13, and colour, of 12, are one-hot; XLand-MiniGrid's own numbers are names, not amounts.
        """
        return Box((self.params.view_size, self.params.view_size, NUM_TILES + NUM_COLORS), 0, 1, bool)

    @property
    def action_space(self) -> Discrete:
        """Forward, right, left, pick up, put down, toggle."""
        return Discrete(self.raw.num_actions(self.params))

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start drawn by XLand-MiniGrid: (its time step, obs)."""
        timestep = strong(self.raw.reset(self.params, key))
        return timestep, _shown(timestep)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of XLand-MiniGrid, without the automatic reset of its wrappers."""
        timestep = cast_like(self.raw.step(self.params, state, action), state)
        terminated = timestep.discount == 0  # at its time limit the discount is 1
        return timestep, Step(_shown(timestep), timestep.reward, terminated, jnp.zeros((), bool), {})


def _shown(timestep: Any) -> jax.Array:
    tile, color = timestep.observation[..., 0], timestep.observation[..., 1]
    parts = jax.nn.one_hot(tile, NUM_TILES, dtype=bool), jax.nn.one_hot(color, NUM_COLORS, dtype=bool)
    return jnp.concatenate(parts, axis=-1)


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, **options: Any) -> XMiniGridEnv:
    """The environment registered under `name`; `options` are fields of its parameters: height, width, view_size,
    max_steps.

    Raises InputError for an option that is none of them, or that the environment refuses.
    """
    title = f"xminigrid/{name}"
    registered = registration._REGISTRY[name]
    with computed_now():  # what is kept must not belong to a trace that may be under way
        raw = registration.load(registered.entry_point)()
        known = [k for k in vars(raw.default_params()) if k not in ("ruleset", "render_mode", "grid_type")]
        refuse_unknown(title, options, known)
        for option, value in options.items():
            if type(value) is not int or value < 1:
                raise InputError(f"{title}: {option} = {value!r} must be a whole number from 1 on")
        if options.get("view_size", 5) % 2 == 0 or options.get("view_size", 5) < 3:
            raise InputError(f"{title}: view_size = {options['view_size']} must be odd and 3 or more")
        env = XMiniGridEnv(raw.default_params(**{**registered.kwargs, **options}), raw, name)
        try:
            jax.eval_shape(env.reset, jax.random.key(0))
        except Exception as error:  # whatever it makes of a size that it cannot have
            raise InputError(f"{title} cannot be made with {options} ({type(error).__name__}: {error})") from error
    return env
