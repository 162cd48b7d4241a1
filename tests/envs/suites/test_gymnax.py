"""The gymnax adapter: every registered environment that works, and the others with the reason."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import make, vectorize
from jaxrl.envs.suites import gymnax as adapter
from jaxrl.spaces import Box, Discrete


@pytest.mark.parametrize("name", adapter.names())
def test_every_environment_steps_with_strong_and_steady_types(name, key):
    env = vectorize(make(f"gymnax/{name}"), 2)
    action = jnp.stack([env.action_space.sample(key)] * 2)
    state, obs = jax.eval_shape(env.reset, key)
    after, shown, step = jax.eval_shape(env.step, key, state, action)
    for before, now in ((state, after), (obs, shown), (obs, step.next_obs)):
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True):
            assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
            assert not x.weak_type
    assert step.reward.dtype == jnp.float32 and step.terminated.dtype == bool
    if isinstance(env.spaces.observation, Box):
        assert obs.shape == (2, *env.spaces.observation.shape)


def test_names_and_reasons_cover_the_registry():
    assert set(adapter.names()) | set(adapter.UNAVAILABLE) == set(gymnax.registered_envs)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite is not available: it downloads"):
        make("gymnax/MNISTBandit-bsuite")


def test_spaces_are_translated():
    cartpole, pendulum = make("gymnax/CartPole-v1"), make("gymnax/Pendulum-v1")
    assert cartpole.action_space == Discrete(2)
    assert cartpole.observation_space.shape == (4,)
    assert np.isinf(cartpole.observation_space.high[1]), "gymnax writes unbounded as the largest float"
    assert pendulum.action_space.bounded and float(pendulum.action_space.high[0]) == 2.0
    assert cartpole.time_limit == 500 and pendulum.time_limit == 200


def test_time_limit_truncates_with_the_true_successor(key):
    env = vectorize(make("gymnax/Pendulum-v1"), 2, time_limit=3)
    state, obs = env.reset(key)
    for t in range(3):
        before = state.env_state
        state, obs, step = env.step(jax.random.fold_in(key, t), state, jnp.zeros((2, 1)))
    assert step.truncated.all() and not step.terminated.any()
    expected = env.env.raw.step_env(key, jax.tree.map(lambda x: x[0], before), jnp.zeros(1), env.env.params)[0]
    np.testing.assert_allclose(step.next_obs[0], expected, rtol=1e-6)
    assert not np.allclose(obs, step.next_obs)


def test_physical_parameters_are_leaves(key):
    import dataclasses

    env = make("gymnax/Pendulum-v1")
    masses = jnp.asarray([1.0, 2.0, 4.0])
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *jnp.shape(x))), env.params).replace(m=masses)
    bodies = vectorize(dataclasses.replace(env, params=params), 3, env_axis=0)
    state, _ = bodies.reset(key)
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state)
    action = jnp.ones((3, 1))
    _, _, step = bodies.step(key, same, action)
    assert len(np.unique(step.next_obs[:, 2])) == 3, "a heavier pendulum turns more slowly"
    for i in range(3):
        alone = dataclasses.replace(env, params=env.params.replace(m=masses[i]))
        single = jax.tree.map(lambda x: x[0], same.env_state)
        np.testing.assert_allclose(step.next_obs[i], alone.step(key, single, action[i])[1].next_obs, rtol=1e-6)
