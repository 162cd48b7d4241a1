"""Estimates of a KL, and the controller that holds it: by hand, and against distributions that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.rlhf import KL_ESTIMATES, adapted, kl_estimate

LOG_PROB, REF = jnp.array([-1.0, -2.0, -0.5]), jnp.array([-1.2, -1.5, -0.5])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("k1", [0.2, -0.5, 0]), ("k2", [0.02, 0.125, 0]), ("k3", [0.0187307531, 0.1487212707, 0])],
)
def test_estimates_by_hand(kind, expected):
    np.testing.assert_allclose(kl_estimate(LOG_PROB, REF, kind), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KL_ESTIMATES)
def test_their_means_are_the_kl_where_they_are_unbiased(kind):
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    mean = np.sum(p * kl_estimate(jnp.log(p), jnp.log(q), kind))
    kl = np.sum(p * np.log(p / q))
    assert (mean == pytest.approx(kl, abs=1e-6)) == (kind != "k2")


def test_the_gradient_of_k2_is_that_of_the_kl():
    """In expectation over what π says; that of k1 is zero, and that of k3 is the KL the other way round."""
    logits, q = jnp.array([0.3, -0.2, 0.5]), jnp.array([0.2, 0.5, 0.3])

    def mean(kind):
        p = jax.nn.softmax(logits)  # who draws, held constant
        return lambda x: jnp.sum(p * kl_estimate(jax.nn.log_softmax(x), jnp.log(q), kind))

    def kl(x):
        p = jax.nn.softmax(x)
        return jnp.sum(p * (jnp.log(p) - jnp.log(q)))

    def reverse(x):
        return jnp.sum(q * (jnp.log(q) - jax.nn.log_softmax(x)))

    np.testing.assert_allclose(jax.grad(mean("k2"))(logits), jax.grad(kl)(logits), atol=1e-6)
    np.testing.assert_allclose(jax.grad(mean("k1"))(logits), 0, atol=1e-6)
    np.testing.assert_allclose(jax.grad(mean("k3"))(logits), jax.grad(reverse)(logits), atol=1e-6)


@pytest.mark.parametrize("kind", KL_ESTIMATES)
def test_far_apart_they_stay_finite_with_their_gradients(kind):
    for value in jax.value_and_grad(lambda x: kl_estimate(x, jnp.float32(0), kind))(jnp.float32(-500)):
        assert jnp.isfinite(value)


def test_the_controller_by_hand():
    coef = jnp.float32(0.2)
    for kl, expected in [(9.0, 0.201024), (4.0, 0.1999947571), (6.1, 0.2000800882)]:
        coef = adapted(coef, jnp.float32(kl), 6.0, 256, 10_000.0)
        assert float(coef) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kl", [jnp.nan, jnp.inf])
def test_what_is_not_finite_moves_no_controller(kl):
    assert float(adapted(jnp.float32(0.2), jnp.float32(kl), 6.0, 256, 10_000.0)) == pytest.approx(0.2)
