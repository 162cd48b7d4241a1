"""Environments around environments."""

from dataclasses import dataclass, field
from typing import Any

import jax

from jaxrl.envs.base import select, strong, truncates
from jaxrl.spaces import Space
from jaxrl.types import Key, PyTree, Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ActionRepeat:
    """Executes each action `repeat` times; sums rewards; stops at the end of the episode. Info is the last step's."""

    env: Any
    repeat: int = field(metadata={"static": True})

    @property
    def observation_space(self) -> Space:
        """The environment's."""
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        """The environment's."""
        return self.env.action_space

    @property
    def time_limit(self) -> int | None:
        """In actions, of which the last may be cut short; None for none."""
        return None if self.env.time_limit is None else -(-self.env.time_limit // self.repeat)

    @property
    def truncates(self) -> bool:
        """Whether the environment cuts episodes short itself."""
        return truncates(self.env)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """The environment's: (state, obs)."""
        return self.env.reset(key)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """Up to `repeat` steps of the environment: (state, Step)."""

        def again(carry, key):
            state, last = carry
            next_state, step = self.env.step(key, state, action)
            step = step._replace(reward=last.reward + step.reward)
            return strong(select(last.terminated | last.truncated, carry, (next_state, step))), None

        k_first, k_rest = jax.random.split(key)
        first = strong(self.env.step(k_first, state, action))
        return jax.lax.scan(again, first, jax.random.split(k_rest, self.repeat - 1))[0]
