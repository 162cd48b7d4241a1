"""Gymnasium's spaces as ours, and ours as Gymnasium's."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import InputError, PyTree


def counted_from_zero(space: gymnasium.Space, obs: Any) -> PyTree:
    """Observations of many as ours: entries of MultiDiscrete from 0 on, as one axis."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: counted_from_zero(part, obs[name]) for name, part in space.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(counted_from_zero(part, x) for part, x in zip(space, obs, strict=True))
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


def as_gymnasium_space(space: Space) -> gymnasium.Space:
    """Gymnasium's for one of ours."""
    kinds = gymnasium.spaces
    if isinstance(space, dict):
        return kinds.Dict({name: as_gymnasium_space(part) for name, part in space.items()})
    if isinstance(space, tuple | list):
        return kinds.Tuple([as_gymnasium_space(part) for part in space])
    if isinstance(space, Discrete):
        return kinds.Discrete(space.n, start=space.start)
    if isinstance(space, MultiDiscrete):
        return kinds.MultiDiscrete(space.nvec)
    if np.dtype(space.dtype).kind != "f":  # a range of integers has ends
        ends = np.iinfo(space.dtype) if np.dtype(space.dtype).kind in "iu" else None
        low, high = (0, 1) if ends is None else (ends.min, ends.max)
        low, high = (np.clip(bound, low, high).astype(space.dtype) for bound in space.static_bounds)
        return kinds.Box(low, high, space.shape, space.dtype)
    low, high = space.static_bounds
    return kinds.Box(low, high, space.shape, np.dtype(space.dtype).type)
