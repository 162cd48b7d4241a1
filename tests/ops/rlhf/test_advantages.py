"""From scores to advantages: by hand, and that padding and what stands in it change nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.rlhf import completion_gae, group_advantage, kl_estimate, rloo_advantage, token_rewards, whiten

KL = kl_estimate(jnp.array([[-1.0, -2.0, -0.5]]), jnp.array([[-1.2, -1.5, -0.5]]), "k1")
LENGTH, VALUE = jnp.array([3]), jnp.array([[0.1, 0.2, 0.3, 9.0]])
RNG = np.random.default_rng(0)


def padded(x, with_what=jnp.nan):
    return jnp.pad(x, ((0, 0), (0, 4)), constant_values=with_what)


def test_one_completion_by_hand():
    reward = token_rewards(jnp.array([1.0]), KL, LENGTH, 0.05)
    np.testing.assert_allclose(reward, [[-0.01, 0.025, 1]], atol=1e-7)
    advantage = completion_gae(reward, VALUE, LENGTH, jnp.array([True]), 1.0, 0.95)
    np.testing.assert_allclose(advantage, [[0.8405, 0.79, 0.7]], atol=1e-6)
    np.testing.assert_allclose(advantage + VALUE[:, :-1], [[0.9405, 0.99, 1]], atol=1e-6)


def test_one_that_was_cut_is_worth_what_the_critic_says_after_it():
    reward = token_rewards(jnp.array([1.0]), KL, LENGTH, 0.05)
    ended, cut = (completion_gae(reward, VALUE, LENGTH, jnp.array([x]), 0.9, 0.95) for x in (True, False))
    discount = 0.9 * 0.95
    np.testing.assert_allclose(cut - ended, 0.9 * 9.0 * np.array([[discount**2, discount, 1]]), rtol=1e-5)


@pytest.mark.parametrize("finished", [True, False])
def test_padding_and_what_stands_in_it_change_nothing(finished):
    finished = jnp.array([finished])
    reward = token_rewards(jnp.array([1.0]), KL, LENGTH, 0.05)
    wide = token_rewards(jnp.array([1.0]), padded(KL), LENGTH, 0.05)
    np.testing.assert_array_equal(wide, padded(reward, 0))
    alone = completion_gae(reward, VALUE, LENGTH, finished, 0.9, 0.95)
    beside = completion_gae(wide, padded(VALUE), LENGTH, finished, 0.9, 0.95)
    np.testing.assert_allclose(beside, padded(alone, 0), atol=1e-6)


def test_a_completion_without_tokens_has_no_reward_and_no_advantage():
    none = jnp.array([0])
    reward = token_rewards(jnp.array([1.0]), KL, none, 0.05)
    assert not reward.any()
    assert not completion_gae(reward, VALUE, none, jnp.array([False]), 1.0, 0.95).any()


def test_whitening_is_over_real_tokens_alone():
    x, real = jnp.array([[1.0, 3.0, jnp.nan], [5.0, jnp.inf, 7.0]]), jnp.array([[1, 1, 0], [1, 0, 0]], bool)
    found = whiten(x, real)
    np.testing.assert_allclose(found[real], (np.array([1, 3, 5]) - 3) / np.std([1, 3, 5]), rtol=1e-6)
    np.testing.assert_allclose(whiten(x, real, centre=False)[real], np.array([1, 3, 5]) / np.std([1, 3, 5]), rtol=1e-6)
    assert not found[~real].any()


@pytest.mark.parametrize("centre", [True, False])
def test_of_what_does_not_differ_nothing_is_learned(centre):
    assert not whiten(jnp.full((2, 3), 4.0), jnp.ones((2, 3), bool), centre).any()
    assert not whiten(jnp.ones((2, 3)), jnp.zeros((2, 3), bool), centre).any()


def test_groups_by_hand():
    score = jnp.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    away = np.array([[-2, -1, 3], [0, 0, 0]])
    np.testing.assert_allclose(group_advantage(score), away / (np.array([[7**0.5], [0]]) + 1e-4), rtol=1e-6)
    np.testing.assert_allclose(group_advantage(score, by_std=False), away, atol=1e-6)
    np.testing.assert_allclose(rloo_advantage(score), [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]], atol=1e-6)


def test_a_group_of_one():
    one = jnp.array([[3.0]])
    assert group_advantage(one) == 0 and rloo_advantage(one) == 3


def test_leave_one_out_is_the_centred_score_stretched():
    """G/(G - 1) times r - mean, so its expectation is the gradient, where that of the centred score is short of it."""
    score = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    np.testing.assert_allclose(rloo_advantage(score), 4 / 3 * group_advantage(score, by_std=False), atol=1e-5)
