"""The Bradley-Terry loss: by hand, and what it does not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.ops.losses import bradley_terry_loss

CHOSEN, REJECTED = jnp.array([1.0, 0.0, -2.0]), jnp.array([0.0, 0.0, 1.0])


def test_by_hand():
    np.testing.assert_allclose(bradley_terry_loss(CHOSEN, REJECTED), [0.3132617, 0.6931472, 3.0485873], rtol=1e-6)
    margin = bradley_terry_loss(CHOSEN, REJECTED, jnp.array([1.0, 0.0, 0.5]))
    np.testing.assert_allclose(margin, [0.6931472, 0.6931472, 3.5297512], rtol=1e-6)
    centred = bradley_terry_loss(CHOSEN, REJECTED, 0.0, 0.5) - bradley_terry_loss(CHOSEN, REJECTED)
    np.testing.assert_allclose(centred, [0.5, 0, 0.5], atol=1e-6)


def test_a_constant_added_to_both_changes_it_by_the_centring_alone():
    moved = bradley_terry_loss(CHOSEN + 5, REJECTED + 5)
    np.testing.assert_allclose(moved, bradley_terry_loss(CHOSEN, REJECTED), rtol=1e-5)
    assert jax.grad(lambda x: bradley_terry_loss(x + 1, x, 0.0, 0.1))(jnp.float32(3)) == pytest.approx(0.1 * 4 * 7)


def test_far_apart_it_is_finite():
    for value in jax.value_and_grad(bradley_terry_loss)(jnp.float32(-1e4), jnp.float32(1e4)):
        assert jnp.isfinite(value)


def test_gradients():
    check_grads(jax.jit(lambda *x: bradley_terry_loss(*x, 0.3, 0.01)), (CHOSEN, REJECTED), 2, modes=["rev"])
