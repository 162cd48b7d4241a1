import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.minibatch import flatten, minibatch_rows, take

T, N = 6, 8


def rows(key, by, num_minibatches=4):
    return np.asarray(minibatch_rows(key, T, N, num_minibatches, by))


@pytest.mark.parametrize("by", ["step", "env"])
@pytest.mark.parametrize("num_minibatches", [1, 2, 4, 8])
def test_each_row_is_in_exactly_one_minibatch(by, num_minibatches, key):
    batches = rows(key, by, num_minibatches)
    assert batches.shape == (num_minibatches, T * N // num_minibatches)
    np.testing.assert_array_equal(np.sort(batches.ravel()), np.arange(T * N))


@pytest.mark.parametrize("by", ["step", "env"])
def test_every_key_shuffles_differently_and_one_key_always_alike(by, key):
    np.testing.assert_array_equal(rows(key, by), rows(key, by))
    assert (rows(key, by) != rows(jax.random.key(1), by)).any()


@pytest.mark.parametrize("num_minibatches", [1, 2, 4, 8])
def test_by_env_keeps_an_environments_steps_together_and_in_order(num_minibatches, key):
    for minibatch in rows(key, "env", num_minibatches):
        step, env = np.divmod(minibatch.reshape(T, -1), N)
        assert (env == env[0]).all() and len(set(env[0])) == N // num_minibatches
        np.testing.assert_array_equal(step, np.broadcast_to(np.arange(T)[:, None], step.shape))


def test_by_step_separates_the_steps_of_an_environment(key):
    assert all(len(set(minibatch % N)) > 4 for minibatch in rows(key, "step"))


@pytest.mark.parametrize("by", ["step", "env"])
def test_every_row_is_as_likely_in_every_minibatch(by):
    keys = jax.random.split(jax.random.key(0), 2000)
    batches = jax.jit(jax.vmap(lambda k: minibatch_rows(k, T, N, 4, by)))(keys)
    where = np.argsort(np.asarray(batches).reshape(2000, -1), axis=1) // (T * N // 4)
    shares = np.stack([(where == m).mean(axis=0) for m in range(4)])
    assert np.abs(shares - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_flatten_numbers_the_rows_of_every_leaf_step_by_step():
    step, env = jnp.meshgrid(jnp.arange(T), jnp.arange(N), indexing="ij")
    flat = flatten({"step": step, "both": jnp.stack([step, env], axis=-1)})
    np.testing.assert_array_equal(flat["step"], np.repeat(np.arange(T), N))
    np.testing.assert_array_equal(flat["both"], [[t, n] for t in range(T) for n in range(N)])


def test_take_gives_the_same_rows_of_every_leaf(key):
    batch = {"a": jnp.arange(T * N), "b": 10.0 * jnp.arange(T * N)[:, None]}
    chosen = jnp.asarray(rows(key, "env")[1])
    taken = take(batch, chosen)
    np.testing.assert_array_equal(taken["a"], chosen)
    np.testing.assert_array_equal(taken["b"], 10.0 * chosen[:, None])
