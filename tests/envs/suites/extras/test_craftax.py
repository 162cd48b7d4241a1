"""Craftax's games, where the extra is installed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs.registry import from_config, name_of
from jaxrl.types import InputError
from tests.helpers.suites import assert_steady, played

pytestmark = pytest.mark.extra("craftax")
CLASSIC = "craftax/Craftax-Classic-Symbolic-v1"


@pytest.mark.parametrize("name", ["Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1", "Craftax-Symbolic-v1"])
def test_it_is_traced_with_strong_and_steady_types(name, key):
    env = make(f"craftax/{name}")
    assert_steady(env, key)
    assert name_of(env) == f"craftax/{name}" and not env.truncates
    assert env.time_limit == (10_000 if "Classic" in name else 100_000)
    assert len(env.observation_space.shape) == (3 if "Pixels" in name else 1)


def test_steps_are_craftaxs_own_and_end_with_the_true_successor(key):
    from craftax.craftax_env import make_craftax_env_from_name

    env, raw = make(CLASSIC), make_craftax_env_from_name("Craftax-Classic-Symbolic-v1", auto_reset=False)
    theirs, params, ends = jax.jit(raw.step_env), raw.default_params, 0
    for keys, *moment, _, said in played(env, key, 300, num_envs=4):
        ended = np.flatnonzero(said.terminated)
        ends += len(ended)
        for i in {0, *ended.tolist()}:
            (state, action), ours = jax.tree.map(lambda x, i=i: x[i], (moment, said))
            obs, _, reward, done, info = theirs(keys[i], state, action, params)
            np.testing.assert_allclose(ours.next_obs, obs, atol=1e-6)
            assert float(ours.reward) == pytest.approx(float(reward), abs=1e-6)
            assert bool(ours.terminated) == bool(done) and not ours.truncated
            unlocked = {name.split("/")[1]: x / 100 for name, x in info.items() if "/" in name}
            assert not done or unlocked == ours.info
    assert ends > 0, "few live for 300 steps of chance"


def test_the_clock_truncates_and_is_no_termination(key):
    env = from_config(EnvConfig(CLASSIC, num_envs=2, options={"max_timesteps": 2}))
    assert env.time_limit == 2
    state, _ = env.reset(key)
    step = jax.jit(env.step)
    for t in range(2):
        state, _, said = step(key, state, jnp.zeros(2, jnp.int32))
        assert said.truncated.tolist() == [t == 1] * 2 and not said.terminated.any()


def test_parameters_are_leaves():
    env = make(CLASSIC, day_length=600)
    assert int(env.params.day_length) == 600 and int(make(CLASSIC).params.day_length) == 300
    assert all(isinstance(x, jax.Array) and not x.weak_type for x in jax.tree.leaves(env))
    other = dataclasses.replace(env, params=env.params.replace(zombie_health=jnp.int32(9)))
    assert jax.tree.structure(other) == jax.tree.structure(env)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"day_lenght": 5}, "has no option 'day_lenght'; did you mean 'day_length'"),
        ({"max_timesteps": 0}, "max_timesteps = 0 must be 1 or more"),
        ({"always_diamond": 3}, "always_diamond = 3 does not fit"),
    ],
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(InputError, match=words):
        make(CLASSIC, **options)
