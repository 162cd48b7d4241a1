"""Recurrent cores: from features and a memory to features and a memory, along time.

core(x, first, memory) -> (out, memories). A sequence: x [T, N, f], first [T, N], memory [N, …] as it was before the
first step; out [T, N, size] and memories [T, N, …], after each step. One step: x [N, f], first [N]; out [N, size] and
memories [N, …]. Where `first` is set the memory is taken as zero: what it holds is of another episode.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxrl.networks.initializers import drawn_with, orthogonal
from jaxrl.types import Key, Memory

CORES = ("none", "gru", "lstm", "linear")


def make_core(kind: str, features: int, size: int, key: Key) -> nnx.Module:
    """The core `kind`: "gru" (Cho et al. 2014, arXiv 1406.1078), "lstm" (Hochreiter & Schmidhuber 1997, forget gates
    biased by 1 as in Jozefowicz et al. 2015) or "linear", a diagonal linear recurrence (Orvieto et al. 2023, arXiv
    2303.06349, with real eigenvalues), whose sequences are one parallel scan.
    """
    return {"gru": GRU, "lstm": LSTM, "linear": Linear}[kind](features, size, key)


def no_memory_of(kind: str, size: int, num_envs: int) -> Memory:
    """What a core starts with: zeros."""
    zeros = jnp.zeros((num_envs, size))
    return (zeros, zeros) if kind == "lstm" else zeros


def _dense(key: Key, features: int, size: int, bias: bool = True) -> nnx.Linear:
    return nnx.Linear(features, size, use_bias=bias, kernel_init=orthogonal(), rngs=drawn_with(key))


def _recalled(memory: Memory, first: Bool[Array, " N"]) -> Memory:
    return jax.tree.map(lambda m: jnp.where(first[:, None], 0.0, m), memory)


def _along_time(step: Callable, x: Array, first: Array, memory: Memory):
    """step(memory, x) -> (memory, out) of one step, over a sequence or once."""

    def each(memory: Memory, now: tuple) -> tuple[Memory, tuple]:
        x, first = now
        memory, out = step(_recalled(memory, first), x)
        return memory, (out, memory)

    if first.ndim == 1:
        return each(memory, (x, first))[1]
    return jax.lax.scan(each, memory, (x, first))[1]


class GRU(nnx.Module):
    """Gates r, z = σ(…), candidate n = tanh(W x + r ∘ (U h + b)), h' = (1 - z) ∘ n + z ∘ h."""

    def __init__(self, features: int, size: int, key: Key):
        k_in, k_memory = jax.random.split(key)
        self.of_input, self.of_memory = _dense(k_in, features, 3 * size), _dense(k_memory, size, 3 * size)

    def __call__(self, x: Array, first: Array, memory: Memory):
        def step(h: Array, x: Array) -> tuple[Array, Array]:
            (r, z, n), (ur, uz, un) = (jnp.split(y, 3, axis=-1) for y in (x, self.of_memory(h)))
            r, z = jax.nn.sigmoid(r + ur), jax.nn.sigmoid(z + uz)
            h = (1 - z) * jnp.tanh(n + r * un) + z * h
            return h, h

        # Of all steps at once: one large product instead of T small ones.
        return _along_time(step, self.of_input(x), first, memory)


class LSTM(nnx.Module):
    """Cell c' = σ(f + 1) ∘ c + σ(i) ∘ tanh(g), output h = σ(o) ∘ tanh(c'). Memory (c, h)."""

    def __init__(self, features: int, size: int, key: Key):
        k_in, k_memory = jax.random.split(key)
        self.of_input = _dense(k_in, features, 4 * size)
        self.of_memory = _dense(k_memory, size, 4 * size, bias=False)

    def __call__(self, x: Array, first: Array, memory: Memory):
        def step(memory: tuple[Array, Array], x: Array):
            c, h = memory
            i, f, g, o = jnp.split(x + self.of_memory(h), 4, axis=-1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (c, h), h

        return _along_time(step, self.of_input(x), first, memory)


def _times(kept: Array, memory: Array) -> Array:
    return jnp.where(kept == 0, 0.0, kept * memory)  # also of what is not finite


def _both(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """h' = kept h + pushed, twice: the same form again, which makes the recurrence associative."""
    return a[0] * b[0], _times(b[0], a[1]) + b[1]


class Linear(nnx.Module):
    """h' = a ∘ h + √(1 - a²) ∘ W x with a = exp(-exp ν) in (0, 1), which forgets at rates from 2 to 1000 steps at
    first; out = (V h + b) ∘ σ(U h + c).
    """

    def __init__(self, features: int, size: int, key: Key):
        k_in, k_out, k_steps = jax.random.split(key, 3)
        steps = jnp.exp(jax.random.uniform(k_steps, (size,), minval=jnp.log(2.0), maxval=jnp.log(1000.0)))
        self.rate = nnx.Param(-jnp.log(steps))  # ν: a = exp(-1/steps)
        self.of_input, self.of_memory = _dense(k_in, features, size), _dense(k_out, size, 2 * size)

    def __call__(self, x: Array, first: Array, memory: Float[Array, "N s"]):
        decay = jnp.exp(-jnp.exp(self.rate[...]))
        pushed = jnp.sqrt(1 - jnp.square(decay)) * self.of_input(x)
        kept = jnp.where(first[..., None], 0.0, decay)
        if first.ndim == 1:
            memories = _times(kept, memory) + pushed
        else:
            pushed = pushed.at[0].add(_times(kept[0], memory))
            memories = jax.lax.associative_scan(_both, (kept, pushed))[1]
        out, gate = jnp.split(self.of_memory(memories), 2, axis=-1)
        return out * jax.nn.sigmoid(gate), memories
