"""Environments by name."""

import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs import registry


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gymnax/Cartpole-v1", "the nearest are gymnax/CartPole-v1"),
        ("brax/humanoit", "the nearest are brax/humanoid"),
        ("atari/Pong", "a suite of gymnax, brax, probe"),
        ("CartPole-v1", 'not of the form "suite/name"'),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(name)


def test_names_lists_what_works_and_unavailable_the_rest():
    names = registry.names()
    assert {"gymnax/CartPole-v1", "brax/humanoid", "probe/constant"} <= set(names)
    assert not set(names) & set(registry.unavailable())
    assert all(reason for reason in registry.unavailable().values())


def test_a_config_becomes_a_vector_env():
    env = registry.from_config(EnvConfig("gymnax/Pendulum-v1", num_envs=3, time_limit=10, action_repeat=2))
    assert (env.num_envs, env.time_limit, env.spaces.truncates) == (3, 10, True)
