"""Starts that are not finite, and environments that cut their own episodes."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, make, train, vectorize
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.networks import actor_critic
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Step


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lottery:
    """Shows for ever the number it started with, which is NaN with probability `bad`; pays it; cut after `length`."""

    bad: jax.Array
    length: int = field(default=3, metadata={"static": True})
    time_limit = None
    observation_space = Box((1,))
    action_space = Discrete(2)

    def reset(self, key):
        k_bad, k_start = jax.random.split(key)
        start = jnp.where(jax.random.bernoulli(k_bad, self.bad), jnp.nan, jax.random.uniform(k_start, minval=0.5))
        return (start, jnp.zeros((), jnp.int32)), start[None]

    def step(self, key, state, action):
        start, elapsed = state[0], state[1] + 1
        seen = {"start": start}
        return (start, elapsed), Step(start[None], start, jnp.zeros((), bool), elapsed >= self.length, seen)


def play(env, num_steps=12):
    def step(carry, key):
        state, obs = carry
        state, shown, step = env.step(key, state, jnp.zeros(env.num_envs, jnp.int32))
        return (state, shown), (obs, step)

    keys = jax.random.split(jax.random.key(1), num_steps)
    return jax.jit(lambda: jax.lax.scan(step, env.reset(jax.random.key(0)), keys)[1])()


@pytest.mark.parametrize("resets", ["fresh", "pool"])
def test_a_start_that_is_not_finite_shows_zeros_and_its_first_step_is_invalid(resets):
    obs, step = play(vectorize(Lottery(jnp.float32(0.5)), 16, resets=resets))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((obs, step)))
    bad = obs[..., 0] == 0  # healthy starts lie between ½ and 1
    assert 0.1 < bad.mean() < 0.9 and bad[0].any() and bad[4:].any(), "at the reset, and later"
    np.testing.assert_array_equal(step.info["invalid"], bad)
    np.testing.assert_array_equal(step.terminated, bad)
    np.testing.assert_array_equal(step.reward, obs[..., 0])
    assert (step.next_obs[bad] == 0).all() and (step.info["start"][bad] == 0).all()
    np.testing.assert_array_equal(step.info["episode_length"][bad], 1)


def test_the_others_of_a_batch_never_notice():
    # the same keys, with and without bad starts elsewhere: wherever no start was bad so far, the same to the bit
    (obs, step), (healthy, expected) = (play(vectorize(Lottery(jnp.float32(p)), 64), 6) for p in (0.1, 0.0))
    never = ~step.info["invalid"].any(axis=0)
    assert 10 < never.sum() < 60
    np.testing.assert_array_equal(obs[:, never], healthy[:, never])
    np.testing.assert_array_equal(step.info["episode_return"][:, never], expected.info["episode_return"][:, never])


def test_learning_survives_bad_starts():
    config = PPO(env=EnvConfig("custom", num_envs=16), total_steps=16 * 32 * 4, num_steps=32)
    state, metrics = jax.jit(lambda k: train(config, k, env=Lottery(jnp.float32(0.1))))(jax.random.key(0))
    assert metrics["invalid_steps"].total.sum() > 0
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.learner.params))


@dataclass(frozen=True)
class Silent:
    """An environment that says whether it truncates, or (None) does not say."""

    says: bool | None
    time_limit: int | None = None
    observation_space = Box((1,))
    action_space = Discrete(2)

    def __getattr__(self, name):
        if name == "truncates" and self.says is not None:
            return self.says
        raise AttributeError(name)


@pytest.mark.parametrize(("says", "limit", "expected"), [(None, None, True), (False, None, False), (False, 5, True)])
@pytest.mark.parametrize("repeat", [1, 2])
def test_an_environment_is_believed_to_truncate_unless_it_says_that_it_does_not(says, limit, expected, repeat):
    env = vectorize(Silent(says), 1, time_limit=limit, action_repeat=repeat)
    assert env.spaces.truncates == expected
    assert isinstance(env.env, ActionRepeat) == (repeat == 2)


@pytest.mark.parametrize(("name", "limited"), [("probe/one_step", False), ("probe/constant", True)])
def test_probes_leave_the_limit_to_vectorize(name, limited):
    assert not make(name).truncates and vectorize(make(name), 2).spaces.truncates == limited


def test_the_value_of_what_is_cut_by_the_environment_itself_is_that_of_going_on():
    # pay of s for ever, γ = ½: V(s) = s/(1 - ½) = 2s. Taking the next start for the successor would find the slope 1:
    # V(s) = s + ½ E[V]
    settings = {"gamma": 0.5, "learning_rate": 1e-2, "num_steps": 32, "lr_final": 0.1, "hidden": (16,)}
    config = PPO(env=EnvConfig("custom", num_envs=16), total_steps=16 * 32 * 60, **settings)
    env = Lottery(jnp.zeros(()), 1)
    state, _ = jax.jit(lambda k: train(config, k, env=env))(jax.random.key(0))
    network = actor_critic(vectorize(env, 1).spaces, hidden=(16,))
    low, high = network.apply(state.learner.params, jnp.array([[0.5], [1.0]]))[1]
    np.testing.assert_allclose((low, high), (1.0, 2.0), rtol=0.1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Wild(Lottery):
    """A Lottery whose observations and rewards are 1e25 now and then."""

    def step(self, key, state, action):
        k_obs, k_reward = jax.random.split(key)
        state, step = super().step(key, state, action)
        huge = [jnp.where(jax.random.bernoulli(k, 0.02), 1e25, 1.0) for k in (k_obs, k_reward)]
        return state, step._replace(next_obs=step.next_obs * huge[0], reward=step.reward * huge[1])


def test_huge_observations_and_rewards_leave_normalised_learning_finite():
    settings = {"num_steps": 32, "normalize_obs": True, "normalize_return": True}
    config = PPO(env=EnvConfig("custom", num_envs=16), total_steps=16 * 32 * 4, **settings)
    state, _ = jax.jit(lambda k: train(config, k, env=Wild(jnp.zeros(()))))(jax.random.key(0))
    learner = state.learner
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(learner))
    assert 0.0 < learner.obs_stats.var[0] < 1 and learner.return_scale.stats.var < 10
