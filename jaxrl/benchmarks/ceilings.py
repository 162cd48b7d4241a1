"""What the machine could do at most, measured, and the floor under the time of each arm that follows from it.

A floor is a time that no program can beat which does this work in this way: it says how much there is left to win.
Acting costs the operations that XLA counts in the policy; learning, with P parameters, 6P for each epoch (forward, and
backward twice).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.benchmarks.timing import repeats, timed


class Ceilings(NamedTuple):
    """matmul: floating-point operations per second. copy: bytes per second, read and written. scan: seconds of an empty
    scan iteration."""

    matmul: float
    copy: float
    scan: float

    def readable(self) -> dict[str, float]:
        """In the units that people use."""
        return {
            "matmul GFLOP/s": self.matmul / 1e9,
            "copy GB/s": self.copy / 1e9,
            "empty scan iteration µs": self.scan * 1e6,
        }


class Sizes(NamedTuple):
    """Of one setting. rows: of the largest matrix product. width: its largest weight matrix. acting: operations of the
    policy for one step. parameters: of the networks. epochs: of learning. stored: bytes of a transition."""

    agents: int
    num_envs: int
    rows: int
    width: tuple[int, int]
    acting: float
    parameters: int
    epochs: int
    stored: int


def measure_ceilings(sizes: Sizes, seconds: float = 0.2) -> Ceilings:
    """Measured at these sizes, each once per process. Few rows multiply no faster than many: the products of many set
    the ceiling for both, and what few fall short of it is time that could be won.
    """
    many = 2**11 if jax.default_backend() == "cpu" else 2**16
    rates = [matmul_rate(rows, *sizes.width, seconds=seconds) for rows in {many, max(many, sizes.rows)}]
    return Ceilings(max(rates), copy_rate(seconds), scan_iteration(seconds))


def floors(sizes: Sizes, c: Ceilings, physics: float) -> dict[str, float]:
    """Seconds per environment step that no arm can beat.

    physics: seconds per environment step that were measured of physics alone, which the other arms contain.
    """
    act = sizes.acting / c.matmul
    learn = 6 * sizes.parameters * sizes.epochs / c.matmul
    store = 2 * sizes.stored / c.copy  # written once, read once
    return {"acting": physics + act, "rollout": physics + act + store, "training": physics + act + learn}


@functools.cache
def matmul_rate(rows: int, n_in: int, n_out: int, *, dtype: str = "float32", seconds: float = 0.2) -> float:
    """Operations per second of x·W and back, x [rows, n_in], at JAX's default precision.

    rows are capped where activations would pass 2^28 numbers.
    """
    rows = max(1, min(rows, 2**28 // max(n_in, n_out)))
    k_x, k_w = jax.random.split(jax.random.key(0))
    x = jax.random.normal(k_x, (rows, n_in)).astype(dtype)
    w = (jax.random.normal(k_w, (n_in, n_out)) / np.sqrt(n_in)).astype(dtype)

    @jax.jit
    def chain(x: jax.Array, w: jax.Array, back: jax.Array, times: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, times, lambda _, x: (x @ w) @ back, x)

    return 4 * rows * n_in * n_out * _best(lambda n: chain(x, w, w.T, n), seconds)


@functools.cache
def copy_rate(seconds: float = 0.2) -> float:
    """Bytes per second, read and written, of adding 1 to more numbers than caches hold."""
    numbers = 2**24 if jax.default_backend() == "cpu" else 2**28
    x = jnp.zeros(numbers, jnp.float32)
    more = jax.jit(lambda x, times: jax.lax.fori_loop(0, times, lambda _, x: x + 1, x))
    return 8 * numbers * _best(lambda n: more(x, n), seconds)


@functools.cache
def scan_iteration(seconds: float = 0.2) -> float:
    """Seconds of an iteration of `lax.scan` that does next to nothing."""
    length = 1000
    xs = jnp.linspace(0.9, 1.1, length)
    scan = jax.jit(lambda x: jax.lax.scan(lambda c, x: (c * x + 0.1, None), x, xs)[0])
    repeated = jax.jit(lambda x, times: jax.lax.fori_loop(0, times, lambda _, x: scan(x), x))
    return 1 / (length * _best(lambda n: repeated(jnp.ones(()), n), seconds))


def _best(call: Callable[[int], Any], seconds: float) -> float:
    """Most iterations per second of three calls."""
    n = repeats(lambda n: call(jnp.int32(n)), seconds)
    return n / min(timed(lambda: call(jnp.int32(n))) for _ in range(3))
