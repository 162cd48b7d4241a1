"""Shuffled minibatches as row numbers, so that only the rows of one minibatch are ever copied."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxrl.types import Key, PyTree


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
