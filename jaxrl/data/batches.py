"""Batches from a data set that lies on the device: the `Source` of everything that learns from rows.

The order is a pure function of (key, epoch), so a cursor of three numbers resumes exactly. Rows of different widths
come as several pytrees ("buckets"); every batch is from one bucket, and every row is seen exactly once per epoch.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl.minibatch import take
from jaxrl.types import Key, Learner, PyTree, Source


class Data(NamedTuple):
    """Rows to learn from, and rows to measure on: one pytree per bucket each, leading axes [n_b]."""

    train: tuple[PyTree, ...]
    held_out: tuple[PyTree, ...] = ()


class Cursor(NamedTuple):
    """Where in the data: the key of the orders, the epoch, and how many of its batches have been given."""

    key: Key
    epoch: Int[Array, ""]
    position: Int[Array, ""]


class DataBatch(NamedTuple):
    """B rows of one bucket. weight: 1, or 0 for a row that only fills up the last batch of its bucket."""

    rows: PyTree
    weight: Float[Array, " B"]


def batches(data: tuple[PyTree, ...], batch_size: int) -> Source:
    """Shuffled batches, epoch after epoch. data: one pytree per bucket, all of its leaves with leading axis [n_b].

    With one bucket `collect` is a function; with several it is a tuple of them, and `branch(carry)` says whose turn it
    is: they give different shapes, so a step must be chosen by `lax.switch`, not a batch.
    Raises ValueError for an empty bucket, or one whose leaves differ in their leading axis.
    """
    sizes = _sizes(data, batch_size)
    data = jax.tree.map(jnp.asarray, data)
    counts = [math.ceil(n / batch_size) for n in sizes]
    # Slot s of an epoch is batch `number[s]` of bucket `bucket[s]`; the slots are then shuffled.
    bucket = jnp.asarray(np.repeat(np.arange(len(sizes)), counts), jnp.int32)
    number = jnp.asarray(np.concatenate([np.arange(c) for c in counts]), jnp.int32)

    def init(key: Key) -> Cursor:
        return Cursor(key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def slot(cursor: Cursor) -> Int[Array, ""]:
        key = jax.random.fold_in(jax.random.fold_in(cursor.key, cursor.epoch), len(sizes))
        return jax.random.permutation(key, sum(counts))[cursor.position]

    def collect_from(b: int) -> Callable:
        def collect(key: Key, learner: Learner, cursor: Cursor) -> tuple[Cursor, DataBatch]:
            order = jax.random.fold_in(jax.random.fold_in(cursor.key, cursor.epoch), b)
            places = number[slot(cursor)] * batch_size + jnp.arange(batch_size)
            rows = jax.random.permutation(order, sizes[b])[places % sizes[b]]
            batch = DataBatch(take(data[b], rows), (places < sizes[b]).astype(jnp.float32))
            position = cursor.position + 1
            over = position == sum(counts)
            cursor = Cursor(cursor.key, cursor.epoch + over, jnp.where(over, 0, position))
            return cursor, batch

        return collect

    if len(sizes) == 1:
        return Source(init, collect_from(0))
    return Source(init, tuple(map(collect_from, range(len(sizes)))), lambda cursor: bucket[slot(cursor)])


def batches_per_epoch(data: tuple[PyTree, ...], batch_size: int) -> int:
    """How many batches show every row once: each bucket is rounded up."""
    return sum(math.ceil(n / batch_size) for n in _sizes(data, batch_size))


def in_order(data: tuple[PyTree, ...], batch_size: int) -> tuple[DataBatch, ...]:
    """All rows once, in the order they lie, for evaluation: the batches of each bucket on a leading axis, which
    `lax.map` or `lax.scan` runs over.
    """
    made = []
    for rows, n in zip(data, _sizes(data, batch_size), strict=True):
        places = np.arange(math.ceil(n / batch_size) * batch_size).reshape(-1, batch_size)
        filled = jax.tree.map(lambda x, which=places % n: jnp.asarray(x[which]), rows)
        made.append(DataBatch(filled, jnp.asarray(places < n, jnp.float32)))
    return tuple(made)


def _sizes(data: tuple[PyTree, ...], batch_size: int) -> list[int]:
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} is no batch; it must be at least 1")
    sizes = [{x.shape[0] for x in jax.tree.leaves(rows)} for rows in data]
    for b, lengths in enumerate(sizes):
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"bucket {b} has leading axes {sorted(lengths)}; give it one length of at least 1")
    if not sizes:
        raise ValueError("there are no buckets; give at least one pytree of rows")
    return [lengths.pop() for lengths in sizes]
