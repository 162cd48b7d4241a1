"""Shuffled minibatches as row numbers, so that only the rows of one minibatch are ever copied; and its opposite, one
gradient accumulated over micro-batches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl.ops.metrics import Mean
from jaxrl.types import Key, Metrics, Params, PyTree


def minibatch_rows(
    key: Key, num_steps: int, num_envs: int, num_minibatches: int, by: str = "step"
) -> Int[Array, "M B"]:
    """Row numbers into a rollout flattened from [T, N]: each row appears in exactly one of the M minibatches.

    by "step" shuffles all T·N rows; by "env" keeps each environment's T rows in one minibatch, which shuffles N
    numbers instead of T·N and is what sequence models need.
    """
    if by == "step":
        return jax.random.permutation(key, num_steps * num_envs).reshape(num_minibatches, -1)
    envs = jax.random.permutation(key, num_envs).reshape(num_minibatches, 1, -1)
    return (jnp.arange(num_steps)[:, None] * num_envs + envs).reshape(num_minibatches, -1)


def flatten(batch: PyTree) -> PyTree:
    """[T, N, ...] -> [T·N, ...] in every leaf."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def take(batch: PyTree, rows: Int[Array, " B"]) -> PyTree:
    """Those rows of every leaf."""
    return jax.tree.map(lambda x: x[rows], batch)


def in_parts(batch: PyTree, micro_batch_size: int | None) -> PyTree:
    """[B, ...] -> [parts, micro_batch_size, ...] in every leaf; None makes one part."""
    size = micro_batch_size or jax.tree.leaves(batch)[0].shape[0]
    return jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)


def accumulate(
    loss: Callable[[Params, PyTree], tuple[Mean, Metrics]], params: Params, batch: PyTree, micro_batch_size: int | None
) -> tuple[Params, Metrics]:
    """Gradient of Σ total / Σ count over the whole batch, a few rows at a time, and all metrics of it.

    loss(params, rows) -> (Mean, metrics), its count independent of params. However the batch is cut, the result is the
    same: totals and counts are summed first and divided once. micro_batch_size: None takes the batch whole.
    """

    def part(rows: PyTree) -> tuple[Params, Mean, Metrics]:
        def total(params: Params):
            mean, metrics = loss(params, rows)
            return mean.total, (mean, metrics)

        grads, (mean, metrics) = jax.grad(total, has_aux=True)(params)
        return grads, mean, metrics

    size = jax.tree.leaves(batch)[0].shape[0]
    if micro_batch_size is None or micro_batch_size == size:
        grads, mean, metrics = part(batch)
    else:
        parts = in_parts(batch, micro_batch_size)
        shapes = jax.eval_shape(part, jax.tree.map(lambda x: x[0], parts))
        first = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda total, rows: (jax.tree.map(jnp.add, total, part(rows)), None)  # noqa: E731
        grads, mean, metrics = jax.lax.scan(add, first, parts)[0]
    count = jnp.maximum(mean.count, 1e-8)  # of a batch without a trained token: the gradient is 0
    return jax.tree.map(lambda g: g / count, grads), metrics
