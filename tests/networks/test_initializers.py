import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import orthogonal


def gram_of_the_shorter_side(matrix):
    matrix = np.asarray(matrix, np.float64).reshape(-1, matrix.shape[-1])
    return matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T


@pytest.mark.parametrize(
    "shape", [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1), (1, 1), (64, 64), (200, 3), (3, 3, 2, 16), (2, 2, 3, 4)], ids=str
)
@pytest.mark.parametrize("scale", [1.0, 2**0.5])
def test_rows_or_columns_are_orthonormal_times_the_scale(shape, scale, key):
    matrix = orthogonal(scale)(key, shape)
    assert matrix.shape == shape and matrix.dtype == jnp.float32
    gram = gram_of_the_shorter_side(matrix)
    np.testing.assert_allclose(gram, scale**2 * np.eye(len(gram)), atol=2e-5)


def test_the_same_key_gives_the_same_matrix_and_another_key_another(key):
    init = orthogonal()
    np.testing.assert_array_equal(init(key, (6, 4)), init(key, (6, 4)))
    assert np.abs(init(key, (6, 4)) - init(jax.random.key(1), (6, 4))).max() > 0.1


def test_jit_of_vmap_equals_a_loop():
    keys = jax.random.split(jax.random.key(3), 3)
    init = lambda k: orthogonal(0.5)(k, (9, 4))  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.vmap(init))(keys), [init(k) for k in keys], atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
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
    draws = np.asarray(
        jax.jit(jax.vmap(lambda k: orthogonal()(k, shape)))(jax.random.split(jax.random.key(0), num)), np.float64
    )
    error = lambda x: np.abs(x.mean(0)) / (x.std(0) / math.sqrt(num))  # noqa: E731
    assert (error(draws) < 4).all()
    assert (error(draws**2 - 1 / n) < 4).all()
    assert (error(np.sign(np.diagonal(draws, axis1=1, axis2=2))) < 4).all()
    assert error(draws[:, 0, 0] * draws[:, 1, 1]) < 4


def test_square_draws_have_both_orientations_and_the_trace_of_a_uniform_draw():
    # det Q = ±1 evenly; E[(tr Q)²] = 1 for Haar measure on O(n)
    num = 4000
    draws = np.asarray(
        jax.jit(jax.vmap(lambda k: orthogonal()(k, (3, 3))))(jax.random.split(jax.random.key(1), num)), np.float64
    )
    assert abs(np.linalg.det(draws).mean()) < 4 / math.sqrt(num)
    squared = np.trace(draws, axis1=1, axis2=2) ** 2
    assert abs(squared.mean() - 1) < 4 * squared.std() / math.sqrt(num)
