"""Weight initialisers."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl.types import Key


def orthogonal(scale: float = 1.0):
    """A random matrix with orthonormal rows or columns, times `scale`. Saxe et al. 2014, arXiv 1312.6120.

    Built from Householder reflections of Gaussian vectors (Stewart 1980), uniform over the orthogonal group. In plain
    XLA: LAPACK's QR inside `jit(vmap(init))` can hang for ever on a two-core CPU, and does not batch on a GPU.
    All axes but the last count as inputs.
    """

    def init(key: Key, shape: tuple[int, ...], dtype=jnp.float32, **_) -> Float[Array, "..."]:
        rows, cols = math.prod(shape[:-1]), shape[-1]
        tall = _orthonormal_columns(key, max(rows, cols), min(rows, cols))
        return (scale * (tall if rows >= cols else tall.T)).reshape(shape).astype(dtype)

    return init


def _orthonormal_columns(key: Key, m: int, n: int) -> Float[Array, "m n"]:
    gaussian = jax.random.normal(key, (n, m))

    def reflect(i, q):
        k = n - 1 - i
        v = jnp.where(jnp.arange(m) < k, 0.0, gaussian[k])
        sign = jnp.where(v[k] >= 0, 1.0, -1.0)
        u = v.at[k].add(sign * jnp.linalg.norm(v))
        q = q - jnp.outer(u, (2 / jnp.dot(u, u)) * (u @ q))
        return q.at[:, k].multiply(-sign)  # the sign that makes R's diagonal positive, hence the draw uniform

    return jax.lax.fori_loop(0, n, reflect, jnp.eye(m, n))
