"""Learning where the answer is known, in seconds; each probe isolates one thing that could be broken."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, make, replace, train
from jaxrl.envs.registry import from_config
from jaxrl.networks import actor_critic
from jaxrl.ops.normalization import normalize
from jaxrl.training.programs import program

SMALL = {"hidden": (16,), "learning_rate": 1e-2, "gamma": 0.9}
PPO_SMALL = PPO(
    env=EnvConfig("probe/constant", num_envs=16), total_steps=16 * 16 * 60, num_steps=16, num_epochs=4, **SMALL
)
A2C_SMALL = A2C(env=EnvConfig("probe/constant", num_envs=16), total_steps=16 * 8 * 400, num_steps=8, **SMALL)
REINFORCE_SMALL = Reinforce(
    env=EnvConfig("probe/match", num_envs=64, time_limit=1), total_steps=64 * 200, num_steps=1, **SMALL
)


def on(config, name, **changes):
    return replace(config, env=replace(config.env, name=name), **changes)


def learned_value(config, obs, env=None, seed=0):
    """V(obs) after training."""
    state, _ = jax.jit(lambda c, k: train(c, k, env=env))(config, jax.random.key(seed))
    spaces = from_config(config.env, env).spaces
    network = actor_critic(spaces, hidden=config.hidden, activation=config.activation)
    return network.apply(state.learner.params, normalize(state.learner.obs_stats, jnp.asarray(obs)))[1]


BOTH = pytest.mark.parametrize("config", [PPO_SMALL, A2C_SMALL], ids=["ppo", "a2c"])


@BOTH
@pytest.mark.device
def test_value_of_one_step_is_its_reward(config):
    np.testing.assert_allclose(learned_value(on(config, "probe/one_step"), [[0.0]]), [1.0], atol=0.02)


@BOTH
def test_value_is_discounted(config):
    np.testing.assert_allclose(learned_value(on(config, "probe/two_steps"), [[0.0], [1.0]]), [0.9, 1.0], atol=0.03)


@BOTH
@pytest.mark.device
def test_constant_reward_under_a_time_limit_is_worth_r_over_one_minus_gamma(config):
    np.testing.assert_allclose(learned_value(config, [[0.0]]), [10.0], rtol=0.02)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EndlessPay:
    """Another environment's body and observations, paying 1 at every step and never terminating."""

    env: Any
    time_limit: int | None = field(default=5, metadata={"static": True})

    @property
    def observation_space(self):
        return self.env.observation_space

    @property
    def action_space(self):
        return self.env.action_space

    def reset(self, key):
        return self.env.reset(key)

    def step(self, key, state, action):
        state, step = self.env.step(key, state, action)
        return state, step._replace(reward=jnp.ones(()), terminated=jnp.zeros((), bool))


@pytest.mark.parametrize(
    ("name", "options"), [("gymnax/Pendulum-v1", {}), ("brax/inverted_pendulum", {"backend": "spring"})]
)
def test_constant_pay_is_worth_the_same_through_every_adapter(name, options):
    env = EndlessPay(make(name, **options))
    config = replace(PPO_SMALL, env=EnvConfig("custom", num_envs=16, resets="pool"), normalize_obs=True)
    config = replace(config, total_steps=config.total_steps * 4)
    _, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(5), 32))
    # zeroing the bootstrap at the limit of 5 would give between 1 and 4.1
    np.testing.assert_allclose(learned_value(config, obs, env=env), np.full(32, 10.0), rtol=0.08)


@pytest.mark.parametrize("config", [PPO_SMALL, A2C_SMALL, REINFORCE_SMALL], ids=["ppo", "a2c", "reinforce"])
def test_the_shown_sign_is_matched(config):
    config = on(config, "probe/match")
    returns = jax.jit(jax.vmap(train, (None, 0)))(config, jax.vmap(jax.random.key)(jnp.arange(3)))[1]["episode_return"]
    assert (returns.value[:, -1] > 0.95).all(), returns.value[:, -1]
    assert (returns.value[:, 0] < 0.8).all(), "it starts at chance"


@pytest.mark.parametrize("head", ["normal", "tanh_normal"])
@pytest.mark.parametrize("config", [PPO_SMALL, A2C_SMALL, REINFORCE_SMALL], ids=["ppo", "a2c", "reinforce"])
def test_the_shown_number_is_met(config, head):
    config = on(config, "probe/target", head=head, total_steps=config.total_steps * 2)
    returns = jax.jit(jax.vmap(train, (None, 0)))(config, jax.vmap(jax.random.key)(jnp.arange(3)))[1]["episode_return"]
    first, last = returns.value[:, 0], returns.value[:, -1]
    assert (first < -0.3).all() and (last > -0.1).all(), (first, last)


def test_mistake_1_zeroing_the_bootstrap_at_time_limits_would_be_noticed(monkeypatch):
    from jaxrl.algorithms import ppo
    from jaxrl.ops import returns

    def mistaken(reward, value, next_value, terminated, truncated, gamma, lam):
        return returns.gae(reward, value, next_value, terminated | truncated, truncated, gamma, lam)

    monkeypatch.setattr(ppo, "gae", mistaken)
    assert learned_value(PPO_SMALL, [[0.0]])[0] < 8


def test_reinforce_refuses_a_rollout_shorter_than_the_episode():
    with pytest.raises(ValueError, match="num_steps = 10: REINFORCE needs complete episodes, hence at least 500"):
        train(Reinforce(num_steps=10, total_steps=1600), jax.random.key(0))
    with pytest.raises(ValueError, match=r"hence a time limit \(set env.time_limit: --time-limit\)"):
        train(on(Reinforce(num_steps=10, total_steps=1600), "probe/one_step"), jax.random.key(0))


def test_reinforce_masks_what_comes_after_the_first_end():
    config = replace(REINFORCE_SMALL, env=EnvConfig(num_envs=4, time_limit=50), num_steps=50, total_steps=200)
    p = program(config)
    _, batch = p.source.collect(jax.random.key(1), p.algorithm.init(jax.random.key(0)), ())
    done, first = np.asarray(batch.terminated | batch.truncated), np.asarray(batch.info["playing"])
    for i in range(4):
        end = done[:, i].argmax()
        np.testing.assert_array_equal(first[:, i], np.arange(50) <= end)
    learner = p.algorithm.init(jax.random.key(0))
    spoiled = batch._replace(reward=jnp.where(batch.info["playing"], batch.reward, 1e3))
    same, other = (jax.jit(p.algorithm.update)(jax.random.key(2), learner, b)[0] for b in (batch, spoiled))
    for x, y in zip(jax.tree.leaves(same.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(x, y)
