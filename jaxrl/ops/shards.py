"""What the shards of one program have to tell each other.

`training.parallel` maps a program over shards, on several devices, side by side on one, or both. Each has environments,
random numbers and minibatches of its own; the learner is the same on all, because all that it learns from is added up
here. Outside such a map there is one shard, and every function here gives back what it is given.
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jaxrl.types import Key, PyTree

DEVICES, SIDE_BY_SIDE = "data", "shard"  # the mesh's axis, and the one that is mapped on each device


def _axes() -> tuple[str, ...]:
    return tuple(name for name in (DEVICES, SIDE_BY_SIDE) if _is_mapped(name))


def _is_mapped(name: str) -> bool:
    try:
        jax.lax.axis_size(name)
    except NameError:
        return False
    return True


def apart() -> bool:
    """Whether there are several."""
    return bool(_axes())


def total(tree: PyTree) -> PyTree:
    """Σ over the shards, leaf by leaf, of floats: one all-reduce, however many leaves there are."""
    if not apart():
        return tree
    flat, whole = ravel_pytree(tree)
    return whole(jax.lax.psum(flat, _axes()))


def own(key: Key) -> Key:
    """A key for this shard alone, of one that all have: the same wherever it lies."""
    return jax.random.fold_in(key, jax.lax.axis_index(_axes())) if apart() else key


def mean_and_variance(
    x: Float[Array, "..."], where: Bool[Array, "..."] | None = None, axis: int | None = None
) -> tuple[Array, Array]:
    """Of all shards' numbers, or of those selected, over all axes or one: as of one array that holds them all."""
    if not apart():
        return jnp.mean(x, axis=axis, where=where), jnp.var(x, axis=axis, where=where)
    counted = jnp.ones_like(x) if where is None else jnp.broadcast_to(where, x.shape).astype(x.dtype)

    def summed(x: Array) -> Array:
        return jnp.sum(jnp.where(counted > 0, x, 0.0), axis=axis)

    count, mean = total((summed(counted), summed(x)))
    mean = mean / count
    # In a second round: the difference of two sums of squares would lose what is small beside the mean.
    return mean, total(summed(jnp.square(x - (mean if axis is None else jnp.expand_dims(mean, axis))))) / count


def standardized(x: Float[Array, "..."], where: Bool[Array, "..."] | None = None) -> Float[Array, "..."]:
    """(x - mean)/(std + 1e-8), over all shards."""
    mean, variance = mean_and_variance(x, where)
    return (x - mean) / (jnp.sqrt(variance) + 1e-8)
