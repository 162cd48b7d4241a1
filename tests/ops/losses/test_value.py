import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.ops.losses import clipped_value_loss, value_loss

VALUE = jnp.array([0.3, 2.0, -1.0, 0.45])
OLD = jnp.array([0.0, 1.0, -0.9, 0.5])
TARGET = jnp.array([1.0, -1.0, 2.0, 0.7])


def near(value, old, target):
    return clipped_value_loss(value, old, target, 0.2)


LOSSES = {"value_loss": lambda v, o, g: value_loss(v, g), "clipped_value_loss": near}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def test_value_loss_by_hand():
    # ½(3 - 1)² = 2, ½(-1 - 2)² = 4.5; the gradient is V - G
    value, target = jnp.array([3.0, -1.0]), jnp.array([1.0, 2.0])
    np.testing.assert_allclose(value_loss(value, target), [2.0, 4.5])
    np.testing.assert_allclose(jax.grad(lambda v: value_loss(v, target).sum())(value), [2.0, -3.0])


@pytest.mark.parametrize(
    ("value", "loss", "slope"),
    [
        # V_old = 0, G = 1, ε = 0.2
        (0.1, 0.405, -0.9),  # within ε of the old value: ½·0.9²
        (0.5, 0.32, 0.0),  # further towards the target than ε: held at 0.2, ½·0.8²
        (-0.5, 1.125, -1.5),  # away from the target: the full loss ½·1.5²
        (3.0, 2.0, 2.0),  # far beyond the target: the full loss ½·2²
    ],
)
def test_clipped_value_loss_by_hand(value, loss, slope):
    result, grad = jax.value_and_grad(near)(jnp.array(value), jnp.array(0.0), jnp.array(1.0))
    np.testing.assert_allclose(result, loss, rtol=1e-6)
    np.testing.assert_allclose(grad, slope, rtol=1e-6)


def test_the_clipped_loss_is_never_less_than_the_plain_one():
    value, old = (x.ravel() for x in jnp.meshgrid(jnp.linspace(-3, 3, 41), jnp.linspace(-3, 3, 41)))
    excess = near(value, old, jnp.ones_like(value)) - value_loss(value, jnp.ones_like(value))
    assert (excess >= 0).all() and (excess > 0.1).any()


def test_an_infinite_clip_gives_the_plain_loss_and_gradient():
    unclipped = lambda v: clipped_value_loss(v, OLD, TARGET, math.inf)  # noqa: E731
    np.testing.assert_allclose(unclipped(VALUE), value_loss(VALUE, TARGET), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda v: unclipped(v).sum())(VALUE), VALUE - TARGET, rtol=1e-5)


@every_loss
def test_no_gradient_reaches_the_target_or_the_old_value(loss):
    by_value, by_old, by_target = jax.grad(lambda *args: loss(*args).sum(), (0, 1, 2))(VALUE, OLD, TARGET)
    assert (by_old == 0).all() and (by_target == 0).all() and (by_value != 0).any()


@every_loss
def test_gradients_are_those_of_finite_differences(loss):
    with jax.enable_x64(True):
        old, target = jnp.asarray(OLD, float), jnp.asarray(TARGET, float)
        check_grads(jax.jit(lambda v: loss(v, old, target)), (jnp.asarray(VALUE, float),), order=1)


@every_loss
def test_float64_in_gives_float64_out(loss):
    with jax.enable_x64(True):
        out = loss(*(jnp.asarray(x, float) for x in (VALUE, OLD, TARGET)))
        assert out.dtype == jnp.float64 and out.shape == VALUE.shape


@every_loss
def test_jit_and_vmap_change_nothing(loss):
    args = (VALUE, OLD, TARGET)
    np.testing.assert_allclose(jax.jit(loss)(*args), loss(*args), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(jax.vmap(loss)(*args), loss(*args), rtol=1e-6, atol=1e-7)
