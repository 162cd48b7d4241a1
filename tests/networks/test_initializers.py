import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import orthogonal
from jaxrl.networks.initializers import orthogonal_matrices


def gram_of_the_shorter_side(matrix):
    matrix = np.asarray(matrix, np.float64).reshape(-1, matrix.shape[-1])
    return matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T


@functools.cache
def drawing(shape, scale=1.0):
    """keys -> one matrix per key."""
    return jax.jit(jax.vmap(lambda key: orthogonal(scale)(key, shape)))


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((7, 3), 2**0.5),
        ((3, 7), 0.01),
        ((5, 5), 1.0),
        ((1, 4), 1.0),
        ((4, 1), 3.0),
        ((64, 64), 2**0.5),
        ((3, 3, 2, 16), 2**0.5),
        ((2, 3, 4), 1.0),
    ],
    ids=str,
)
def test_rows_or_columns_are_orthonormal_times_the_scale(shape, scale):
    for matrix in drawing(shape, scale)(jax.random.split(jax.random.key(0), 3)):
        assert matrix.shape == shape and matrix.dtype == jnp.float32
        gram = gram_of_the_shorter_side(matrix)
        np.testing.assert_allclose(gram / scale**2, np.eye(len(gram)), atol=1e-5)


def test_jit_and_vmap_change_nothing_and_every_key_draws_anew():
    keys = jax.random.split(jax.random.key(3), 3)
    mapped = drawing((7, 3), 2**0.5)(keys)
    np.testing.assert_allclose(mapped, [orthogonal(2**0.5)(k, (7, 3)) for k in keys], atol=1e-6)
    np.testing.assert_array_equal(mapped, drawing((7, 3), 2**0.5)(keys))
    assert min(np.abs(mapped[i] - mapped[j]).max() for i, j in [(0, 1), (0, 2), (1, 2)]) > 0.1


def test_matrices_made_together_are_those_made_alone():
    shapes = [(4, 64), (300, 2), (64, 64), (1, 1), (64, 2), (2, 300)]  # small and large, wide and tall
    keys = jax.random.split(jax.random.key(5), len(shapes))
    for key, shape, together in zip(keys, shapes, orthogonal_matrices(keys, shapes), strict=True):
        np.testing.assert_allclose(together, orthogonal()(key, shape), atol=1e-5)
        np.testing.assert_allclose(gram_of_the_shorter_side(together), np.eye(min(shape)), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_asked_for_dtype_is_given(dtype, key):
    assert orthogonal()(key, (4, 4), dtype).dtype == dtype


def test_float64_is_orthonormal_to_float64(key):
    with jax.enable_x64(True):
        matrix = orthogonal()(key, (6, 4), jnp.float64)
        np.testing.assert_allclose(gram_of_the_shorter_side(matrix), np.eye(4), atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4)], ids=str)
def test_draws_are_uniform_over_the_orthogonal_matrices(shape):
    # Haar: entries have mean 0 and variance 1/max(shape), either sign alike; Q and Q·diag(-1, 1, ...) are as likely
    num, n = 4000, max(shape)
    draws = np.asarray(drawing(shape)(jax.random.split(jax.random.key(0), num)), np.float64)
    error = lambda x: np.abs(x.mean(0)) / (x.std(0) / math.sqrt(num))  # noqa: E731
    assert (error(draws) < 4).all()
    assert (error(draws**2 - 1 / n) < 4).all()
    assert (error(np.sign(np.diagonal(draws, axis1=1, axis2=2))) < 4).all()
    assert error(draws[:, 0, 0] * draws[:, 1, 1]) < 4


def test_square_draws_have_both_orientations_and_the_trace_of_a_uniform_draw():
    # det Q = ±1 evenly; E[(tr Q)²] = 1 for Haar measure on O(n)
    num = 4000
    draws = np.asarray(drawing((3, 3))(jax.random.split(jax.random.key(1), num)), np.float64)
    assert abs(np.linalg.det(draws).mean()) < 4 / math.sqrt(num)
    squared = np.trace(draws, axis1=1, axis2=2) ** 2
    assert abs(squared.mean() - 1) < 4 * squared.std() / math.sqrt(num)
