"""Pictures of environments: one moment of an episode as uint8 [height, width, 3].

An environment that has a method `render(state)` is drawn by it; of gymnax's, classic control and MinAtar are drawn here
as people know them; of any other one sees the observation: a board where it is one, else its numbers over time.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.envs import registry
from jaxrl.reports.drawing.canvas import captioned
from jaxrl.reports.drawing.classic_control import STATES
from jaxrl.reports.drawing.grids import ACTIONS, MINATAR, board, channels, is_board
from jaxrl.reports.drawing.plain import lines, numbers
from jaxrl.types import InputError, PyTree


class Episode(NamedTuple):
    """One episode of T steps on the host: states and observations [T + 1], actions and rewards [T]."""

    state: PyTree
    obs: PyTree
    action: PyTree
    reward: np.ndarray


# Seconds that a step is shown for: simulated time where that is pleasant to watch, else Gymnasium's frame rate.
_SECONDS = {"gymnax/CartPole-v1": 0.02, "gymnax/Pendulum-v1": 0.05, "gymnax/Acrobot-v1": 1 / 15} | {
    "gymnax/MountainCar-v0": 1 / 30,
    "gymnax/MountainCarContinuous-v0": 1 / 30,
}
_LEAST = 240  # pixels of width, which a caption needs
_NAMES = {
    "gymnax/CartPole-v1": ("push left", "push right"),
    "gymnax/Acrobot-v1": ("torque -1", "torque 0", "torque +1"),
    "gymnax/MountainCar-v0": ("push left", "coast", "push right"),
}


def step_seconds(env: Any) -> float:
    """How long a step is shown: the environment's own `dt` if it has one, else a tenth of a second for what has no
    clock."""
    return float(getattr(env, "dt", _SECONDS.get(registry.name_of(env), 0.1)))


def picture(env: Any, episode: Episode, t: int) -> np.ndarray:
    """What there is to see after `t` steps, captioned with the step, the return so far and the action that led here."""
    name = registry.name_of(env)
    state, obs = jax.tree.map(lambda x: x[t], (episode.state, episode.obs))
    if callable(getattr(env, "render", None)):
        drawn = _checked(name, env.render(state))
    elif name in STATES:
        drawn = STATES[name](env.params, jax.tree.map(_finite, state))
    elif name in MINATAR:
        drawn = board(obs, MINATAR[name])
    elif isinstance(obs, np.ndarray) and is_board(obs):
        drawn = board(obs, channels(obs[0, 0].size))
    else:
        drawn = lines(numbers(episode.obs), t)
    told = _action(env, jax.tree.map(lambda x: x[t - 1], episode.action)) if t else ""
    return captioned(drawn, f"step {t}", f"return {episode.reward[:t].sum():.5g}", told)


def _action(env: Any, action: PyTree) -> str:
    """An action in words, where it has any; its numbers, where they are few."""
    name = registry.name_of(env)
    if name in _NAMES:
        return _NAMES[name][int(action)]
    if name in MINATAR:
        return ACTIONS[int(env.raw.action_set[int(action)])]
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(action)])
    whole = values.dtype.kind in "iub"
    return "action " + ", ".join(f"{x:d}" if whole else f"{x:+.2f}" for x in values) if len(values) <= 3 else ""


def _finite(x: np.ndarray) -> np.ndarray:
    """0 for what is not finite: a picture is no place to fail, and the caption tells."""
    return np.nan_to_num(x, posinf=0, neginf=0)


def _checked(name: str, drawn: Any) -> np.ndarray:
    drawn = np.asarray(drawn)
    if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[2] != 3:
        raise InputError(
            f"{name}.render(state) gave {drawn.dtype} of shape {list(drawn.shape)}; give uint8 [height, width, 3]"
        )
    larger = -(-_LEAST // drawn.shape[1])  # pixel art is shown in whole pixels
    return drawn.repeat(larger, 0).repeat(larger, 1)
