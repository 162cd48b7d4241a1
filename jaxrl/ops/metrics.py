"""Metrics leave a compiled program as (sum, count): they add up over minibatches, updates, chunks and devices,
and "no episode ended" is a count of zero rather than a return of zero.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from jaxrl.ops import shards
from jaxrl.types import Metrics, PyTree, Transition


class Mean(NamedTuple):
    """A mean on its way: total / count, elementwise where stacked."""

    total: Float[Array, "*s"]
    count: Float[Array, "*s"]

    @property
    def value(self) -> ArrayLike:
        """total / count; NaN where nothing was counted. NumPy's where they were brought to the host."""
        return self.total / self.count


@partial(jax.tree_util.register_dataclass, data_fields=["sums"], meta_fields=["names"])
@dataclass(frozen=True)
class Packed:
    """Metrics as one array, sums [*s, names, 2]: in a loop dozens of numbers are moved as one."""

    names: tuple[str, ...]
    sums: Float[Array, "*s n 2"]


def mean(values: Array, where: Bool[Array, "..."] | None = None) -> Mean:
    """Sum and count of all values, or of those selected."""
    values = jnp.asarray(values)
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    if where is None:
        return Mean(jnp.sum(values), jnp.asarray(values.size, values.dtype))
    return Mean(jnp.sum(jnp.where(where, values, 0.0)), jnp.sum(where, dtype=values.dtype))


def ratio(total: Array, count: Array, where: Bool[Array, "..."]) -> Mean:
    """Σ total / Σ count of the rows selected: per token, where rows hold sums over tokens and numbers of them."""
    return Mean(mean(total, where).total, mean(count, where).total)


def add(a: Metrics | Packed, b: Metrics | Packed) -> Metrics | Packed:
    """Metrics over both."""
    return jax.tree.map(jnp.add, a, b)


def total(metrics: Metrics | Packed) -> Metrics | Packed:
    """Metrics over the leading axis: minibatches of an update, or updates of a run."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)


def pack(metrics: Metrics) -> Packed:
    """Of single numbers, as they are after an update."""
    totals, counts = [mean.total for mean in metrics.values()], [mean.count for mean in metrics.values()]
    return Packed(tuple(metrics), jnp.array([totals, counts], dtype=float).T)


def unpack(packed: Packed) -> Metrics:
    """What was packed."""
    return {name: Mean(packed.sums[..., i, 0], packed.sums[..., i, 1]) for i, name in enumerate(packed.names)}


def values(metrics: Metrics) -> dict[str, Any]:
    """name -> total / count, for every metric."""
    return {name: metric.value for name, metric in metrics.items()}


def episode_metrics(batch: Transition, where: Bool[Array, "T N"] | None = None) -> dict[str, Mean]:
    """Return and length of the episodes that ended in a rollout, and the share of steps that gave non-finite numbers.

    `where`: the steps that count; all by default.
    """
    done = batch.terminated | batch.truncated
    ended = done if where is None else done & where
    return {
        "episode_return": mean(batch.info["episode_return"], ended),
        "episode_length": mean(batch.info["episode_length"], ended),
        "invalid_steps": mean(batch.info["invalid"], where),
    }


def grad_norm(grads: PyTree) -> Mean:
    """Their global norm, taken of one vector as `optax.flatten` makes it, so that XLA makes it once."""
    return mean(jnp.linalg.norm(ravel_pytree(grads)[0]))


def explained_variance(
    value: Float[Array, "*b"], target: Float[Array, "*b"], where: Bool[Array, "*b"] | None = None
) -> Mean:
    """1 - Var[G - V]/Var[G]: 1 is perfect, 0 no better than a constant. 0 for a constant target. where: those that
    count; all by default."""
    variance, left = (shards.mean_and_variance(x, where)[1] for x in (target, target - value))
    explained = 1 - left / jnp.where(variance > 0, variance, 1.0)
    return mean(jnp.where(variance > 0, explained, 0.0))
