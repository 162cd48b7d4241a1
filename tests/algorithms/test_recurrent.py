"""PPO and A2C with what remembers: the same update, with memory kept where it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, program, replace, train
from jaxrl.algorithms.ppo import estimate
from jaxrl.envs.registry import from_config
from jaxrl.networks import actor_critic
from jaxrl.ops.returns import gae
from jaxrl.types import InputError

SMALL = {"hidden": (16,), "learning_rate": 1e-2, "gamma": 0.9, "core_size": 16}
RECALL = EnvConfig("probe/recall", num_envs=32)
PPO_SMALL = PPO(env=RECALL, total_steps=32 * 16 * 40, num_steps=16, num_minibatches=2, core="gru", **SMALL)
A2C_SMALL = A2C(env=RECALL, total_steps=32 * 8 * 300, num_steps=8, core="gru", **SMALL)
REINFORCE_SMALL = Reinforce(
    env=replace(RECALL, time_limit=3), total_steps=32 * 3 * 200, num_steps=3, core="gru", gamma=1.0, hidden=(16,)
)
EVERY = pytest.mark.parametrize("config", [PPO_SMALL, A2C_SMALL, REINFORCE_SMALL], ids=["ppo", "a2c", "reinforce"])


def late_return(config, seed=0):
    _, metrics = jax.jit(train)(config, jax.random.key(seed))
    late = jax.tree.map(lambda x: x[-len(x) // 5 :], metrics["episode_return"])
    return float(late.total.sum() / late.count.sum())


@EVERY
def test_what_remembers_recalls_and_what_does_not_guesses(config):
    assert late_return(config) > 0.9
    plain = replace(config, core="none", core_size=128)
    assert late_return(plain) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("core", ["lstm", "linear"])
def test_every_core_learns_to_recall(core):
    assert late_return(replace(PPO_SMALL, core=core)) > 0.9


@pytest.mark.parametrize("config", [PPO_SMALL, A2C_SMALL], ids=["ppo", "a2c"])
def test_constant_reward_under_a_time_limit_is_worth_r_over_one_minus_gamma(config):
    config = replace(config, env=replace(config.env, name="probe/constant"))
    state, _ = jax.jit(train)(config, jax.random.key(0))
    p = program(config)
    _, batch = jax.jit(p.source.collect)(jax.random.key(1), state.learner, state.carry)
    network = actor_critic(constant_spaces(), hidden=(16,), core="gru", core_size=16)
    value = network.apply(state.learner.params, batch.obs, batch.first, batch.memory)[1]
    np.testing.assert_allclose(value, 10.0, rtol=0.05)


def constant_spaces():
    return from_config(EnvConfig("probe/constant", num_envs=32)).spaces


def test_the_first_ratio_is_one_whatever_was_remembered():
    # a rate of 0 leaves the policy alone: every minibatch of every epoch is the first; episodes end within rollouts
    still = replace(PPO_SMALL, learning_rate=0.0, num_steps=7, total_steps=32 * 7 * 5, init_std=1.0)
    _, metrics = jax.jit(train)(still, jax.random.key(0))
    assert np.abs(metrics["approx_kl"].value).max() < 1e-10 and metrics["clip_fraction"].total.sum() == 0


def collected(config, updates=3):
    """A program, a learner that has learned a little, and the next rollout."""
    p = program(config)
    state = jax.jit(p.init)(jax.random.key(3))
    step = jax.jit(p.step)
    for _ in range(updates):
        state, _ = step(state)
    return p, state, jax.jit(p.batch)(state)


def by_hand(network, params, batch, last_memory):
    """Values, and those of every successor, by an unbatched loop over each environment."""
    T, N = batch.reward.shape
    value, next_value = np.zeros((T, N)), np.zeros((T, N))
    one = jax.jit(lambda obs, first, memory: network.apply(params, obs, first, memory)[1:])
    for n in range(N):
        memory = jax.tree.map(lambda m, n=n: m[n : n + 1], batch.memory)
        for t in range(T):
            obs, after = batch.obs[t, n : n + 1], batch.next_obs[t, n : n + 1]
            v, memory = one(obs, batch.first[t, n : n + 1], memory)
            value[t, n], next_value[t, n] = v[0], one(after, jnp.zeros(1, bool), memory)[0][0]
        jax.tree.map(lambda a, b, n=n: np.testing.assert_allclose(a[n], b[0], atol=1e-5), last_memory, memory)
    return jnp.asarray(value), jnp.asarray(next_value)


@pytest.mark.parametrize("core", ["gru", "lstm", "linear"])
def test_values_and_advantages_are_those_of_an_unbatched_loop(core):
    # CartPole cut after 5 steps: rollouts of 12 begin within episodes, hold starts, ends of both kinds, and are cut
    cut = EnvConfig("gymnax/CartPole-v1", num_envs=3, time_limit=5, options={"x_threshold": 0.06})
    config = replace(PPO_SMALL, env=cut, num_steps=12, num_minibatches=1, total_steps=36 * 20, core=core)
    p, state, batch = collected(config)
    assert batch.terminated.sum() and batch.truncated.sum() and not batch.first[0].all()
    spaces = from_config(cut).spaces
    network = actor_critic(spaces, hidden=(16,), core=core, core_size=16)
    carry, _ = p.source.collect(jax.random.split(state.key, 3)[1], state.learner, state.carry)
    value, next_value = by_hand(network, state.learner.params, batch, carry.memory)
    samples = estimate(config, spaces, network, state.learner, batch, batch.reward)
    advantage = gae(batch.reward, value, next_value, batch.terminated, batch.truncated, config.gamma, config.gae_lambda)
    np.testing.assert_allclose(samples.value, value, atol=1e-5)
    np.testing.assert_allclose(samples.advantage, advantage, atol=1e-4)


def test_micro_batches_of_sequences_change_nothing():
    short = replace(PPO_SMALL, total_steps=32 * 16 * 2)
    whole, pieces = (jax.jit(train)(replace(short, micro_batch_size=m), jax.random.key(0))[0] for m in (None, 64))
    for a, b in zip(jax.tree.leaves(whole.learner), jax.tree.leaves(pieces.learner), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minibatches_by": "step"}, "minibatches_by = 'step' takes sequences apart.*use 'env'"),
        ({"num_minibatches": 64}, "num_envs = 32 is not divisible by num_minibatches = 64; try 32"),
        ({"micro_batch_size": 8}, "cuts sequences of num_steps = 16 apart; try 16"),
        ({"core": "none"}, "core_size = 16 is not read without a core"),
    ],
)
def test_what_does_not_go_together_is_said(changes, words):
    with pytest.raises(InputError, match=words):
        program(replace(PPO_SMALL, **changes))


def test_the_same_is_said_of_a_network_of_ones_own():
    p_network = actor_critic(constant_spaces(), hidden=(4,), core="gru", core_size=4)
    plain = replace(PPO_SMALL, core="none", core_size=128, minibatches_by="step")
    with pytest.raises(InputError, match="the network remembers; use 'env'"):
        program(plain, network=p_network)
    program(replace(plain, minibatches_by="auto"), network=p_network)
