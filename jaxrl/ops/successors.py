"""Values of the observations of a rollout, and of those that its steps lead to."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl.ops.minibatch import flatten, map_parts, rows_at_once, take
from jaxrl.ops.platform import tuning
from jaxrl.types import PyTree

_FEW = 16  # truncated steps are few if they are less than this share of all
_SMALL = 256  # of a rollout of so many steps, asking about all costs less than compiling the choice


def values(value_of: Callable[[PyTree], Float[Array, " B"]], obs: PyTree) -> Float[Array, "T N"]:
    """V(obs) of a rollout [T, N, ...], by as many rows at once as the platform likes."""
    T, N = jax.tree.leaves(obs)[0].shape[:2]
    return map_parts(value_of, flatten(obs), rows_at_once(T * N)).reshape(T, N)


def next_values(
    value_of: Callable[[PyTree], Float[Array, " B"]],
    value: Float[Array, "T N"],
    next_obs: PyTree,
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    truncates: bool = True,
) -> Float[Array, "T N"]:
    """V(next_obs) of every step of a rollout, of which most is known: while an episode goes on, the next observation
    is that of the next row. `value_of` is asked about the last row, and about the truncated steps, if these are few.

    value: V(obs). Where a step terminated the result is finite and counts for nothing. truncates: False promises that
    no step is truncated. Reverse-mode differentiable.
    """
    if truncates and (tuning().next_values == "all" or value.size <= _SMALL):
        return values(value_of, next_obs)
    last = value_of(jax.tree.map(lambda x: x[-1], next_obs))
    shifted = jnp.concatenate([value[1:], last[None]])
    if not truncates:
        return shifted
    # The last row is right already. A place past the end stands for none, and is dropped when it is written to.
    cut = (truncated & ~terminated).at[-1].set(False).reshape(-1)
    few = -(-cut.size // _FEW)

    def of_those(shifted: Array) -> Array:
        rows = jnp.nonzero(cut, size=few, fill_value=cut.size)[0]
        return shifted.reshape(-1).at[rows].set(value_of(take(flatten(next_obs), rows))).reshape(shifted.shape)

    return jax.lax.cond(jnp.sum(cut) <= few, of_those, lambda _: values(value_of, next_obs), shifted)
