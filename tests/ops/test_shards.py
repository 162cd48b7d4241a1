"""What shards add up is what one of all their numbers would give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops import metrics as m
from jaxrl.ops import shards
from jaxrl.ops.minibatch import accumulate
from jaxrl.ops.normalization import init_stats, update_stats

X = jnp.asarray(np.random.default_rng(0).normal(30.0, 2.0, (8, 12, 3)), jnp.float32)
WHERE = jnp.asarray(np.random.default_rng(1).random((8, 12)) < 0.6).at[0].set(False)  # one has nothing that counts


def mapped(function, *args):
    """function of every shard, its result that of each."""
    return jax.vmap(function, axis_name=shards.SIDE_BY_SIDE)(*args)


def same_everywhere(tree):
    for leaf in jax.tree.leaves(tree):
        assert np.array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape), equal_nan=True)
    return jax.tree.map(lambda x: x[0], tree)


def test_without_a_map_everything_is_as_it_was(key):
    assert not shards.apart() and shards.own(key) is key
    assert shards.total(X) is X
    mean, variance = shards.mean_and_variance(X)
    assert mean == jnp.mean(X) and variance == jnp.var(X)


@pytest.mark.parametrize("where", [None, WHERE], ids=["all", "some"])
def test_mean_and_variance_are_those_of_all_numbers(where):
    given = (X[..., 0],) if where is None else (X[..., 0], where)
    found = same_everywhere(mapped(shards.mean_and_variance, *given))
    np.testing.assert_allclose(found[0], jnp.mean(X[..., 0], where=where), rtol=1e-6)
    np.testing.assert_allclose(found[1], jnp.var(X[..., 0], where=where), rtol=1e-5)
    made = mapped(shards.standardized, *given)
    mean, std = jnp.mean(X[..., 0], where=where), jnp.std(X[..., 0], where=where)
    np.testing.assert_allclose(made, (X[..., 0] - mean) / std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("where", [None, WHERE], ids=["all", "some"])
def test_statistics_are_merged_exactly(where):
    x = X.at[3, 2].set(1e30)  # left out
    fold = lambda *given: update_stats(init_stats((3,)), *given)  # noqa: E731
    given = (x,) if where is None else (x, where)
    found = same_everywhere(mapped(fold, *given))
    whole = fold(*(part.reshape(-1, *part.shape[2:]) for part in given))
    assert found.count == whole.count
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(found.var, whole.var, rtol=1e-5)


@pytest.mark.parametrize("micro", [None, 4])
def test_the_gradient_is_that_of_all_rows_however_many_each_counts(micro):
    def loss(params, rows):
        x, where = rows
        mean = m.mean(jnp.square(x @ params - 1.0), where)
        return mean, {"loss": mean}

    params = jnp.array([0.3, -0.2, 0.1])
    part = lambda x, where: accumulate(loss, params, (x, where), micro)  # noqa: E731
    grads, metrics = same_everywhere(mapped(part, X, WHERE))
    whole, expected = accumulate(loss, params, (X.reshape(-1, 3), WHERE.reshape(-1)), None)
    np.testing.assert_allclose(grads, whole, rtol=1e-5)
    assert metrics["loss"].count == WHERE.sum()
    np.testing.assert_allclose(metrics["loss"].value, expected["loss"].value, rtol=1e-6)


def test_explained_variance_is_that_of_all():
    value, target = X[..., 0], X[..., 1]
    found = same_everywhere(mapped(m.explained_variance, value, target))
    np.testing.assert_allclose(found.value, m.explained_variance(value, target).value, rtol=1e-4)


def test_each_has_a_key_of_its_own_wherever_it_lies(key):
    keys = jax.vmap(lambda _: shards.own(key), axis_name=shards.SIDE_BY_SIDE)(jnp.arange(6))
    two = jax.vmap(
        lambda _: jax.vmap(lambda _: shards.own(key), axis_name=shards.SIDE_BY_SIDE)(jnp.arange(3)),
        axis_name=shards.DEVICES,
    )(jnp.arange(2))
    data = jax.random.key_data(keys)
    assert len({bytes(np.asarray(row)) for row in data}) == 6
    assert jnp.array_equal(data, jax.random.key_data(two).reshape(data.shape))
