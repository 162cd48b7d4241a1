import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import (
    accumulate,
    flatten,
    map_parts,
    minibatch_rows,
    rows_at_once,
    sequences,
    shuffled,
    sum_over,
    take,
)
from jaxrl.ops.platform import tuned

T, N = 6, 8


def rows(key, num_minibatches=4):
    return np.asarray(minibatch_rows(key, T * N, num_minibatches))


@pytest.mark.parametrize("num_minibatches", [1, 2, 4, 8])
@pytest.mark.device
def test_each_row_is_in_exactly_one_minibatch(num_minibatches, key):
    batches = rows(key, num_minibatches)
    assert batches.shape == (num_minibatches, T * N // num_minibatches)
    np.testing.assert_array_equal(np.sort(batches.ravel()), np.arange(T * N))


def test_every_key_shuffles_differently_and_one_key_always_alike(key):
    np.testing.assert_array_equal(rows(key), rows(key))
    assert (rows(key) != rows(jax.random.key(1))).any()


def test_the_steps_of_an_environment_are_separated(key):
    assert all(len(set(minibatch % N)) > 4 for minibatch in rows(key))


def test_a_sequence_is_an_environments_steps_together_and_in_order():
    step, env = jnp.meshgrid(jnp.arange(T), jnp.arange(N), indexing="ij")
    by_env = sequences({"step": step, "both": jnp.stack([step, env], axis=-1)})
    taken = take(by_env, jnp.array([5, 2]))
    np.testing.assert_array_equal(taken["step"], [range(T)] * 2)
    np.testing.assert_array_equal(taken["both"], [[[t, n] for t in range(T)] for n in (5, 2)])
    np.testing.assert_array_equal(sequences(by_env)["step"], step)


@pytest.mark.device
def test_every_row_is_as_likely_in_every_minibatch():
    keys = jax.random.split(jax.random.key(0), 2000)
    batches = jax.jit(jax.vmap(lambda k: minibatch_rows(k, T * N, 4)))(keys)
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
    chosen = jnp.asarray(rows(key)[1])
    taken = take(batch, chosen)
    np.testing.assert_array_equal(taken["a"], chosen)
    np.testing.assert_array_equal(taken["b"], 10.0 * chosen[:, None])


def squares(params, rows):
    """Mean of (w·x + b)² over the numbers that count, of which rows have different many."""
    y = params["w"] * rows["x"] + params["b"]
    mean = m.mean(y**2, rows["where"])
    return mean, {"square": mean, "largest": m.mean(jnp.max(rows["x"], axis=1))}


def ragged(x, where):
    return {"x": jnp.asarray(x), "where": jnp.asarray(where, bool)}


BY_HAND = ragged([[1.0, 9.0], [2.0, 9.0], [3.0, 4.0], [9.0, 9.0]], [[1, 0], [1, 0], [1, 1], [0, 0]])
UNIT = {"w": jnp.array(1.0), "b": jnp.array(0.0)}


@pytest.mark.parametrize("size", [None, 1, 2, 4])
def test_accumulate_by_hand(size):
    # The numbers that count are 1 | 2 | 3, 4 | none: d/dw mean (wx + b)² = 2·(1 + 4 + 9 + 16)/4 = 15, and
    # d/db = 2·(1 + 2 + 3 + 4)/4 = 5. The mean of the rows' own gradients would be NaN, of the first three 35/3.
    grads, metrics = accumulate(squares, UNIT, BY_HAND, size)
    np.testing.assert_allclose([grads["w"], grads["b"]], [15.0, 5.0], rtol=1e-6)
    assert (metrics["square"].total, metrics["square"].count) == (30, 4)
    assert (metrics["largest"].total, metrics["largest"].count) == (9 + 9 + 4 + 9, 4)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
@pytest.mark.device
def test_micro_batches_of_unequal_counts_give_the_whole_batchs_gradient(size):
    rng = np.random.default_rng(0)
    where = np.arange(7) < rng.integers(0, 8, (12, 1))
    batch = ragged(rng.normal(size=(12, 7)).astype(np.float32), where)
    params = {"w": jnp.array(0.7), "b": jnp.array(-0.3)}
    x = np.asarray(batch["x"], np.float64)[where]
    y = 0.7 * x - 0.3
    grads, metrics = jax.jit(accumulate, static_argnums=(0, 3))(squares, params, batch, size)
    np.testing.assert_allclose([grads["w"], grads["b"]], [2 * (y * x).mean(), 2 * y.mean()], rtol=1e-5)
    np.testing.assert_allclose(metrics["square"].value, (y**2).mean(), rtol=1e-5)
    # what others do, a mean of each micro-batch's own mean, is another number
    parts = [accumulate(squares, params, jax.tree.map(lambda v, i=i: v[i : i + 3], batch), None) for i in (0, 3, 6, 9)]
    assert abs(np.mean([g["w"] for g, _ in parts]) - grads["w"]) > 1e-3


@pytest.mark.parametrize("size", [None, 1, 4])
def test_a_batch_in_which_nothing_counts_has_a_gradient_of_zero(size):
    nothing = ragged(BY_HAND["x"], jnp.zeros((4, 2), bool))
    grads, metrics = accumulate(squares, UNIT, nothing, size)
    assert (grads["w"], grads["b"]) == (0, 0)
    assert (metrics["square"].total, metrics["square"].count) == (0, 0)


def noisy(params, rows, key):
    """Mean of (w·x)² and a draw for every row."""
    y = params["w"] * rows["x"][:, 0] + jax.random.normal(key, rows["x"].shape[:1])
    mean = m.mean(y**2)
    return mean, {"square": mean}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_of_a_batch_in_one_part_is_bit_for_bit_that_of_the_mean(compiled, key):
    x = jax.random.normal(key, (48, 3))  # 1/48 is rounded: Σ of gradients over 48 is another number
    rows, params = {"x": x}, {"w": jnp.float32(0.37)}
    wrap = jax.jit if compiled else lambda f: f
    expected = wrap(jax.grad(lambda p: jnp.mean((p["w"] * x[:, 0] + jax.random.normal(key, (48,))) ** 2)))(params)
    for size in (None, 0, 48):
        found, _ = wrap(lambda p, size=size: accumulate(noisy, p, rows, size, key))(params)
        assert found["w"] == expected["w"]


def test_every_part_has_a_key_of_its_own_and_a_whole_batch_the_key_itself(key):
    rows, params = {"x": jnp.arange(12.0).reshape(6, 2)}, {"w": jnp.float32(0.5)}
    keys = jax.random.split(key, 3)
    draws = jnp.concatenate([jax.random.normal(k, (2,)) for k in keys])

    def loss(params):
        return jnp.mean((params["w"] * rows["x"][:, 0] + draws) ** 2)

    value, expected = jax.value_and_grad(loss)(params)
    grads, metrics = jax.jit(lambda p: accumulate(noisy, p, rows, 2, key))(params)
    np.testing.assert_allclose(grads["w"], expected["w"], rtol=1e-6)
    np.testing.assert_allclose(metrics["square"].value, value, rtol=1e-6)
    assert len(set(np.asarray(draws).tolist())) == 6


@pytest.mark.parametrize("size", [None, 1, 2, 4])
def test_a_sum_over_micro_batches_is_that_over_the_batch(size):
    # 1 + 2 + (3 + 4) of what counts, squared one by one
    found = sum_over(lambda rows: squares(UNIT, rows)[1], BY_HAND, size)
    assert (found["square"].total, found["square"].count) == (1 + 4 + 9 + 16, 4)
    assert (found["largest"].total, found["largest"].count) == (9 + 9 + 4 + 9, 4)


def test_a_sum_over_micro_batches_hands_out_keys(key):
    one = sum_over(lambda rows, key: jax.random.uniform(key), BY_HAND, None, key)
    assert one == jax.random.uniform(key)
    both = sum_over(lambda rows, key: jax.random.uniform(key), BY_HAND, 2, key)
    np.testing.assert_allclose(both, sum(jax.random.uniform(k) for k in jax.random.split(key, 2)), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 512, 1000])
def test_shuffled_is_a_permutation(n):
    assert sorted(np.asarray(shuffled(jax.random.key(3), n)).tolist()) == list(range(n))


def test_every_number_is_equally_likely_in_every_place():
    n, draws = 6, 30_000
    found = np.asarray(jax.jit(jax.vmap(lambda key: shuffled(key, n)))(jax.random.split(jax.random.key(0), draws)))
    counts = np.stack([np.bincount(column, minlength=n) for column in found.T])
    assert np.abs(counts - draws / n).max() < 5 * np.sqrt(draws / n * (1 - 1 / n))


def test_equal_random_bits_favour_no_number(monkeypatch):
    # All ties: what is left is the turn, and by it each number still comes first equally often.
    bits = jax.random.bits  # the last one says by how much numbers are turned
    monkeypatch.setattr(jax.random, "bits", lambda key, shape: bits(key, shape).at[:-1].set(0))
    first = np.asarray(jax.vmap(lambda key: shuffled(key, 5)[0])(jax.random.split(jax.random.key(0), 5000)))
    assert np.abs(np.bincount(first, minlength=5) - 1000).max() < 150


def test_beyond_what_one_word_holds_and_where_it_is_chosen_it_is_jaxs_permutation(monkeypatch):
    key, right = jax.random.key(1), jax.random.permutation(jax.random.key(1), 9)
    with tuned(shuffle="permutation"):
        np.testing.assert_array_equal(shuffled(key, 9), right)
    monkeypatch.setattr("jaxrl.ops.minibatch._MOST_PACKED", 8)
    np.testing.assert_array_equal(shuffled(key, 9), right)


def test_rows_at_once_divide_the_batch_and_are_many():
    with tuned(micro_batch_rows=2048):
        assert [rows_at_once(n) for n in (512, 2048, 65_536, 3000, 4099)] == [None, None, 2048, 1500, None]
        assert [rows_at_once(n, 128) for n in (4, 16, 64, 24)] == [None, None, 16, 12]
    with tuned(micro_batch_rows=None):
        assert rows_at_once(65_536) is None


def test_map_parts_gives_what_the_whole_gives():
    batch = jnp.arange(24.0).reshape(12, 2)
    np.testing.assert_array_equal(map_parts(lambda x: x.sum(-1), batch, 4), batch.sum(-1))
