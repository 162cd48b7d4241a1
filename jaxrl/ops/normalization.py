"""Running statistics for observations and rewards.

Statistics are part of the learner and are updated after the gradient steps, so that the log-probabilities of a
rollout are recomputed with the very numbers that produced them. Observations may be pytrees; their statistics have the
same structure, with None for the parts whose numbers are names.

A row that holds a number beyond 1e15, or none at all, is left out: its square would overflow float32 and leave a
variance that no later data could mend. `normalize` clips it like any other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from jaxrl.ops import shards
from jaxrl.spaces import Box, Space
from jaxrl.types import InputError, PyTree

OBS_CLIP = 10.0  # standard deviations
_LARGEST = 1e15  # the sum of a billion squares of it is still a float32


class RunningStats(NamedTuple):
    """Count, mean and variance of everything seen, per feature. Before any data: mean 0, variance 1."""

    count: Float[Array, ""]
    mean: Float[Array, "..."]
    var: Float[Array, "..."]


def init_stats(shape: tuple[int, ...]) -> RunningStats:
    """Statistics of nothing, for features of the given shape."""
    return RunningStats(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def init_obs_stats(space: Space, wanted: bool) -> PyTree:
    """Statistics for observations of a space (a pytree of them: those of its parts), or None if none are wanted.

    Raises InputError for a space without any Box of numbers: those of discrete spaces are names, and truth has no
    spread.
    """
    if not wanted:
        return None
    stats = jax.tree.map(lambda part: init_stats(part.shape) if _has_numbers(part) else None, space)
    if not jax.tree.leaves(stats):
        raise InputError(f"normalize_obs = True does not suit {space}: its numbers are names; set it to False")
    return stats


def _has_numbers(space: Space) -> bool:
    return isinstance(space, Box) and np.dtype(space.dtype) != np.bool_


def update_stats(stats: PyTree, batch: PyTree, where: Bool[Array, "..."] | None = None) -> PyTree:
    """Fold a batch (any leading axes) into the statistics: Chan, Golub & LeVeque 1979, the parallel-variance formula.

    `where`: over the leading axes, which entries count. The sums are in float32, or in float64 for such data.
    """

    def fold(stats: RunningStats | None, batch: Array) -> RunningStats | None:
        return None if stats is None else _folded(stats, batch, where)

    return jax.tree.map(fold, stats, batch, is_leaf=_is_part)


def _is_part(stats: PyTree) -> bool:
    return stats is None or isinstance(stats, RunningStats)


def _folded(stats: RunningStats, batch: Shaped[Array, "..."], where: Bool[Array, "..."] | None) -> RunningStats:
    if where is not None:
        where = where.reshape(-1, *[1] * stats.mean.ndim)
    batch = batch.reshape(-1, *stats.mean.shape)
    batch = batch.astype(jnp.promote_types(batch.dtype, jnp.float32))
    usable = jnp.all(_is_usable(batch), axis=tuple(range(1, batch.ndim)), keepdims=True)
    given = batch.shape[0] if where is None else jnp.sum(where, dtype=jnp.float32)
    count = jnp.sum(usable if where is None else usable & where, dtype=jnp.float32)
    given, count = shards.total((given, count))
    # exactly 1 where all rows are usable: then these are jnp.mean and jnp.var, to the bit. The others add nothing.
    share = given / jnp.maximum(count, 1.0)
    mean = share * shards.mean_and_variance(jnp.where(usable, batch, 0.0), where, axis=0)[0]
    var = share * shards.mean_and_variance(jnp.where(usable, batch, mean), where, axis=0)[1]
    mean, var = (jnp.where(count > 0, x, 0.0) for x in (mean, var))
    total = stats.count + count
    delta, share = mean - stats.mean, count / jnp.maximum(total, 1.0)
    new_mean = stats.mean + delta * share
    new_var = stats.var * (1 - share) + var * share + jnp.square(delta) * share * (1 - share)
    return RunningStats(total, new_mean, new_var)


def _is_usable(x: Float[Array, "*b"]) -> Bool[Array, "*b"]:
    return jnp.abs(x) <= _LARGEST  # False for NaN


def normalize(stats: PyTree, x: PyTree, clip: float = OBS_CLIP) -> PyTree:
    """(x - mean)/std clipped to ±clip; x itself where stats is None. Part by part where these are pytrees."""

    def normalized(stats: RunningStats | None, x: Any) -> Any:
        if stats is None:
            return x
        return jnp.clip((x - stats.mean) / spread(stats), -clip, clip)

    return jax.tree.map(normalized, stats, x, is_leaf=_is_part)


def spread(stats: RunningStats) -> Float[Array, "..."]:
    """The standard deviation that observations are divided by: at least 1e-4, for what never changes."""
    return jnp.sqrt(jnp.maximum(stats.var, 1e-8))


def stats_of_parts(stats: PyTree) -> list[RunningStats | None]:
    """The statistics of each part of an observation, in the order of the space's leaves; [] where there are none."""
    return [] if stats is None else jax.tree.leaves(stats, is_leaf=_is_part)


class ReturnScale(NamedTuple):
    """Scale of rewards by the spread of the running discounted return: one running return per environment."""

    running: Float[Array, " N"]
    stats: RunningStats


def init_return_scale(num_envs: int) -> ReturnScale:
    """No return seen yet in any of `num_envs` environments."""
    return ReturnScale(jnp.zeros(num_envs), init_stats(()))


def update_return_scale(
    scale: ReturnScale, reward: Float[Array, "T N"], done: Bool[Array, "T N"], gamma: float | Float[Array, ""]
) -> ReturnScale:
    """Fold a rollout in: R_t = r_t + γR_{t-1}, where R starts anew *after* an episode's last reward was counted.

    A reward beyond 1e15 is left out, of the running return as well.
    """

    def forward(running, step):
        reward, done = step
        usable = _is_usable(reward)
        running = jnp.where(usable, reward, 0.0) + gamma * running
        return jnp.where(done, 0.0, running), jnp.where(usable, running, jnp.nan)

    last, seen = jax.lax.scan(forward, scale.running, (reward, done))
    return ReturnScale(last, update_stats(scale.stats, seen))


def scale_reward(scale: ReturnScale, reward: Float[Array, "T N"], clip: float = 10.0) -> Float[Array, "T N"]:
    """r / std(R), clipped to ±clip. Not centred: shifting rewards would change the task."""
    return jnp.clip(reward / jnp.sqrt(scale.stats.var + 1e-8), -clip, clip)
