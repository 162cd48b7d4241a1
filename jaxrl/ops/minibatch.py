"""Shuffled minibatches as row numbers, so that only the rows of one minibatch are ever copied; and its opposite, one
gradient accumulated over micro-batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl.ops import shards
from jaxrl.ops.metrics import Mean
from jaxrl.ops.platform import tuning
from jaxrl.types import Key, Metrics, Params, PyTree

_MOST_PACKED = 2**20


def minibatch_rows(key: Key, num_rows: int, num_minibatches: int) -> Int[Array, "M B"]:
    """Row numbers 0 … num_rows-1, shuffled: each is in exactly one of the M minibatches. A row is a step of a rollout
    as `flatten` gives it, or an environment's whole sequence, as `sequences` does."""
    return shuffled(key, num_rows).reshape(num_minibatches, -1)


def shuffled(key: Key, n: int) -> Int[Array, " n"]:
    """0 … n-1, each once, in random order: every number is equally likely in every place.

    One sort of 32-bit words, whose high bits are random and whose low bits hold the number: several times as fast as
    `jax.random.permutation`, which sorts pairs, and more than once. Up to 2²⁰ numbers at least 12 bits are random;
    beyond, it is the permutation.
    """
    if n > _MOST_PACKED or tuning().shuffle == "permutation":
        return jax.random.permutation(key, n)
    bits = jax.random.bits(key, (n + 1,))
    low = max(n - 1, 1).bit_length()
    # Equal high bits are sorted by what lies below. Numbers turned by a random amount favour none of them even there.
    turn = (bits[-1] % n).astype(jnp.int32)
    turned = (jnp.arange(n) + turn) % n
    words = bits[:-1] >> low << low | turned.astype(jnp.uint32)
    numbers = (jnp.sort(words) & ((1 << low) - 1)).astype(jnp.int32)
    return (numbers - turn) % n


def flatten(batch: PyTree) -> PyTree:
    """[T, N, ...] -> [T·N, ...] in every leaf."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def sequences(batch: PyTree) -> PyTree:
    """[T, N, ...] <-> [N, T, ...] in every leaf: a row is then an environment's sequence."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)


def take(batch: PyTree, rows: Int[Array, " B"]) -> PyTree:
    """Those rows of every leaf."""
    return jax.tree.map(lambda x: x[rows], batch)


def rows_at_once(rows: int, steps: int = 1) -> int | None:
    """Of a batch of so many rows, each of `steps` steps, how many the platform takes at once: None for all, else a
    divisor of `rows`."""
    most = tuning().micro_batch_rows
    if most is None or rows * steps <= most:
        return None
    # Far smaller parts than asked for cost more than they save.
    most = max(1, most // steps)
    return next((size for size in range(most, most // 4, -1) if rows % size == 0), None)


def map_parts(function: Callable[[PyTree], PyTree], batch: PyTree, micro_batch_size: int | None) -> PyTree:
    """function(batch), leading axes [B], a few rows at a time: what lies in between then stays in a core's cache."""
    if not _is_cut(batch, micro_batch_size):
        return function(shards.rows_apart(batch))
    out = jax.lax.map(lambda part: function(shards.rows_apart(part)), in_parts(batch, micro_batch_size))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def in_parts(batch: PyTree, micro_batch_size: int | None) -> PyTree:
    """[B, ...] -> [parts, micro_batch_size, ...] in every leaf; None makes one part."""
    size = micro_batch_size or num_rows(batch)
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)


def num_rows(batch: PyTree) -> int:
    """The leading axis of its leaves."""
    return jax.tree.leaves(batch)[0].shape[0]


def sum_over(
    function: Callable[..., PyTree], batch: PyTree, micro_batch_size: int | None, key: Key | None = None
) -> PyTree:
    """Σ function(rows) over micro-batches, leaf by leaf, with the memory of one of them.

    function(rows) -> a pytree of sums over its rows; with `key` it is function(rows, key): each part has a key of its
    own, a batch in one part `key` itself. micro_batch_size: None takes the batch whole.
    """
    keys = () if key is None else (key,)
    if not _is_cut(batch, micro_batch_size):
        return function(shards.rows_apart(batch), *keys)
    parts = in_parts(batch, micro_batch_size)
    parts = (parts, *(jax.random.split(key, num_rows(parts)) for key in keys))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def added(total: PyTree, part: tuple) -> tuple[PyTree, None]:
        rows, *key = part
        return jax.tree.map(jnp.add, total, function(shards.rows_apart(rows), *key)), None

    return jax.lax.scan(added, zeros, parts)[0]


def accumulate(
    loss: Callable[..., tuple[Mean, Metrics]],
    params: Params,
    batch: PyTree,
    micro_batch_size: int | None,
    key: Key | None = None,
) -> tuple[Params, Metrics]:
    """Gradient of Σ total / Σ count over the whole batch, a few rows at a time, and all metrics of it.

    loss(params, rows) -> (Mean, metrics), its count independent of params; with `key`, loss(params, rows, key), keys
    as in `sum_over`. However the batch is cut, the result is the same: totals and counts are summed first, over all
    shards, and divided once. micro_batch_size: None takes the batch whole, and the gradient is bit for bit that of the
    mean where there is one shard.
    """
    cut = _is_cut(batch, micro_batch_size) or shards.apart()

    def part(rows: PyTree, *key: Key) -> tuple[Params, Mean, Metrics]:
        def objective(params: Params) -> tuple[Array, tuple[Mean, Metrics]]:
            mean, metrics = loss(params, rows, *key)
            return mean.total if cut else mean.total / _divisor(mean), (mean, metrics)

        grads, (mean, metrics) = jax.grad(objective, has_aux=True)(params)
        return grads, mean, metrics

    grads, mean, metrics = shards.total(sum_over(part, batch, micro_batch_size, key))
    return jax.tree.map(lambda g: g / _divisor(mean), grads) if cut else grads, metrics


def _is_cut(batch: PyTree, micro_batch_size: int | None) -> bool:
    return bool(micro_batch_size) and micro_batch_size != num_rows(batch)


def _divisor(mean: Mean) -> Array:
    # of a batch without a trained token: the gradient is 0
    return jax.lax.stop_gradient(jnp.maximum(mean.count, 1e-8))
