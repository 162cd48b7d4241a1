"""What remembers: the arithmetic of its cores, and that memory is kept, reset and looked ahead with as it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import actor_critic, successor_values
from jaxrl.networks.recurrent import make_core, no_memory_of
from jaxrl.spaces import Box, Discrete, Spaces

CORES = ("gru", "lstm", "linear")
T, N, F, SIZE = 7, 3, 4, 5
every_core = pytest.mark.parametrize("kind", CORES)


def made(kind, key):
    core = make_core(kind, F, SIZE, key)
    k_x, k_first, k_memory = jax.random.split(key, 3)
    x, first = jax.random.normal(k_x, (T, N, F)), jax.random.bernoulli(k_first, 0.3, (T, N))
    start = no_memory_of(kind, SIZE, N)
    return core, x, first, jax.tree.map(lambda m: m + jax.random.normal(k_memory, m.shape), start)


@every_core
def test_a_sequence_equals_an_unbatched_loop_that_forgets_at_every_start(kind, key):
    core, x, first, memory = made(kind, key)
    out, memories = core(x, first, memory)
    for n in range(N):
        kept = jax.tree.map(lambda m, n=n: m[n : n + 1], memory)
        for t in range(T):
            if first[t, n]:
                kept = jax.tree.map(jnp.zeros_like, kept)
            alone, kept = core(x[t, n : n + 1], jnp.zeros(1, bool), kept)
            np.testing.assert_allclose(out[t, n], alone[0], atol=2e-6)
            jax.tree.map(lambda a, b, t=t, n=n: np.testing.assert_allclose(a[t, n], b[0], atol=2e-6), memories, kept)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", ["gru", "lstm", "linear"])
def test_a_step_is_that_of_the_paper(kind, key):
    core, x, _, memory = made(kind, key)
    out, after = core(x[0], jnp.zeros(N, bool), memory)
    x = np.asarray(x[0])
    w, b = np.asarray(core.of_input.kernel[...]), np.asarray(core.of_input.bias[...])
    u = np.asarray(core.of_memory.kernel[...])
    if kind == "gru":
        h = np.asarray(memory)
        (xr, xz, xn), (ur, uz, un) = np.split(x @ w + b, 3, -1), np.split(h @ u, 3, -1)
        r, z = sigmoid(xr + ur), sigmoid(xz + uz)
        np.testing.assert_allclose(after, (1 - z) * np.tanh(xn + r * un) + z * h, atol=1e-5)
        np.testing.assert_array_equal(out, after)
    if kind == "lstm":
        c, h = map(np.asarray, memory)
        i, f, g, o = np.split(x @ w + b + h @ u, 4, -1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        np.testing.assert_allclose(after[0], c, atol=1e-5)
        np.testing.assert_allclose(out, sigmoid(o) * np.tanh(c), atol=1e-5)
    if kind == "linear":
        a = np.exp(-np.exp(np.asarray(core.rate[...])))
        assert np.all((a > np.exp(-1 / 2) - 1e-6) & (a < np.exp(-1 / 1000) + 1e-6))
        h = a * np.asarray(memory) + np.sqrt(1 - a**2) * (x @ w + b)
        np.testing.assert_allclose(after, h, atol=1e-5)
        v, gate = np.split(h @ u, 2, -1)
        np.testing.assert_allclose(out, v * sigmoid(gate), atol=1e-5)


@every_core
def test_a_nan_before_a_start_does_not_reach_it(kind, key):
    core, x, _, memory = made(kind, key)
    first = jnp.zeros((T, N), bool).at[3, 0].set(True)
    out, _ = core(x.at[2, 0].set(jnp.nan), first, memory)
    assert np.isnan(out[2, 0]).all() and np.isfinite(np.delete(out, 2, axis=0)).all()


@every_core
def test_a_successor_is_seen_with_the_memory_after_its_own_step(kind, key):
    network = actor_critic(Spaces(Box((F,)), Discrete(2)), hidden=(8,), core=kind, core_size=SIZE)
    params = network.init(key)
    _, x, first, memory = made(kind, key)
    memory = (memory, memory)  # of the actor, of the critic
    next_obs = jax.random.normal(jax.random.key(1), (T, N, F))
    memories = network.apply(params, x, first, memory)[2]
    found = successor_values(network, params, next_obs, memories)
    for t in range(T):  # play up to t, then look at the successor
        seen = jnp.concatenate([x[: t + 1], next_obs[t : t + 1]])
        starts = jnp.concatenate([first[: t + 1], jnp.zeros((1, N), bool)])
        np.testing.assert_allclose(found[t], network.apply(params, seen, starts, memory)[1][-1], atol=2e-6)
