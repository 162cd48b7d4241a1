"""Gymnasium's spaces as ours, and ours as Gymnasium's."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space
from jaxrl.types import InputError, PyTree

_MOST_CHOICES = 4096  # of an action; a policy gives a number for each


def flat(space: gymnasium.Space, obs: Any) -> PyTree:
    """Observations of many as ours: those of MultiDiscrete as one axis."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {name: flat(part, obs[name]) for name, part in space.items()}
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(flat(part, x) for part, x in zip(space, obs, strict=True))
    return obs.reshape(len(obs), -1) if isinstance(space, gymnasium.spaces.MultiDiscrete) else obs


def as_space(space: gymnasium.Space, action: bool = False) -> Space:
    """Ours for one of Gymnasium's; of actions as one axis, and those of whole numbers as MultiDiscrete.

    Raises InputError for one that has none: of texts, graphs, or of varying length,
    and for actions that are a choice between too many whole numbers.
    """
    kinds = gymnasium.spaces
    if isinstance(space, kinds.Dict):
        return {name: as_space(part) for name, part in space.items()}
    if isinstance(space, kinds.Tuple):
        return tuple(as_space(part) for part in space)
    if isinstance(space, kinds.Discrete):
        return Discrete(int(space.n), int(space.start))
    if isinstance(space, kinds.MultiDiscrete):
        return MultiDiscrete(*(tuple(x.reshape(-1).tolist()) for x in (space.nvec, space.start)))
    if isinstance(space, kinds.MultiBinary):
        return MultiDiscrete((2,) * int(np.prod(space.shape))) if action else Box(space.shape, 0, 1, np.int8)
    if isinstance(space, kinds.Box) and action and space.dtype.kind in "iu":
        return _counted(space)
    if isinstance(space, kinds.Box):
        shape = (int(np.prod(space.shape)),) if action else space.shape
        low, high = (_one_number(bound.reshape(shape)) for bound in (space.low, space.high))
        return Box(shape, low, high, _kept_as(space))
    raise InputError(f"no space here for {space} of Gymnasium; wrap the environment so that it shows arrays")


def _counted(space: gymnasium.spaces.Box) -> MultiDiscrete:
    low, high = space.low.reshape(-1).tolist(), space.high.reshape(-1).tolist()
    sizes = [b - a + 1 for a, b in zip(low, high, strict=True)]
    if max(sizes) > _MOST_CHOICES:
        raise InputError(
            f"actions of {space} would be a choice between {max(sizes)} whole numbers; wrap the environment so that it "
            "takes floats, which it rounds, or fewer choices"
        )
    return MultiDiscrete(tuple(sizes), tuple(low))


def _kept_as(space: gymnasium.spaces.Box) -> Any:
    """JAX has 32 bits, and would cut off what is beyond them: as floats such numbers are merely rounded."""
    if space.dtype.kind in "iu" and space.dtype.itemsize == 8:
        ends = np.iinfo(np.int32)
        return np.int32 if space.low.min() >= ends.min and space.high.max() <= ends.max else np.float32
    return np.float32 if space.dtype.kind == "f" else space.dtype


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
        return kinds.MultiDiscrete(space.nvec, start=space.start)
    if np.dtype(space.dtype).kind != "f":  # a range of integers has ends
        ends = np.iinfo(space.dtype) if np.dtype(space.dtype).kind in "iu" else None
        low, high = (0, 1) if ends is None else (ends.min, ends.max)
        low, high = (np.clip(bound, low, high).astype(space.dtype) for bound in space.static_bounds)
        return kinds.Box(low, high, space.shape, space.dtype)
    low, high = space.static_bounds
    return kinds.Box(low, high, space.shape, np.dtype(space.dtype).type)
