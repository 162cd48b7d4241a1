"""Every environment is drawn: by its own method, as people know it, or as what it shows."""

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import make
from jaxrl.envs.suites import gymnax
from jaxrl.reports.drawing import Episode, picture, step_seconds
from jaxrl.reports.drawing.classic_control import STATES
from jaxrl.reports.drawing.grids import EMPTY, MINATAR, board
from jaxrl.reports.drawing.plain import lines
from jaxrl.types import InputError
from tests.helpers.environments import Counter

DRAWN = [*STATES, *MINATAR]


def episode_of(env, steps=4):
    """A few random steps."""
    keys = jax.random.split(jax.random.key(1), steps)
    state, obs = env.reset(jax.random.key(0))
    states, shown, actions = [state], [obs], []
    for key in keys:
        actions.append(env.action_space.sample(key))
        state, result = env.step(key, state, actions[-1])
        states, shown = [*states, state], [*shown, result.next_obs]
    state, obs, action = (jax.tree.map(lambda *x: np.stack(x), *rows) for rows in (states, shown, actions))
    return Episode(state, obs, action, np.ones(steps, np.float32))


def test_classic_control_and_minatar_are_all_drawn():
    ours = {
        f"gymnax/{name}" for name, where in gymnax.GAMES.items() if where.startswith(("classic_control", "minatar"))
    }
    assert ours == set(DRAWN)


@pytest.mark.parametrize("name", [*DRAWN, "gymnax/Catch-bsuite", "gymnax/MemoryChain-bsuite"])
def test_pictures_are_of_one_size_and_change(name):
    env = make(name)
    episode = episode_of(env)
    pictures = [picture(env, episode, t) for t in range(5)]
    assert len({p.shape for p in pictures}) == 1 and pictures[0].ndim == 3 and pictures[0].shape[2] == 3
    assert all(p.dtype == np.uint8 for p in pictures)
    drawings = [p[:-26] for p in pictures]  # without the caption, which always changes
    assert any((a != b).any() for a, b in pairwise(drawings))
    np.testing.assert_array_equal(picture(env, episode, 2), pictures[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("name", STATES)
def test_numbers_that_cannot_be_drawn_do_not_stop_a_film(name, bad):
    env = make(name)
    broken = jax.tree.map(lambda x: np.full_like(x, bad, np.float64), episode_of(env))
    broken = broken._replace(action=np.zeros((4, *env.action_space.shape), int))
    assert picture(env, broken, 1).dtype == np.uint8


def test_the_legend_names_every_channel_of_the_game():
    for name, legend in MINATAR.items():
        assert make(name).observation_space.shape == (10, 10, len(legend))
        assert len({colour for _, colour in legend}) == len(legend), "two things of one colour"


def test_a_cell_has_the_colour_of_its_channel_and_what_lies_on_it_is_seen():
    obs = np.zeros((10, 10, 2))
    obs[0, 3, 1] = obs[9, 5, 0] = obs[9, 5, 1] = 1
    red, green = (200, 0, 0), (0, 200, 0)
    drawn = board(obs, [("one", green), ("two", red)])
    middle = lambda row, column: tuple(drawn[row * 32 + 16, column * 32 + 16])  # noqa: E731
    assert (middle(0, 3), middle(9, 5), middle(5, 5)) == (red, green, EMPTY)
    assert tuple(drawn[9 * 32 + 3, 5 * 32 + 16]) == red  # around it


def test_lanes_hold_numbers_without_bounds():
    values = np.array([[0.0, np.nan, 5.0], [1.0, np.inf, 5.0]])
    assert lines(values, 1).shape == (320, 480, 3)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Painted(Counter):
    """Draws itself: a square as bright as its state."""

    dt = 0.5

    def render(self, state):
        return np.full((8, 10, 3), 100 * state[0], np.uint8)


class Wrong(Painted):
    def render(self, state):
        return jnp.zeros((8, 10, 3))


def test_an_environment_draws_itself():
    env, episode = Painted(), Episode(np.array([[0.5], [1.5]]), np.zeros((2, 1)), np.zeros(1, int), np.zeros(1))
    first, second = (picture(env, episode, t)[:-26] for t in (0, 1))
    assert (first == 50).all() and (second == 150).all()
    assert first.shape == (8 * 24, 240, 3)  # enlarged in whole pixels until a caption fits below
    assert step_seconds(env) == 0.5 and step_seconds(Counter()) == 0.1
    with pytest.raises(InputError, match=r"Wrong.render\(state\) gave float32 of shape \[8, 10, 3\]; give uint8"):
        picture(Wrong(), episode, 0)
