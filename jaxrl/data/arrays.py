"""Data sets as arrays: rows to learn from and to measure on, in buckets of one width each, and batches of them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl.types import InputError, PyTree


class Data(NamedTuple):
    """Rows to learn from, and rows to measure on: one pytree per bucket each, leading axes [n_b]."""

    train: tuple[PyTree, ...]
    held_out: tuple[PyTree, ...] = ()


class DataBatch(NamedTuple):
    """B rows of one bucket. weight: 1, or 0 for a row that only fills up the last batch of its bucket."""

    rows: PyTree
    weight: Float[Array, " B"]


def in_order(data: tuple[PyTree, ...], batch_size: int) -> tuple[DataBatch, ...]:
    """All rows once, in the order they lie, for evaluation: the batches of each bucket on a leading axis, which
    `lax.map` or `lax.scan` runs over.
    """
    made = []
    for rows, n in zip(data, sizes(data, batch_size), strict=True):
        places = np.arange(math.ceil(n / batch_size) * batch_size).reshape(-1, batch_size)
        filled = jax.tree.map(lambda x, which=places % n: jnp.asarray(x[which]), rows)
        made.append(DataBatch(filled, jnp.asarray(places < n, jnp.float32)))
    return tuple(made)


def sizes(data: tuple[PyTree, ...], batch_size: int) -> list[int]:
    """Rows of each bucket. Raises InputError for an empty bucket, or one whose leaves differ in their leading axis."""
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size} is no batch; it must be at least 1")
    lengths_of = [{x.shape[0] for x in jax.tree.leaves(rows)} for rows in data]
    for b, lengths in enumerate(lengths_of):
        if len(lengths) != 1 or 0 in lengths:
            raise InputError(f"bucket {b} has leading axes {sorted(lengths)}; give it one length of at least 1")
    if not lengths_of:
        raise InputError("there are no buckets; give at least one pytree of rows")
    return [lengths.pop() for lengths in lengths_of]
