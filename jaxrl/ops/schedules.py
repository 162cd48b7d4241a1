"""What is shared between algorithms about time: whole numbers of updates, and schedules of the learning rate."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Scalar = float | Float[Array, ""]


def remaining(config: Any, updates_done: Int[Array, ""]) -> Float[Array, ""]:
    """Share of the run's updates still to come: 1 before the first, exactly 0 after the last.

    Counted down in integers: 1 - done/total, compiled, need not reach 0.
    """
    total = config.total_steps // (config.env.num_envs * config.num_steps)
    return (total - updates_done) / total


def linear(start: Scalar, final: Scalar, remaining: Scalar) -> Scalar:
    """From `start`, where all remains, to start·final, where nothing does, linearly."""
    return start * (final + (1 - final) * remaining)


def warmup_cosine(
    peak: Scalar, warmup: Scalar, final: Scalar, done: Int[Array, "*n"], total: int
) -> Float[Array, "*n"]:
    """Learning rate of update `done` (from 0) of `total`: linear up to `peak` over the first warmup·total updates, then
    half a cosine down to peak·final, reached after the last (Loshchilov & Hutter 2017, arXiv 1608.03983).

    The first update's rate is not 0. `peak`, `warmup` and `final` may be traced, which optax's schedule does not allow.
    """
    rising = warmup * total
    up = (done + 1) / jnp.maximum(rising, 1.0)
    share = jnp.where(done < total, jnp.clip((done - rising) / jnp.maximum(total - rising, 1e-6), 0.0, 1.0), 1.0)
    down = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * share))
    return peak * jnp.where((done + 1 < rising) & (done < total), up, down)
