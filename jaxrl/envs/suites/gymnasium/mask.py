"""Actions that are not allowed now, where Gymnasium's environments say so in info."""

from typing import Any

import gymnasium
import numpy as np

from jaxrl.ops.masks import MASK
from jaxrl.types import InputError


class ShowMask(gymnasium.Wrapper):
    """Shows info["action_mask"] too, or what the environment's own `action_masks()` gives where info has none: an
    observation is then a dict of it and of "observation", or has it beside what it was a dict of. A MultiDiscrete space
    has the masks of its entries in turn, or one array for each, as its `sample` takes them.

    Raises InputError for other spaces, where there is no mask, and for one of another length.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space, seen = env.action_space, env.observation_space
        if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
            raise InputError(f"show_mask = True: actions of {space} have no mask; leave it out")
        self._choices = int(space.nvec.sum() if isinstance(space, gymnasium.spaces.MultiDiscrete) else space.n)
        parts = dict(seen) if isinstance(seen, gymnasium.spaces.Dict) else {"observation": seen}
        self.observation_space = gymnasium.spaces.Dict({**parts, MASK: gymnasium.spaces.MultiBinary(self._choices)})

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        """Gymnasium's."""
        obs, info = self.env.reset(**given)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Gymnasium's."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(obs, info), reward, terminated, truncated, info

    def _with_mask(self, obs: Any, info: dict[str, Any]) -> dict[str, Any]:
        if MASK not in info and not self.env.has_wrapper_attr("action_masks"):
            raise InputError(
                f"show_mask = True: {self.env} says no {MASK!r} in info, nor has it action_masks(); leave it out"
            )
        said = info[MASK] if MASK in info else self.env.get_wrapper_attr("action_masks")()
        mask = np.concatenate([np.ravel(part) for part in said]).astype(np.int8)
        if len(mask) != self._choices:
            raise InputError(
                f"a mask of {len(mask)} for actions of {self.env.action_space}, which are {self._choices} choices; "
                "give one entry for each"
            )
        return {**(obs if isinstance(obs, dict) else {"observation": obs}), MASK: mask}
