"""Pgx's games, where the extra is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs.registry import from_config, name_of
from jaxrl.spaces import Discrete
from jaxrl.types import InputError
from tests.helpers.suites import assert_steady, played

pytestmark = pytest.mark.extra("pgx")


def test_the_names_are_pgxs():
    import pgx

    from jaxrl.envs.suites.extras import pgx as adapter

    assert adapter.names() == list(pgx.available_envs())
    assert not set(adapter.names()) & set(adapter.UNAVAILABLE)


def test_all_are_traced_with_strong_and_steady_types(key):
    from jaxrl.envs.suites.extras import pgx as adapter

    for name in adapter.names():
        env = make(f"pgx/{name}")
        assert_steady(env, key)
        assert name_of(env) == f"pgx/{name}" and not env.truncates


@pytest.mark.parametrize("name", ["2048", "minatar-breakout", "minatar-asterix"])
def test_a_game_for_one_steps_as_pgxs_own_and_ends_with_the_true_successor(name, key):
    import pgx

    env, raw = make(f"pgx/{name}"), pgx.make(name)
    theirs, ends = jax.jit(raw.step), 0
    for keys, state, action, _, said in played(env, key, 200):
        own = theirs(jax.tree.map(lambda x: x[0], state), action[0], jax.random.split(keys[0])[0])
        shown = said.next_obs
        if name == "2048":
            np.testing.assert_array_equal(shown["action_mask"][0], own.legal_action_mask)
            shown = shown["observation"]
        np.testing.assert_array_equal(shown[0], own.observation)
        assert float(said.reward[0]) == float(own.rewards[0])
        assert bool(said.terminated[0]) == bool(own.terminated) and not said.truncated[0]
        ends += int(said.terminated[0])
    assert ends > 0


@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "kuhn_poker"])
def test_a_game_for_two_is_the_agents_to_move_until_it_ends(name, key):
    env = make(f"pgx/{name}")
    starts = set()
    totals = []
    for _, state, _, after, said in played(env, key, 60, num_envs=16):
        assert (state.current_player == 0).all() and not state.terminated.any()
        assert (after.terminated | (after.current_player == 0)).all()
        moved = np.asarray(after._step_count - state._step_count)
        assert set(moved) <= {1, 2}, "the agent's move, and one of the other"
        starts |= set(np.asarray(state._step_count)[np.asarray(state._step_count) < 2].tolist())
        np.testing.assert_array_equal(said.reward, after.rewards[:, 0])
        assert (np.asarray(said.reward)[~np.asarray(said.terminated)] == 0).all()
        totals += np.asarray(said.reward)[np.asarray(said.terminated)].tolist()
    assert starts == {0, 1}, "either may begin"
    assert min(totals) < 0 < max(totals)


def test_the_other_moves_evenly_among_what_is_legal(key):
    env = make("pgx/tic_tac_toe")
    state, obs = env.reset(key)
    action = jnp.argmax(obs["action_mask"])
    free = np.asarray(state.legal_action_mask).copy()
    free[action] = False
    after = jax.vmap(env.step, (0, None, None))(jax.random.split(key, 900), state, action)[0]
    taken = np.asarray(state.legal_action_mask & ~after.legal_action_mask).sum(0)
    taken[action] = 0
    expected = 900 / free.sum()
    assert (taken[~free] == 0).all() and (np.abs(taken[free] - expected) < 5 * np.sqrt(expected)).all()


def test_a_won_game_is_worth_one_and_shown_from_the_agents_side(key):
    env = make("pgx/tic_tac_toe")
    for *_, said in played(env, key, 40, num_envs=32):
        for i in np.flatnonzero(said.terminated):
            mine, others = np.moveaxis(np.asarray(said.next_obs["observation"][i]), -1, 0)
            lines = lambda x: [*x, *x.T, np.diag(x), np.diag(x[::-1])]  # noqa: E731
            won = int(any(map(np.all, lines(mine)))) - int(any(map(np.all, lines(others))))
            assert said.reward[i] == won


def test_a_time_limit_truncates(key):
    env = from_config(EnvConfig("pgx/minatar-freeway", num_envs=2, time_limit=2))
    state, _ = env.reset(key)
    for t in range(2):
        state, _, said = jax.jit(env.step)(key, state, jnp.zeros(2, jnp.int32))
        assert said.truncated.tolist() == [t == 1] * 2 and not said.terminated.any()
    assert make("pgx/minatar-freeway").time_limit == 2500


def test_options_go_to_the_constructor():
    assert make("pgx/minatar-breakout").action_space == Discrete(3)
    assert make("pgx/minatar-breakout", use_minimal_action_set=False).action_space == Discrete(6)
    assert make("pgx/minatar-breakout", sticky_action_prob=0.0).raw.sticky_action_prob == 0


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("tictactoe", {}, "unknown environment.*pgx/tic_tac_toe"),
        ("bridge_bidding", {}, "not available: it needs tables of double-dummy results"),
        ("chess", {"size": 5}, "has no option 'size'; it has none"),
        ("go_9x9", {"size": 5}, "has no option 'size'"),
    ],
)
def test_what_cannot_be_is_said(name, options, words):
    with pytest.raises(InputError, match=words):
        make(f"pgx/{name}", **options)
