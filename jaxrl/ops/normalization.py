"""Running statistics for observations and rewards.

Statistics are part of the learner and are updated after the gradient steps, so that the log-probabilities of a
rollout are recomputed with the very numbers that produced them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl.spaces import Box, Space
from jaxrl.types import PyTree


class RunningStats(NamedTuple):
    """Count, mean and variance of everything seen, per feature. Before any data: mean 0, variance 1."""

    count: Float[Array, ""]
    mean: Float[Array, "..."]
    var: Float[Array, "..."]


def init_stats(shape: tuple[int, ...]) -> RunningStats:
    """Statistics of nothing, for features of the given shape."""
    return RunningStats(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def init_obs_stats(space: Space, wanted: bool) -> RunningStats | None:
    """Statistics for observations of a space, or None if none are wanted.

    Raises ValueError for a discrete space, whose numbers are names.
    """
    if not wanted:
        return None
    if not isinstance(space, Box):
        raise ValueError(f"normalize_obs = True does not suit {space}: its numbers are names; set it to False")
    return init_stats(space.shape)


def update_stats(
    stats: RunningStats, batch: Float[Array, "..."], where: Bool[Array, "..."] | None = None
) -> RunningStats:
    """Fold a batch (any leading axes) into the statistics: Chan, Golub & LeVeque 1979, the parallel-variance formula.

    `where`: over the leading axes, which entries count.
    """
    if where is not None:
        where = where.reshape(-1, *[1] * stats.mean.ndim)
    batch = batch.reshape(-1, *stats.mean.shape)
    count = batch.shape[0] if where is None else jnp.sum(where, dtype=jnp.float32)
    mean, var = jnp.mean(batch, axis=0, where=where), jnp.var(batch, axis=0, where=where)
    mean, var = (jnp.where(count > 0, x, 0.0) for x in (mean, var))
    total = stats.count + count
    delta, share = mean - stats.mean, count / jnp.maximum(total, 1.0)
    new_mean = stats.mean + delta * share
    new_var = stats.var * (1 - share) + var * share + jnp.square(delta) * share * (1 - share)
    return RunningStats(total, new_mean, new_var)


def normalize(stats: RunningStats | None, x: PyTree, clip: float = 10.0) -> PyTree:
    """(x - mean)/std clipped to ±clip; x itself where stats is None."""
    if stats is None:
        return x
    std = jnp.sqrt(jnp.maximum(stats.var, 1e-8))
    return jnp.clip((x - stats.mean) / std, -clip, clip)


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
    """Fold a rollout in: R_t = r_t + γR_{t-1}, where R starts anew *after* an episode's last reward was counted."""

    def forward(running, step):
        reward, done = step
        running = reward + gamma * running
        return jnp.where(done, 0.0, running), running

    last, seen = jax.lax.scan(forward, scale.running, (reward, done))
    return ReturnScale(last, update_stats(scale.stats, seen))


def scale_reward(scale: ReturnScale, reward: Float[Array, "T N"], clip: float = 10.0) -> Float[Array, "T N"]:
    """r / std(R), clipped to ±clip. Not centred: shifting rewards would change the task."""
    return jnp.clip(reward / jnp.sqrt(scale.stats.var + 1e-8), -clip, clip)
