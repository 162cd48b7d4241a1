"""What is shared between algorithms about time: how many updates a run has, and linear annealing."""

from typing import Any

from jaxtyping import Array, Float


def num_updates(config: Any, num_steps: int) -> int:
    """Updates of a run: total_steps / (num_envs · num_steps), which `check_steps` has found to be whole."""
    return config.total_steps // (config.env.num_envs * num_steps)


def linear(start: Float[Array, ""], final: Float[Array, ""], progress: Float[Array, ""]) -> Float[Array, ""]:
    """start at progress 0, start·final at progress 1, linear between: exactly 0 at the end where final is 0."""
    return start * (1 - progress * (1 - final))


def check_steps(config: Any, num_steps: int) -> None:
    """Raises ValueError, naming the nearest valid numbers, unless total_steps is a whole number of rollouts."""
    rollout = config.env.num_envs * num_steps
    total = config.total_steps
    if total % rollout:
        below, above = total // rollout * rollout, (total // rollout + 1) * rollout
        near = f"{below} or {above}" if below else f"{above}"
        raise ValueError(f"total_steps = {total} is not a multiple of num_envs * num_steps = {rollout}; try {near}")
    if total >= 2**31:
        raise ValueError(f"total_steps = {total} does not fit the 32-bit step counter; the most is {2**31 - 1}")
