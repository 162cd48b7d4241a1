"""The Brax adapter: bodies as pytrees, the truth at episode ends, fresh starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import make, vectorize
from jaxrl.envs.suites import brax as adapter


@pytest.fixture(scope="module")
def pendulum():
    return make("brax/inverted_pendulum", backend="spring")


@pytest.mark.parametrize("name", adapter.names())
def test_every_environment_traces_with_steady_types(name, key):
    env = vectorize(make(f"brax/{name}", backend="spring"), 2, resets="pool")
    state, obs = jax.eval_shape(env.reset, key)
    after, shown, step = jax.eval_shape(env.step, key, state, jnp.zeros((2, *env.action_space.shape)))
    for x, y in zip(jax.tree.leaves((state, obs)), jax.tree.leaves((after, shown)), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
    assert obs.shape == (2, *env.spaces.observation.shape)
    assert env.spaces.truncates and env.time_limit == 1000


@pytest.mark.parametrize("backend", adapter.BACKENDS)
def test_every_backend_steps(backend, key):
    env = vectorize(make("brax/inverted_pendulum", backend=backend), 2)
    state, obs = jax.jit(env.reset)(key)
    _, obs, step = jax.jit(env.step)(key, state, jnp.ones((2, 1)))
    assert jnp.isfinite(step.next_obs).all() and (step.reward == 1).all()


def test_doubling_a_mass_changes_the_trajectory_and_a_body_in_a_batch_equals_itself_alone(pendulum, key):
    def scaled(sys, factor):
        mass = sys.link.inertia.mass * factor
        return sys.replace(link=sys.link.replace(inertia=sys.link.inertia.replace(mass=mass)))

    factors = jnp.asarray([1.0, 2.0, 3.0])
    bodies = dataclasses.replace(pendulum, sys=jax.vmap(lambda f: scaled(pendulum.sys, f))(factors))

    def roll(env, axis):
        env = vectorize(env, 3, env_axis=axis)
        state, _ = env.reset(key)

        def step(state, action):
            state, _, step = env.step(key, state, action)
            return state, step.next_obs

        return jax.lax.scan(step, state, 0.3 * jnp.ones((20, 3, 1)))[1]

    together = jax.jit(lambda env: roll(env, 0))(bodies)
    alone = jax.jit(lambda env: roll(env, None))
    for i, factor in enumerate(factors):
        single = alone(dataclasses.replace(pendulum, sys=scaled(pendulum.sys, factor)))
        np.testing.assert_allclose(together[:, i], single[:, i], rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(together[-1, 1] - alone(pendulum)[-1, 1]).max()) > 1e-2


def test_every_episode_starts_afresh_and_ends_with_its_true_successor(pendulum, key):
    env = vectorize(pendulum, 4, time_limit=5, resets="pool")

    def body(carry, t):
        state, obs = carry
        state = jax.lax.cond(
            t % 5 == 0, lambda s: env.refresh(jax.random.fold_in(key, 1000 + t), s), lambda s: s, state
        )
        state, next_obs, step = env.step(jax.random.fold_in(key, t), state, jnp.zeros((4, 1)))
        return (state, next_obs), (obs, step)

    _, (obs, steps) = jax.jit(lambda: jax.lax.scan(body, env.reset(key), jnp.arange(50)))()
    starts = np.asarray(obs)[::5].reshape(10, 4, -1)
    for i in range(4):
        assert len(np.unique(starts[:, i], axis=0)) == 10
    ends = np.asarray(steps.truncated)
    np.testing.assert_array_equal(ends.any(axis=1), np.arange(50) % 5 == 4)
    moved = np.abs(np.asarray(steps.next_obs)[4::5][:-1] - np.asarray(obs)[5::5])
    assert (moved.max(axis=-1) > 1e-4).all(), "the successor shown to the critic is not the next episode's start"


def test_make_is_cached_so_that_nothing_compiles_twice(pendulum):
    assert make("brax/inverted_pendulum", backend="spring").raw is pendulum.raw
    assert hash(jax.tree.structure(pendulum)) == hash(
        jax.tree.structure(make("brax/inverted_pendulum", backend="spring"))
    )


def test_made_inside_a_trace_it_leaks_no_tracer(key):
    jax.eval_shape(lambda: make("brax/inverted_pendulum", backend="positional").reset(key))
    jax.eval_shape(make("brax/inverted_pendulum", backend="positional").reset, key)


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="brax/fast is not available: it is a dummy"):
        make("brax/fast")
    with pytest.raises(ValueError, match="backend = 'bullet' is not one of generalized, positional, spring, mjx"):
        make("brax/ant", backend="bullet")
