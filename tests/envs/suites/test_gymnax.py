"""The gymnax adapter: every registered environment that works, and the others with the reason."""

import dataclasses

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control.cartpole import CartPole

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
        assert obs.shape == (2, *env.spaces.observation.shape) and obs.dtype == env.spaces.observation.dtype


def test_names_and_reasons_cover_the_registry():
    assert set(adapter.names()) | set(adapter.UNAVAILABLE) == set(gymnax.registered_envs)
    with pytest.raises(ValueError, match="MNISTBandit-bsuite is not available: it downloads"):
        make("gymnax/MNISTBandit-bsuite")


def test_the_table_of_games_is_gymnaxs_own():
    assert list(adapter.GAMES) == gymnax.registered_envs
    for name, place in adapter.GAMES.items():
        if name not in adapter.UNAVAILABLE:
            kind = type(gymnax.make(name)[0])
            assert f"gymnax.environments.{place}" == f"{kind.__module__}:{kind.__qualname__}"
            assert type(make(f"gymnax/{name}").raw) is kind


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


# --- changed parameters -----------------------------------------------------------------------------------------------


def with_params(env, **changes):
    return dataclasses.replace(env, params=env.params.replace(**changes))


def test_changed_parameters_change_the_spaces_and_the_limit():
    env = with_params(make("gymnax/Pendulum-v1"), max_torque=8.0, max_steps_in_episode=50)
    assert env.action_space == Box((1,), -8.0, 8.0) and env.time_limit == 50
    assert vectorize(env, 2).time_limit == 50
    assert make("gymnax/Pendulum-v1").time_limit == 200
    assert all(isinstance(x, jax.Array) and not x.weak_type for x in jax.tree.leaves(env))


def test_spaces_stay_what_they_were_through_jit_where_parameters_are_traced():
    env = with_params(make("gymnax/Pendulum-v1"), max_torque=8.0)
    seen = []
    out = jax.jit(lambda env: seen.append((env.action_space, env.time_limit)) or env)(env)
    assert seen == [(Box((1,), -8.0, 8.0), 200)]
    assert jax.tree.structure(out) == jax.tree.structure(env)
    swept = jax.vmap(lambda m: seen.append(with_params(env, max_torque=m).action_space))
    swept(jnp.arange(3.0))
    assert seen[1] == Box((1,), -8.0, 8.0), "what is swept cannot also be static"


def test_bodies_share_the_spaces_of_the_one_they_were_made_of():
    env = with_params(make("gymnax/Pendulum-v1"), max_torque=8.0)
    bodies = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), env)
    assert bodies.action_space == env.action_space and bodies.time_limit == 200
    axes = jax.tree.map(lambda _: 0, env)
    assert jax.tree.structure(axes) == jax.tree.structure(env), "a pytree of axes fits the environment it is for"


# --- an environment with a rule of its own for cutting episodes -------------------------------------------------------


class Impatient(CartPole):
    def is_truncated(self, state, params):
        return state.time >= 2


def test_a_rule_of_its_own_is_asked_and_the_common_one_left_to_vectorize(key):
    ordinary = make("gymnax/CartPole-v1")
    env = adapter.GymnaxEnv(ordinary.params, Impatient())
    assert env.truncates and not ordinary.truncates and env.time_limit == 500

    def ends(env):
        vector = vectorize(env, 1)
        state, _ = vector.reset(key)
        for t in range(3):
            state, _, step = jax.jit(vector.step)(jax.random.fold_in(key, t), state, jnp.array([t % 2]))
            yield bool(step.truncated[0])

    assert list(ends(env)) == [False, True, False] and list(ends(ordinary)) == [False, False, False]


def test_no_registered_environment_has_such_a_rule():
    assert not [name for name in adapter.names() if make(f"gymnax/{name}").truncates]
