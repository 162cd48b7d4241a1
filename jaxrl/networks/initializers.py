"""Weight initialisers."""

import functools
import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxrl.types import Key

_SMALL = 256  # matrices up to this size on each side are made together


def drawn_with(key: Key | None) -> Any:
    """The `rngs` of a layer of Flax that draws nothing but its kernel, with `key` as `nnx.Rngs(key)` would, or nothing
    at all. Not `nnx.Rngs` itself: to count what is drawn was a tenth of all tracing of a run."""
    first = None if key is None else jax.random.fold_in(key, 0)
    return SimpleNamespace(params=lambda: first)


def orthogonal(scale: float = 1.0):
    """A random matrix with orthonormal rows or columns, times `scale`. Saxe et al. 2014, arXiv 1312.6120.

    Built from Householder reflections of Gaussian vectors (Stewart 1980), uniform over the orthogonal group. In plain
    XLA: LAPACK's QR inside `jit(vmap(init))` can hang for ever on a two-core CPU, and does not batch on a GPU.
    All axes but the last count as inputs.
    """

    def init(key: Key, shape: tuple[int, ...], dtype=jnp.float32, **_) -> Float[Array, "..."]:
        rows, cols = math.prod(shape[:-1]), shape[-1]
        return (scale * orthogonal_matrices(key[None], [(rows, cols)])[0]).reshape(shape).astype(dtype)

    return init


def orthogonal_matrices(keys: Array, shapes: Sequence[tuple[int, int]]) -> list[Float[Array, "rows cols"]]:
    """A random matrix with orthonormal rows or columns for each key and shape. Small ones share a loop, in which all
    are as large as the largest: XLA compiles every loop anew, which took longer than anything else in a start.
    """

    def group(i: int) -> tuple[int, int]:
        return (0, 0) if max(shapes[i]) <= _SMALL else (max(shapes[i]), min(shapes[i]))

    made = {}
    for _, members in itertools.groupby(sorted(range(len(shapes)), key=group), group):
        members = list(members)
        sizes = tuple((max(shapes[i]), min(shapes[i])) for i in members)
        whole = _orthonormal_columns(jnp.stack([keys[i] for i in members]), sizes)
        for i, q, (m, n) in zip(members, whole, sizes, strict=True):
            made[i] = q[:m, :n] if shapes[i] == (m, n) else q[:m, :n].T
    return [made[i] for i in range(len(shapes))]


@functools.partial(jax.jit, static_argnames="sizes", inline=True)  # traced once for networks of one shape
def _orthonormal_columns(keys: Array, sizes: tuple[tuple[int, int], ...]) -> Float[Array, "L M N"]:
    """Of each [M, N] the first m rows and n columns are orthonormal, (m, n) its size; the rest means nothing."""
    M, N = (max(side) for side in zip(*sizes, strict=True))
    longest = max(m * n for m, n in sizes)
    drawn = jax.vmap(lambda key: jax.random.normal(key, (longest,)))(keys)
    parts = [x[: m * n].reshape(n, m) for x, (m, n) in zip(drawn, sizes, strict=True)]
    gaussian = jnp.stack([jnp.pad(x, ((0, N - x.shape[0]), (0, M - x.shape[1]))) for x in parts])
    row, column, num_columns = jnp.arange(M), jnp.arange(N), jnp.array([n for _, n in sizes])

    def reflect(i: ArrayLike, q: Float[Array, "M N"], n: ArrayLike, gaussian: Float[Array, "N M"]):
        k = n - 1 - i
        v = jnp.where(row < k, 0.0, gaussian[k])
        sign = jnp.where(v[k] >= 0, 1.0, -1.0)
        u = v + jnp.where(row == k, sign * jnp.linalg.norm(v), 0.0)
        reflected = q - jnp.outer(u, (2 / jnp.dot(u, u)) * (u @ q))
        # the sign that makes R's diagonal positive, hence the draw uniform
        reflected *= jnp.where(column == k, -sign, 1.0)
        return jnp.where(k < 0, q, reflected)  # a smaller matrix is done

    start = jnp.broadcast_to(jnp.eye(M, N), (len(sizes), M, N))
    together = jax.vmap(reflect, (None, 0, 0, 0))
    return jax.lax.fori_loop(0, N, lambda i, q: together(i, q, num_columns, gaussian), start)
