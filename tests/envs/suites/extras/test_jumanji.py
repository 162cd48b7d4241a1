"""Jumanji's environments, where the extra is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs.registry import from_config, name_of
from jaxrl.spaces import Discrete, MultiDiscrete, Spaces
from jaxrl.types import InputError
from tests.helpers.suites import assert_steady, played

pytestmark = pytest.mark.extra("jumanji")


def test_every_name_is_traced_with_strong_and_steady_types(key):
    from jumanji import registered_environments

    from jaxrl.envs.suites.extras import jumanji as adapter

    assert set(adapter.names()) | set(adapter.UNAVAILABLE) == registered_environments()
    for name in adapter.names():
        env = make(f"jumanji/{name}")
        assert_steady(env, key)
        assert name_of(env) == f"jumanji/{name}" and not env.truncates


@pytest.mark.parametrize("name", ["Snake-v1", "Knapsack-v1", "Connector-v3", "Tetris-v0"])
def test_steps_are_jumanjis_own(name, key):
    import jumanji

    env, raw = make(f"jumanji/{name}"), jumanji.make(name)
    theirs, ends, nvec = jax.jit(raw.step), 0, env.described.sizes
    for keys, *moment, _, said in played(env, key, 60, num_envs=4):
        ended = np.flatnonzero(said.terminated)
        ends += len(ended)
        for i in {0, *ended.tolist()}:
            (before, number), ours = jax.tree.map(lambda x, i=i: x[i], (moment, said))
            own = np.stack(np.unravel_index(number, nvec)).astype(np.int32) if nvec else number
            state, timestep = theirs(before.replace(key=keys[i]), jnp.asarray(own))
            assert float(ours.reward) == pytest.approx(float(jnp.sum(timestep.reward)), abs=1e-6)
            for part, shown in timestep.observation._asdict().items():
                np.testing.assert_array_equal(ours.next_obs[part], np.asarray(shown).reshape(ours.next_obs[part].shape))
            early = int(getattr(state, "step_count", 0)) < getattr(raw, "time_limit", np.inf)
            assert not early or bool(ours.terminated) == bool(timestep.last())
            assert not ours.truncated
    assert ends > 0 or name in ("Snake-v1", "Connector-v3"), "these may go on for longer where the mask is heeded"


def test_a_clock_truncates_and_is_no_termination(key):
    import jumanji

    raw = jumanji.make("Maze-v0", time_limit=3)
    env = from_config(EnvConfig("jumanji/Maze-v0", num_envs=4, options={"time_limit": 3}))
    assert env.time_limit == 3
    state, _ = env.reset(key)
    one = jax.tree.map(lambda x: x[0], state.env_state)
    step = jax.jit(env.step)
    for t in range(3):
        one, theirs = raw.step(one, jnp.int32(0))
        state, obs, said = step(key, state, jnp.zeros(4, jnp.int32))
        assert said.truncated.tolist() == [t == 2] * 4 and not said.terminated.any()
    assert theirs.last() and theirs.discount == 0, "Jumanji calls it a termination"
    np.testing.assert_array_equal(said.next_obs["step_count"], [3] * 4)
    np.testing.assert_array_equal(obs["step_count"], [0] * 4)


def test_rewards_that_fall_with_the_time_keep_their_clock(key):
    env = make("jumanji/SearchAndRescue-v0", time_limit=2)
    state, _ = env.reset(key)
    step = jax.jit(env.step)
    for t in range(2):
        state, said = step(key, state, jnp.zeros(4))
        assert bool(said.terminated) == (t == 1) and not said.truncated


def test_masks_are_of_the_action_whole_or_of_its_entries():
    for name, space, entries in (
        ("Snake-v1", Discrete(4), 4),
        ("Tetris-v0", Discrete(40), 40),
        ("Sudoku-v0", Discrete(729), 729),
        ("Connector-v3", MultiDiscrete((5,) * 10), 50),
        ("MultiCVRP-v0", MultiDiscrete((21, 21)), 42),
        ("RubiksCube-v0", MultiDiscrete((6, 1, 3)), None),
    ):
        env = make(f"jumanji/{name}")
        mask = env.observation_space.get("action_mask")
        assert env.action_space == space and (mask and mask.shape[0]) == entries
        assert Spaces(env.observation_space, env.action_space)


def test_what_a_step_draws_comes_from_its_key(key):
    env = make("jumanji/Game2048-v1")
    state, obs = env.reset(key)
    allowed = jnp.argmax(obs["action_mask"])
    boards = jax.vmap(env.step, (0, None, None))(jax.random.split(key, 64), state, allowed)[1].next_obs["board"]
    assert len(np.unique(boards.reshape(64, -1), axis=0)) > 4


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Snake-v2", {}, "unknown environment.*jumanji/Snake-v1"),
        ("Sokoban-v0", {}, "not available: it downloads its levels"),
        ("Snake-v1", {"time_limt": 5}, "has no option 'time_limt'; did you mean 'time_limit'"),
    ],
)
def test_what_cannot_be_is_said(name, options, words):
    with pytest.raises(InputError, match=words):
        make(f"jumanji/{name}", **options)
