"""One reset and one step of an environment of Gymnasium's kind, before anything is compiled: Gymnasium's own vector
environment would fail on what they give in words of its inside, once all else is ready.
"""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from jaxrl.ops.masks import MASK, has_mask
from jaxrl.types import InputError


def check_once(env: gymnasium.Env, name: str) -> None:
    """Raises InputError where they fail, or give something else than Gymnasium wants."""
    obs, info = _given(f"{name} cannot be reset", "reset(seed=0)", "(observation, info)", lambda: env.reset(seed=0))
    _check_shown(env, obs, f"{name}: reset(seed=0)")
    if MASK in info or has_mask(obs):
        return  # it may refuse an action that is drawn at random
    env.action_space.seed(0)
    action, wanted = env.action_space.sample(), "(observation, reward, terminated, truncated, info)"
    obs, reward, *_ = _given(f"{name} cannot be stepped", "step(action)", wanted, lambda: env.step(action))
    _check_shown(env, obs, f"{name}: step(action)")
    if np.size(reward) != 1:  # an array of one is a number to Gymnasium too
        raise InputError(f"{name}: step(action) gives a reward of shape {np.shape(reward)}; it must be one number")


def _given(fault: str, call: str, wanted: str, ask: Callable[[], Any]) -> tuple:
    try:
        given = ask()
    except Exception as error:  # whatever the code of somebody else raises
        raise InputError(
            f"{fault} ({type(error).__name__}: {error}); it is asked as {call}, and has to give {wanted}"
        ) from error
    if isinstance(given, tuple) and len(given) == wanted.count(",") + 1 and isinstance(given[-1], dict):
        return given
    what = f"a tuple of {len(given)}" if isinstance(given, tuple) else type(given).__name__
    raise InputError(f"{fault}: {call} gives {what} and not {wanted}, as Gymnasium wants it; info may be {{}}")


def _check_shown(env: gymnasium.Env, obs: Any, who: str) -> None:
    space = env.observation_space
    try:
        concatenate(space, [obs], create_empty_array(space, 1))
    except Exception as error:  # of many kinds, as is what does not fit
        shape = f" of shape {np.shape(obs)}" if isinstance(obs, np.ndarray | list) else ""
        raise InputError(
            f"{who} shows a {type(obs).__name__}{shape}, which does not fit observation_space = {space} "
            f"({type(error).__name__}: {error}); correct one of the two"
        ) from error
