"""Evaluation: exactly one episode per environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import EnvConfig, evaluate
from jaxrl.evaluators.episodes import figures
from jaxrl.ops.distributions import Categorical
from tests.helpers.environments import Counter


def always(action):
    return lambda learner, memory, obs: (memory, Categorical(100.0 * jax.nn.one_hot(jnp.full(len(obs), action), 3)))


def test_return_and_length_are_those_of_one_whole_episode(key):
    # from a start s in [0, 1) the counter pays s+1, s+2, s+3, s+4 until the limit of 4
    config = EnvConfig("custom", time_limit=4)
    result = evaluate(config, always(0), None, key, num_episodes=16, body=Counter())
    np.testing.assert_array_equal(result.episode_length, 4)
    start = (result.episode_return - 10) / 4
    assert ((start >= 0) & (start < 1)).all() and len(np.unique(start)) == 16
    np.testing.assert_allclose(result.info["size"], 1.0)
    ended = evaluate(config, always(1), None, key, num_episodes=16, body=Counter())
    np.testing.assert_array_equal(ended.episode_length, 1)


def test_behaviours_are_the_mode_a_sample_the_zero_action_and_random_ones(key):
    config = EnvConfig("custom", time_limit=4)
    policy = always(1)
    lengths = {
        name: evaluate(config, policy, None, key, num_episodes=64, body=Counter(), behaviour=name).episode_length
        for name in ("mode", "sample", "zero", "random")
    }
    assert (lengths["mode"] == 1).all() and (lengths["sample"] == 1).all() and (lengths["zero"] == 4).all()
    assert 1 < lengths["random"].mean() < 4


def test_same_key_same_numbers_and_one_program_for_all_behaviours(key):
    play = jax.jit(
        lambda b: evaluate(EnvConfig(time_limit=30), always_cartpole, None, key, num_episodes=8, behaviour=b)
    )
    assert (play(0).episode_return == play(0).episode_return).all()
    for behaviour in range(4):
        play(behaviour)
    assert play._cache_size() == 1


def always_cartpole(learner, memory, obs):
    return memory, Categorical(jnp.zeros((len(obs), 2)))


def test_figures_by_hand():
    from jaxrl.evaluators.episodes import Evaluation

    result = Evaluation(jnp.array([1.0, 3.0]), jnp.array([10, 20]), {"x_velocity": jnp.array([0.5, 1.5])})
    wanted = {"return": 2.0, "return_std": 1.0, "episode_length": 15.0, "episodes": 2, "forward_speed": 1.0}
    assert figures(result) == wanted


def test_bad_requests_are_refused(key):
    with pytest.raises(ValueError, match="is not one of mode, sample, zero, random"):
        evaluate(EnvConfig(), always(0), None, key, behaviour="best")
    with pytest.raises(ValueError, match="needs a time limit"):
        evaluate(EnvConfig("custom"), always(0), None, key, body=Counter())
