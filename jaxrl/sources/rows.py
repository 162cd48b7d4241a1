"""Batches from a data set that lies on the device: the `Source` of everything that learns from rows.

The order is a pure function of (key, epoch), so a cursor of three numbers resumes exactly. Rows of different widths
come as several pytrees ("buckets"); every batch is from one bucket, and every row is seen exactly once per epoch.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl.data.arrays import DataBatch, sizes
from jaxrl.ops.minibatch import take
from jaxrl.types import Key, Learner, PyTree, Source


class Cursor(NamedTuple):
    """Where in the data: the key of the orders, the epoch, and how many of its batches have been given."""

    key: Key
    epoch: Int[Array, ""]
    position: Int[Array, ""]


class Bucketed(NamedTuple):
    """A batch of bucket number `bucket`, its rows padded to the widest bucket, so that all batches have one shape.

    `at_own_width` cuts them to their own again.
    """

    batch: DataBatch
    bucket: Int[Array, ""]


def batches(data: tuple[PyTree, ...], batch_size: int) -> Source:
    """Shuffled batches (Bucketed), epoch after epoch. data: one pytree per bucket, all leaves with leading axis [n_b].

    Raises InputError for an empty bucket, or one whose leaves differ in their leading axis.
    """
    counts = [math.ceil(n / batch_size) for n in sizes(data, batch_size)]
    data = jax.tree.map(jnp.asarray, data)
    # Slot s of an epoch is batch `number[s]` of bucket `bucket[s]`; the slots are then shuffled.
    bucket = jnp.asarray(np.repeat(np.arange(len(counts)), counts), jnp.int32)
    number = jnp.asarray(np.concatenate([np.arange(c) for c in counts]), jnp.int32)
    widest = jax.tree.map(lambda *x: np.max([leaf.shape[1:] for leaf in x], axis=0), *data)

    def init(key: Key) -> Cursor:
        return Cursor(key, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def rows_of(b: int, key: Key, number: Int[Array, ""]) -> DataBatch:
        size = jax.tree.leaves(data[b])[0].shape[0]
        places = number * batch_size + jnp.arange(batch_size)
        order = jax.random.permutation(jax.random.fold_in(key, b), size)
        rows = take(data[b], order[places % size])
        return DataBatch(jax.tree.map(_padded, rows, widest), (places < size).astype(jnp.float32))

    def collect(key: Key, learner: Learner, cursor: Cursor) -> tuple[Cursor, Bucketed]:
        epoch = jax.random.fold_in(cursor.key, cursor.epoch)
        slot = jax.random.permutation(jax.random.fold_in(epoch, len(counts)), sum(counts))[cursor.position]
        of_bucket = [partial(rows_of, b) for b in range(len(counts))]
        batch = jax.lax.switch(bucket[slot], of_bucket, epoch, number[slot])
        position = cursor.position + 1
        over = position == sum(counts)
        cursor = Cursor(cursor.key, cursor.epoch + over, jnp.where(over, 0, position))
        return cursor, Bucketed(batch, bucket[slot])

    return Source(init, collect)


def at_own_width(update: Callable, data: tuple[PyTree, ...]) -> Callable:
    """`update(key, learner, DataBatch)` for batches as `batches(data, …)` gives them: each is cut to the width of its
    bucket first. One program holds an update for every width; no row is computed on at a wider one.
    """

    def on_bucketed(key: Key, learner: Learner, batch: Bucketed) -> Any:
        def at(b: int, key: Key, learner: Learner, batch: DataBatch) -> Any:
            cut = jax.tree.map(lambda x, like: x[(slice(None), *map(slice, like.shape[1:]))], batch.rows, data[b])
            return update(key, learner, batch._replace(rows=cut))

        choices = [partial(at, b) for b in range(len(data))]
        return jax.lax.switch(batch.bucket, choices, key, learner, batch.batch)

    return on_bucketed


def batches_per_epoch(data: tuple[PyTree, ...], batch_size: int) -> int:
    """How many batches show every row once: each bucket is rounded up."""
    return sum(math.ceil(n / batch_size) for n in sizes(data, batch_size))


def _padded(x: Array, widest: np.ndarray) -> Array:
    return jnp.pad(x, [(0, 0), *((0, int(w) - n) for n, w in zip(x.shape[1:], widest, strict=True))])
