"""Vectorised environments: what is shown at the end of an episode, and to whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import make, vectorize
from tests.helpers.environments import Counter


def play(env, actions, seed=0):
    """Step through actions [T, N]; returns the obs before each step and the Steps, stacked over time."""
    key = jax.random.key(seed)
    state, obs = env.reset(key)
    state = env.refresh(jax.random.fold_in(key, 1000), state)  # as rollouts do
    shown, steps = [], []
    for t, action in enumerate(actions):
        shown.append(obs)
        state, obs, step = env.step(jax.random.fold_in(key, t), state, jnp.asarray(action))
        steps.append(step)
    return np.stack(shown), jax.tree.map(lambda *x: np.stack(x), *steps)


@pytest.mark.parametrize("resets", ["fresh", "pool"])
@pytest.mark.device
def test_successor_is_true_and_next_obs_to_act_on_is_a_fresh_start(resets):
    env = vectorize(Counter(), 2, resets=resets)
    shown, steps = play(env, [[0, 0], [1, 0], [0, 0]])
    # env 0 ends at t=1: its true successor is start + 2, yet it acts next from a new start below 1
    np.testing.assert_allclose(steps.next_obs[1, 0], shown[0, 0] + 2, rtol=1e-6)
    assert shown[2, 0] < 1 and shown[2, 0] != shown[0, 0]
    np.testing.assert_allclose(shown[2, 1], shown[0, 1] + 2, rtol=1e-6)
    np.testing.assert_array_equal(steps.terminated[:, 0], [False, True, False])


def test_time_limit_truncates_and_termination_wins_over_it():
    env = vectorize(Counter(), 2, time_limit=2)
    _, steps = play(env, [[0, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(steps.truncated, [[0, 0], [1, 0], [0, 0]])
    np.testing.assert_array_equal(steps.terminated, [[0, 0], [0, 1], [0, 0]])


def test_episode_statistics_count_the_last_step_and_start_anew():
    env = vectorize(Counter(), 1, time_limit=2)
    shown, steps = play(env, [[0], [0], [0]])
    np.testing.assert_array_equal(steps.info["episode_length"][:, 0], [1, 2, 1])
    rewards = steps.reward[:, 0]
    np.testing.assert_allclose(steps.info["episode_return"][:, 0], [rewards[0], rewards[0] + rewards[1], rewards[2]])


@pytest.mark.parametrize("resets", ["fresh", "pool"])
@pytest.mark.device
def test_every_episode_starts_afresh(resets):
    env = vectorize(Counter(), 4, time_limit=1, resets=resets)
    key, starts = jax.random.key(0), []
    state, obs = env.reset(key)
    for t in range(50):
        state = env.refresh(jax.random.fold_in(key, 1000 + t), state)
        starts.append(np.asarray(obs))
        state, obs, _ = env.step(jax.random.fold_in(key, t), state, jnp.zeros(4, jnp.int32))
    starts = np.stack(starts)[..., 0]
    # fresh: 200 different starts. pool: each from a set of 4 that is drawn anew before each step, so within an
    # environment no start recurs
    for i in range(4):
        assert len(np.unique(starts[:, i])) == 50


def test_pool_holds_the_starts_between_refreshes():
    env = vectorize(Counter(), 3, time_limit=1, resets="pool")
    state, _ = env.reset(jax.random.key(0))
    pool = np.asarray(state.pool[1])
    for t in range(20):
        state, obs, _ = env.step(jax.random.key(t), state, jnp.zeros(3, jnp.int32))
        assert np.isin(obs, pool).all()
    refreshed = env.refresh(jax.random.key(99), state)
    assert not np.isin(np.asarray(refreshed.pool[1]), pool).any()


@pytest.mark.device
def test_a_broken_environment_is_contained_and_reported():
    env = vectorize(Counter(), 3)
    shown, steps = play(env, [[0, 0, 0], [0, 2, 0], [0, 0, 0]])
    healthy = play(env, [[0, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert np.isfinite(shown).all() and all(np.isfinite(x).all() for x in jax.tree.leaves(steps))
    np.testing.assert_array_equal(steps.info["invalid"], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert steps.terminated[1, 1] and steps.reward[1, 1] == 0
    np.testing.assert_array_equal(np.delete(shown, 1, axis=1), np.delete(healthy[0], 1, axis=1))


def test_bodies_differ_and_each_equals_itself_alone():
    sizes = jnp.asarray([1.0, 2.0, 3.0])
    batch = vectorize(Counter(sizes), 3, env_axis=0)
    shown, steps = play(batch, [[0, 0, 0]] * 3)
    np.testing.assert_allclose(steps.next_obs[2, :, 0] - shown[0, :, 0], 3 * sizes, rtol=1e-5)
    np.testing.assert_allclose(steps.info["size"][0], sizes)


def test_action_repeat_sums_rewards_and_stops_at_the_end():
    env = vectorize(Counter(time_limit=10), 1, action_repeat=3)
    assert env.time_limit == 4  # 10 steps of the body are covered by 4 of the agent
    shown, steps = play(env, [[0], [1]])
    s = shown[0, 0, 0]
    np.testing.assert_allclose(steps.reward[0, 0], (s + 1) + (s + 2) + (s + 3), rtol=1e-6)
    np.testing.assert_allclose(steps.reward[1, 0], s + 4, rtol=1e-6)  # the action ends it after one of three
    np.testing.assert_allclose(steps.next_obs[1, 0, 0], s + 4, rtol=1e-6)


def test_vectorised_equals_a_loop_over_single_environments():
    env = make("gymnax/CartPole-v1")
    vector = vectorize(env, 4)
    key = jax.random.key(3)
    state, obs = vector.reset(key)
    action = jnp.asarray([0, 1, 0, 1])
    k_step = jax.random.key(5)
    _, _, step = vector.step(k_step, state, action)
    keys = jax.random.split(jax.random.split(k_step)[0], 4)
    for i in range(4):
        single = jax.tree.map(lambda x, i=i: x[i], state.env_state)
        np.testing.assert_allclose(step.next_obs[i], env.step(keys[i], single, action[i])[1].next_obs, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments", [{"num_envs": 0}, {"num_envs": 1, "time_limit": 0}, {"num_envs": 1, "resets": "cached"}]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be|is not one of"):
        vectorize(Counter(), **arguments)
