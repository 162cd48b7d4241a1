"""The arrays of a checkpoint as the parts of them that processes hold, and back onto whatever devices there are."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.training import leaves as flat
from jaxrl.training.processes import gathered
from jaxrl.types import PyTree

Box = tuple[tuple[int, int], ...]  # of each axis the first index, and the one past the last
Read = dict[str, list[tuple[Box, np.ndarray]]]  # by path, what has been read of each leaf


class Part(NamedTuple):
    """A copy of the numbers of the array at `path`, or of a box of it, under the `name` that a file has them by."""

    name: str
    path: str
    box: Box
    numbers: np.ndarray

    def told(self, described: str) -> list[Any]:
        """As the manifest tells it, where the whole array is described so."""
        where = [] if self.name == self.path else [self.path, self.box]
        return [described, flat.digest(self.numbers), *where]


class Lying(NamedTuple):
    """A part that the files of a process have."""

    host: int
    name: str
    digest: str
    path: str
    box: Box
    dtype: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        return tuple(past - first for first, past in self.box)

    def checked(self, found: Any) -> np.ndarray | None:
        """The numbers that were found there; None where they are not what was saved."""
        if not math.prod(self.shape):  # such are not saved
            return np.empty(self.shape, self.dtype)
        if isinstance(found, np.ndarray) and found.dtype.kind == "V":  # as NumPy's files have bfloat16
            found = found.view(self.dtype)
        same = isinstance(found, np.ndarray) and (found.dtype, found.shape) == (self.dtype, self.shape)
        return found if same and flat.digest(found) == self.digest else None


def whole(shape: Iterable[int]) -> Box:
    """All of an array."""
    return tuple((0, size) for size in shape)


def _box_of(index: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    """What a device has, by the index that JAX tells."""
    return tuple(one.indices(size)[:2] for one, size in zip(index, shape, strict=True))


def own_parts(arrays: Mapping[str, Any]) -> list[Part]:
    """Copies of what this process is to save of {path: array}: among all processes, each number once."""
    found = []
    for path, x in arrays.items():
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            own = [(_box_of(s.index, x.shape), s.data) for s in x.addressable_shards if s.replica_id == 0]
        else:
            own = [(whole(x.shape), x)] if jax.process_index() == 0 else []
        names = [path if box == whole(x.shape) else f"{path} {n}" for n, (box, _) in enumerate(own)]
        found += [(name, path, box, data) for name, (box, data) in zip(names, own, strict=True)]
    copies = jax.device_get([data for *_, data in found])  # all at once: they come side by side
    return [Part(*told, np.array(x)) for (*told, _), x in zip(found, copies, strict=True)]


def whole_parts(arrays: Mapping[str, Any]) -> list[Part]:
    """Copies of {path: array}, whole in each process; all must come to this line."""
    found = zip(arrays, gathered(list(arrays.values())), strict=True)
    return [Part(path, path, whole(x.shape), np.array(x)) for path, x in found]


def needed(template: PyTree, places: PyTree | None, manifests: list[dict[str, Any]]) -> list[Lying]:
    """Of the parts that processes have saved, those that this one's devices need for a tree like `template` at
    `places`; where those are None, all. Raises InputError where another tree was saved."""
    lying: dict[str, list[tuple]] = {}
    told: dict[str, str] = {}
    for host, manifest in enumerate(manifests):
        for name, (described, digest, *where) in manifest["leaves"].items():
            path, box = where or (name, None)
            told[path] = described
            lying.setdefault(path, []).append((host, name, digest, path, box))
    leaves, at, found = flat.named(template), flat.named(places), []
    flat.compare(told, {path: flat.describe(leaf) for path, leaf in leaves.items()})
    for path, leaf in leaves.items():
        data = jax.eval_shape(flat.data, leaf)
        wanted = _wanted(data.shape, at.get(path))
        for *where, box in lying[path]:
            one = Lying(*where, whole(data.shape) if box is None else tuple(map(tuple, box)), data.dtype)
            if any(one.box == box or _shared(one.box, box) for box in wanted):
                found.append(one)
    return found


def _wanted(shape: tuple[int, ...], place: jax.sharding.Sharding | None) -> set[Box]:
    if place is None:
        return {whole(shape)}
    return {_box_of(index, shape) for index in place.addressable_devices_indices_map(shape).values()}


def laid_out(template: PyTree, places: PyTree | None, read: Read) -> PyTree:
    """A tree like `template` at `places`, on one device where those are None, of what has been read."""
    at = flat.named(places)
    made = [_laid(leaf, at.get(path), read.pop(path)) for path, leaf in flat.named(template).items()]
    return jax.tree.unflatten(jax.tree.structure(template), made)


def _laid(like: Any, place: jax.sharding.Sharding | None, parts: list[tuple[Box, np.ndarray]]) -> jax.Array:
    data = jax.eval_shape(flat.data, like)
    if place is None:
        return flat.typed(like, jnp.asarray(_put_together(whole(data.shape), data.dtype, parts)))

    def on_device(index: tuple[slice, ...]) -> np.ndarray:
        return _put_together(_box_of(index, data.shape), data.dtype, parts)

    return flat.typed(like, jax.make_array_from_callback(data.shape, place, on_device))


def _put_together(box: Box, dtype: Any, parts: list[tuple[Box, np.ndarray]]) -> np.ndarray:
    """The numbers of a box, of parts of which no two overlap."""
    for own, numbers in parts:
        if own == box:
            return numbers
    made, count = np.empty([past - first for first, past in box], dtype), 0
    for own, numbers in parts:
        if (shared := _shared(box, own)) is not None:
            made[_within(shared, box)] = numbers[_within(shared, own)]
            count += math.prod(past - first for first, past in shared)
    if count != made.size:
        raise ValueError(f"{made.size - count} of {made.size} numbers were saved by no process")
    return made


def _shared(a: Box, b: Box) -> Box | None:
    """What two boxes share; None where that is nothing."""
    shared = tuple((max(x[0], y[0]), min(x[1], y[1])) for x, y in zip(a, b, strict=True))
    return shared if all(first < past for first, past in shared) else None


def _within(box: Box, larger: Box) -> tuple[slice, ...]:
    return tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(box, larger, strict=True))
