import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.ops.losses import approx_kl, clipped, clipped_surrogate_loss, policy_gradient_loss

LOG_PROB = jnp.array([-0.1, -1.0, -3.0, 0.7, -0.2])
BEHAVIOUR = jnp.array([-0.15, -0.4, -3.05, 0.2, -0.9])
ADVANTAGE = jnp.array([1.5, -2.0, 0.3, -0.4, 2.0])


def surrogate(log_prob, behaviour, advantage):
    return clipped_surrogate_loss(log_prob, behaviour, advantage, 0.2)


# --- policy gradient --------------------------------------------------------------------------------------------------


def test_policy_gradient_by_hand():
    # -log π·A: -(-1)·3 = 3, -(-2)·(-0.5) = -1; the gradient is -A
    log_prob, advantage = jnp.array([-1.0, -2.0]), jnp.array([3.0, -0.5])
    np.testing.assert_allclose(policy_gradient_loss(log_prob, advantage), [3.0, -1.0])
    grad = jax.grad(lambda x: policy_gradient_loss(x, advantage).sum())(log_prob)
    np.testing.assert_allclose(grad, [-3.0, 0.5])


def test_the_policy_gradient_of_a_softmax_raises_what_did_better_than_average():
    # ∂/∂logits of -log softmax(z)₁·A is A(p - e₁): with p = (¼, ¾) and A = 2, (½, -½)
    logits = jnp.log(jnp.array([1.0, 3.0]))
    grad = jax.grad(lambda z: policy_gradient_loss(jax.nn.log_softmax(z)[1], jnp.array(2.0)))(logits)
    np.testing.assert_allclose(grad, [0.5, -0.5], rtol=1e-6)


# --- clipped surrogate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # -min(ρA, clip(ρ, 0.8, 1.2)A); where not clipped the slope in log π is -ρA
        (1.1, 2.0, -2.2, -2.2),
        (1.1, -2.0, 2.2, 2.2),
        (1.5, 2.0, -2.4, 0.0),  # good and already likelier: no more of it
        (1.5, -2.0, 3.0, 3.0),  # bad and likelier: undone at full strength
        (0.5, 2.0, -1.0, -1.0),  # good and less likely: undone at full strength
        (0.5, -2.0, 1.6, 0.0),  # bad and already less likely: no more of it
        (1.5, 0.0, 0.0, 0.0),
    ],
)
@pytest.mark.device
def test_the_clipped_surrogate_by_hand_for_each_sign_of_the_advantage(ratio, advantage, loss, slope):
    behaviour = jnp.array(-0.7)
    log_prob = behaviour + math.log(ratio)
    value, grad = jax.value_and_grad(surrogate)(log_prob, behaviour, jnp.array(advantage))
    np.testing.assert_allclose(value, loss, rtol=1e-6)
    np.testing.assert_allclose(grad, slope, rtol=1e-6)


def test_at_equal_policies_the_surrogate_has_the_policy_gradient():
    grad = jax.grad(lambda x: surrogate(x, LOG_PROB, ADVANTAGE).sum())(LOG_PROB)
    np.testing.assert_allclose(grad, jax.grad(lambda x: policy_gradient_loss(x, ADVANTAGE).sum())(LOG_PROB))


def test_the_surrogate_never_promises_more_than_the_unclipped_objective():
    log_ratio = jnp.linspace(-2, 2, 101)
    for advantage in (-1.0, 1.0):
        clipped_loss = surrogate(log_ratio, jnp.zeros(101), jnp.full(101, advantage))
        assert (clipped_loss >= -jnp.exp(log_ratio) * advantage - 1e-6).all()


def test_an_infinite_clip_leaves_the_ratio_alone():
    loss = clipped_surrogate_loss(LOG_PROB, BEHAVIOUR, ADVANTAGE, math.inf)
    np.testing.assert_allclose(loss, -jnp.exp(LOG_PROB - BEHAVIOUR) * ADVANTAGE, rtol=1e-6)


def test_a_ratio_that_overflows_has_no_gradient_where_it_is_clipped():
    grad = jax.grad(lambda x: surrogate(x, jnp.zeros(2), jnp.ones(2)).sum())(jnp.array([100.0, 0.0]))
    np.testing.assert_allclose(grad, [0.0, -1.0])


# --- what is held constant, gradients, precision ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [lambda x, b, a: policy_gradient_loss(x, a) + 0 * b, surrogate],
    ids=["policy_gradient_loss", "clipped_surrogate_loss"],
)
def test_no_gradient_reaches_behaviour_or_advantage(loss):
    by_log_prob, by_behaviour, by_advantage = jax.grad(lambda *args: loss(*args).sum(), (0, 1, 2))(
        LOG_PROB, BEHAVIOUR, ADVANTAGE
    )
    assert (by_behaviour == 0).all() and (by_advantage == 0).all() and (by_log_prob != 0).any()


LOSSES = {
    "policy_gradient_loss": lambda x, b, a: policy_gradient_loss(x, a),
    "clipped_surrogate_loss": surrogate,
    "approx_kl": lambda x, b, a: approx_kl(x, b),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
def test_gradients_are_those_of_finite_differences(loss):
    with jax.enable_x64(True):
        behaviour, advantage = jnp.asarray(BEHAVIOUR, float), jnp.asarray(ADVANTAGE, float)
        check_grads(jax.jit(lambda x: loss(x, behaviour, advantage)), (jnp.asarray(LOG_PROB, float),), order=1)


@every_loss
def test_float64_in_gives_float64_out(loss):
    with jax.enable_x64(True):
        out = loss(*(jnp.asarray(x, float) for x in (LOG_PROB, BEHAVIOUR, ADVANTAGE)))
        assert out.dtype == jnp.float64 and out.shape == LOG_PROB.shape


@every_loss
def test_jit_and_vmap_change_nothing(loss):
    args = (LOG_PROB, BEHAVIOUR, ADVANTAGE)
    np.testing.assert_allclose(jax.jit(loss)(*args), loss(*args), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(loss)(*args), loss(*args), rtol=1e-6, atol=1e-7)


# --- diagnostics ------------------------------------------------------------------------------------------------------


def test_approx_kl_by_hand():
    # ρ = 2: 1 - log 2 = 0.306853; ρ = ½: -½ + log 2 = 0.193147; ρ = 1: 0
    log_ratio = jnp.log(jnp.array([2.0, 0.5, 1.0]))
    np.testing.assert_allclose(approx_kl(log_ratio - 3, jnp.full(3, -3.0)), [0.306853, 0.193147, 0.0], atol=1e-6)


def test_approx_kl_is_unbiased():
    behaviour, policy = jnp.array([0.2, 0.3, 0.5]), jnp.array([0.6, 0.3, 0.1])
    kl = jnp.sum(behaviour * jnp.log(behaviour / policy))
    np.testing.assert_allclose(jnp.sum(behaviour * approx_kl(jnp.log(policy), jnp.log(behaviour))), kl, rtol=1e-6)


def test_approx_kl_is_never_negative_and_keeps_its_digits_where_the_ratio_is_near_one():
    size = 10.0 ** jnp.linspace(-12, 1, 2001)
    log_ratio = jnp.concatenate([-size, size])
    assert (approx_kl(log_ratio, jnp.zeros_like(log_ratio)) >= 0).all()
    np.testing.assert_allclose(approx_kl(jnp.array(1e-2), jnp.array(0.0)), 0.5e-4, rtol=1e-2)


def test_clipped_counts_ratios_outside_the_interval():
    ratio = jnp.array([0.79, 0.81, 1.0, 1.19, 1.21, 5.0])
    outside = clipped(jnp.log(ratio) - 2, jnp.full(6, -2.0), 0.2)
    np.testing.assert_array_equal(outside, [1, 0, 0, 0, 1, 1])
    assert outside.dtype == jnp.float32
