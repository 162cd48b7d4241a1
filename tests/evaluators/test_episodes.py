"""Evaluation: exactly one episode per environment."""

import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, evaluate, program
from jaxrl.evaluators.episodes import figures
from jaxrl.ops.distributions import Categorical, DiagGaussian
from jaxrl.types import Algorithm, InputError
from tests.helpers.environments import Counter


def acting(policy):
    return Algorithm(init=None, update=None, policy=policy)


def always(action):
    return acting(
        lambda learner, memory, obs, first: (memory, Categorical(100.0 * jax.nn.one_hot(jnp.full(len(obs), action), 3)))
    )


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


always_cartpole = acting(lambda learner, memory, obs, first: (memory, Categorical(jnp.zeros((len(obs), 2)))))


def test_figures_by_hand():
    from jaxrl.evaluators.episodes import Evaluation

    result = Evaluation(
        jnp.array([1.0, 3.0]),
        jnp.array([10, 20]),
        {"x_velocity": jnp.array([0.5, 1.5]), "invalid": jnp.array([0.1, 0.0])},
    )
    # one of the first ten steps was invalid, and none of the twenty of the second
    wanted = {"return": 2.0, "return_std": 1.0, "episode_length": 15.0, "invalid_steps": 1 / 30, "forward_speed": 1.0}
    assert figures(result) == pytest.approx(wanted)


def test_bad_requests_are_refused(key):
    with pytest.raises(ValueError, match="is not one of mode, sample, zero, random"):
        evaluate(EnvConfig(), always(0), None, key, behaviour="best")
    with pytest.raises(ValueError, match="needs a time limit"):
        evaluate(EnvConfig("custom"), always(0), None, key, body=Counter())
    config = PPO()
    state = jax.eval_shape(program(config).init, key)
    for wrong, sentence in (
        ((config, always(0), None, key), "env is of type PPO; call evaluate.config.env, program.config..algorithm, "),
        ((config.env, config, None, key), "algorithm is of type PPO; call"),
        ((config.env, always(0), state, key), "learner is of type TrainState; call .*, state.learner, key.$"),
        ((config.env, always(0), None, 0), r"key is a number, perhaps a seed; .*state.learner, jax.random.key\(0\)\)"),
    ):
        with pytest.raises(InputError, match=sentence):
            inspect.unwrap(evaluate)(*wrong)  # without the types that tests check at every call


def test_invalid_steps_of_an_evaluation_are_counted(key):
    config = EnvConfig("custom", time_limit=4)
    healthy, broken = (figures(evaluate(config, always(a), None, key, num_episodes=8, body=Counter())) for a in (0, 2))
    assert healthy["invalid_steps"] == 0 and broken["invalid_steps"] == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_policy_may_compute_in_another_precision_than_the_space(key, dtype):
    def policy(learner, memory, obs, first):
        one = jnp.ones((len(obs), 1), dtype)
        return memory, DiagGaussian(0.5 * one, one, -one, one)

    result = evaluate(EnvConfig("gymnax/Pendulum-v1", time_limit=3), acting(policy), None, key, num_episodes=2)
    assert result.episode_return.shape == (2,)


def test_evaluation_under_x64():
    with jax.enable_x64(True):
        config = PPO(env=EnvConfig(num_envs=4), total_steps=4 * 16 * 2, num_steps=16, num_minibatches=2)
        algorithm = program(config).algorithm
        learner = algorithm.init(jax.random.key(0))
        result = evaluate(config.env, algorithm, learner, jax.random.key(0), num_episodes=4)
    assert (result.episode_length > 1).all()


class Remembering(NamedTuple):
    """A policy whose memory counts the steps of its episode, and which acts by the count: 1, the end, at the third."""

    @staticmethod
    def policy(learner, memory, obs, first):
        memory = jnp.where(first, 0, memory) + 1
        return memory, Categorical(100.0 * jax.nn.one_hot((memory == 3).astype(jnp.int32), 3))


def test_a_policy_with_memory_is_told_where_episodes_begin(key):
    algorithm = acting(Remembering.policy)._replace(memory=lambda n: jnp.full(n, 77))
    result = evaluate(EnvConfig("custom", time_limit=9), algorithm, None, key, num_episodes=8, body=Counter())
    np.testing.assert_array_equal(result.episode_length, 3)
