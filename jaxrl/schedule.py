"""What is shared between algorithms about time: whole numbers of updates, and linear annealing."""

from typing import Any

from jaxtyping import Array, Float, Int


def remaining(config: Any, updates_done: Int[Array, ""]) -> Float[Array, ""]:
    """Share of the run's updates still to come: 1 before the first, exactly 0 after the last.

    Counted down in integers: 1 - done/total, compiled, need not reach 0.
    """
    total = config.total_steps // (config.env.num_envs * config.num_steps)
    return (total - updates_done) / total


def linear(start: Float[Array, ""], final: Float[Array, ""], remaining: Float[Array, ""]) -> Float[Array, ""]:
    """From `start`, where all remains, to start·final, where nothing does, linearly."""
    return start * (final + (1 - final) * remaining)


def check_steps(config: Any) -> None:
    """Raises ValueError, naming the nearest valid numbers, unless total_steps is a whole number of rollouts."""
    rollout = config.env.num_envs * config.num_steps
    total = config.total_steps
    if total % rollout:
        below, above = total // rollout * rollout, (total // rollout + 1) * rollout
        near = f"{below} or {above}" if below else f"{above}"
        raise ValueError(f"total_steps = {total} is not a multiple of num_envs * num_steps = {rollout}; try {near}")
    if total >= 2**31:
        raise ValueError(f"total_steps = {total} does not fit the 32-bit step counter; the most is {2**31 - 1}")
