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
from jaxtyping import Array, Int

from jaxrl.data.arrays import DataBatch
from jaxrl.data.arrays import sizes as sizes_of
from jaxrl.ops.minibatch import take
from jaxrl.types import Key, Learner, PyTree, Source


class Cursor(NamedTuple):
    """Where in the data: the key of the orders, the epoch, and how many of its batches have been given."""

    key: Key
    epoch: Int[Array, ""]
    position: Int[Array, ""]


def batches(data: tuple[PyTree, ...], batch_size: int) -> Source:
    """Shuffled batches, epoch after epoch. data: one pytree per bucket, all of its leaves with leading axis [n_b].

    With one bucket `collect` is a function; with several it is a tuple of them, and `branch(carry)` says whose turn it
    is: they give different shapes, so a step must be chosen by `lax.switch`, not a batch.
    Raises ValueError for an empty bucket, or one whose leaves differ in their leading axis.
    """
    sizes = sizes_of(data, batch_size)
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
    return sum(math.ceil(n / batch_size) for n in sizes_of(data, batch_size))
