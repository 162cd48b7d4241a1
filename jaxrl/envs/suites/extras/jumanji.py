"""Jumanji environments: combinatorial and logic games, and routing. The only file that imports jumanji.

Several agents are one here: one action for all of them, and the sum of their rewards, as of Jumanji's
MultiToSingleWrapper. Where Jumanji's mask is of whole actions, and not of each entry by itself, the action is one
number, which counts all of them.
"""

import copy
import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jumanji import registration, specs
from jumanji.environments import SearchAndRescue

from jaxrl.envs.base import cast_like, strong
from jaxrl.envs.options import construct
from jaxrl.ops.masks import MASK
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import InputError, Key, PyTree, Step

UNAVAILABLE = {"Sokoban-v0": "downloads its levels when it is made"}
_NEVER = np.iinfo(np.int32).max
_CLOCKS = ("step_count", "step")  # of which some would be one-hot, thousands of numbers, and short by one


def names() -> list[str]:
    """The environments registered with Jumanji in this process that work."""
    return [name for name in registration._REGISTRY if name not in UNAVAILABLE]


class Description(NamedTuple):
    """What is static about an environment. sizes: how often each entry of Jumanji's own action may differ, where ours
    is one number that counts them all; else None.
    """

    observation_space: Space
    action_space: Space
    sizes: tuple[int, ...] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class JumanjiEnv:
    """A Jumanji environment. All of it is static.

    Jumanji calls most of its own time limits a termination. Here its clock is stopped and the limit left to
    `vectorize`, so that what is terminated has really ended; but not in SearchAndRescue, whose rewards fall to 0 as
    the limit comes near. What a step draws is drawn from the key of that step. info holds Jumanji's extras.
    """

    raw: Any = field(metadata={"static": True})
    described: Description = field(metadata={"static": True}, repr=False)
    time_limit: int | None = field(metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def truncates(self) -> bool:
        """Never for Jumanji's own; those that others register with it may."""
        return not type(self.raw).__module__.startswith("jumanji.")

    @property
    def observation_space(self) -> Space:
        """Jumanji's, by name; the mask of actions is "action_mask"."""
        return self.described.observation_space

    @property
    def action_space(self) -> Space:
        """Jumanji's, as one number where only whole actions can be forbidden."""
        return self.described.action_space

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start drawn by Jumanji: (state, obs)."""
        state, timestep = strong(self.raw.reset(key))
        return state, self._shown(timestep.observation)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of Jumanji."""
        before = _with_key(state, key)
        spec, sizes = self.raw.action_spec, self.described.sizes
        if sizes is not None:
            action = jnp.stack(jnp.unravel_index(action, sizes))
        state, timestep = self.raw.step(before, action.reshape(spec.shape).astype(spec.dtype))
        state = cast_like(state, before)
        last, dead = timestep.last(), jnp.all(timestep.discount == 0)
        reward = jnp.sum(timestep.reward).astype(jnp.float32)
        info = strong(dict(timestep.extras))
        return state, Step(self._shown(timestep.observation), reward, last & dead, last & ~dead, info)

    def _shown(self, obs: PyTree) -> PyTree:
        obs = _by_name(obs)
        if MASK in obs:
            obs = {**obs, MASK: obs[MASK].reshape(-1)}
        return jax.tree.map(lambda x, part: jnp.asarray(x, part.dtype), obs, self.observation_space)


def _with_key(state: Any, key: Key) -> Any:
    replace = state._replace if hasattr(state, "_replace") else functools.partial(dataclasses.replace, state)
    return replace(key=key)


def _by_name(tree: Any) -> Any:
    """Named tuples and dataclasses as dicts."""
    if hasattr(tree, "_asdict"):
        return {name: _by_name(part) for name, part in tree._asdict().items()}
    if dataclasses.is_dataclass(tree):
        return {f.name: _by_name(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
    return tree


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, **options: Any) -> JumanjiEnv:
    """The environment registered with Jumanji under `name`; `options` go to its constructor.

    Raises InputError for one that cannot work here, with the reason, and for an option that its constructor refuses.
    """
    title = f"jumanji/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    registered = registration._REGISTRY[name]
    raw = construct(title, registration.load(registered.entry_point), {**registered.kwargs, **options})
    limit = getattr(raw, "time_limit", None)
    described = _describe(raw)
    if limit is not None and not isinstance(raw, SearchAndRescue):
        raw = copy.copy(raw)
        raw.time_limit = _NEVER
    return JumanjiEnv(raw, described, None if limit is None else int(limit), name)


def _describe(raw: Any) -> Description:
    with computed_now():  # what is kept must not belong to a trace that may be under way
        shown = _by_name(jax.eval_shape(raw.reset, jax.random.key(0))[1].observation)
        spaces = _spaces(raw.observation_spec, shown)
        action, sizes = raw.action_spec, None
        if MASK in shown:
            mask, actions = shown[MASK].shape, action.shape or (1,)
            spaces[MASK] = Box((int(np.prod(mask)),), 0, 1, shown[MASK].dtype)
            if not action.shape:
                return Description(spaces, Discrete(*mask), None)
            if mask == tuple(np.broadcast_to(action.maximum, action.shape).astype(int) + 1):
                return Description(spaces, Discrete(int(np.prod(mask))), mask)
            return Description(spaces, MultiDiscrete((mask[1],) * actions[0]), None)
        if isinstance(action, specs.MultiDiscreteArray):
            return Description(spaces, MultiDiscrete(tuple(int(n) for n in action.num_values)), None)
        if isinstance(action, specs.DiscreteArray):
            return Description(spaces, Discrete(int(action.num_values)), None)
        low, high = (np.broadcast_to(np.asarray(x), action.shape).reshape(-1) for x in (action.minimum, action.maximum))
        return Description(spaces, Box(low.shape, low, high), sizes)


def _spaces(spec: Any, shown: Any) -> Space:
    if isinstance(shown, dict):
        return {
            name: Box((), 0, dtype=part.dtype) if name in _CLOCKS else _spaces(spec[name], part)
            for name, part in shown.items()
        }
    if isinstance(spec, specs.DiscreteArray):
        return Discrete(int(spec.num_values))
    if isinstance(spec, specs.BoundedArray):
        return Box(shown.shape, np.asarray(spec.minimum), np.asarray(spec.maximum), shown.dtype)
    return Box(shown.shape, dtype=shown.dtype)
