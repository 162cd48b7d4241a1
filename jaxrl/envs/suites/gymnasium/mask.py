"""Actions that are not allowed now, where Gymnasium's environments say so in info."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl.ops.masks import MASK
from jaxrl.types import InputError


class ShowMask(gymnasium.Wrapper):
    """Shows info["action_mask"] too: an observation is then a dict of it and of "observation", or has it beside what it
    was a dict of. For a Discrete action space. Raises InputError where info has none.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        seen, mask = env.observation_space, gymnasium.spaces.MultiBinary(int(env.action_space.n))
        parts = dict(seen) if isinstance(seen, gymnasium.spaces.Dict) else {"observation": seen}
        self.observation_space = gymnasium.spaces.Dict({**parts, MASK: mask})

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        """Gymnasium's."""
        obs, info = self.env.reset(**given)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Gymnasium's."""
        obs, *said, info = self.env.step(action)
        return self._with_mask(obs, info), *said, info

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        if MASK not in info:
            raise InputError(f"show_mask = True: {self.env} says no {MASK!r} in info; leave it out")
        mask = np.asarray(info[MASK], np.int8)
        return {**(obs if isinstance(obs, dict) else {"observation": obs}), MASK: mask}
