from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.data.arrays import in_order
from jaxrl.sources.rows import Cursor, at_own_width, batches, batches_per_epoch


def dataset(*sizes):
    """One bucket per size; rows carry their bucket and number, and buckets differ in width."""
    return tuple(
        {"tokens": np.full((n, b + 2), b, np.int32), "id": 1000 * b + np.arange(n)} for b, n in enumerate(sizes)
    )


def stream(source, num):
    """cursor -> (cursor after, ids of the real rows of each of the next `num` batches): one program."""

    def step(cursor, _):
        cursor, (batch, _) = source.collect(cursor.key, None, cursor)
        return cursor, jnp.where(batch.weight > 0, batch.rows["id"], -1)

    walk = jax.jit(lambda cursor: jax.lax.scan(step, cursor, length=num))

    def run(cursor):
        cursor, ids = walk(cursor)
        return cursor, [[i for i in batch if i >= 0] for batch in ids.tolist()]

    return run


def test_the_fill_up_by_hand(key):
    # Five rows in batches of two: 2 + 2 + 1 and a row of weight 0, in some order.
    source = batches(dataset(5), 2)
    cursor, seen = source.init(key), []
    for _ in range(3):
        cursor, (batch, _) = source.collect(key, None, cursor)
        assert batch.rows["tokens"].shape == (2, 2) and batch.weight.dtype == jnp.float32
        seen.append(batch.weight.tolist())
    assert sorted(seen) == [[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    assert (int(cursor.epoch), int(cursor.position)) == (1, 0)


@pytest.mark.parametrize("sizes", [(1,), (8,), (5, 9, 4), (1, 1, 1, 20)])
@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_every_row_once_per_epoch(sizes, batch_size, key):
    data = dataset(*sizes)
    num = batches_per_epoch(data, batch_size)
    assert num == sum(-(-n // batch_size) for n in sizes)
    source = batches(data, batch_size)
    cursor, run = source.init(key), stream(source, num)
    expected = sorted(int(i) for bucket in data for i in bucket["id"])
    for epoch in range(2):
        assert int(cursor.epoch) == epoch and int(cursor.position) == 0
        cursor, seen = run(cursor)
        assert sorted(i for batch in seen for i in batch) == expected
        assert all(len({i // 1000 for i in batch}) == 1 for batch in seen)


def test_epochs_and_keys_shuffle_differently(key):
    source = batches(dataset(40, 30), 5)
    run = stream(source, 14)
    cursor, first = run(source.init(key))
    _, second = run(cursor)
    _, other = run(source.init(jax.random.key(1)))
    assert first != second != other != first
    assert [b[0] // 1000 for b in first] != [b[0] // 1000 for b in second]  # buckets take turns in another order
    together = [{frozenset(batch) for batch in epoch} for epoch in (first, second)]
    assert not together[0] & together[1]  # rows, too, meet others


def test_buckets_are_interleaved(key):
    source = batches(dataset(50, 50), 5)
    turns = [batch[0] // 1000 for batch in stream(source, 20)(source.init(key))[1]]
    assert sum(a != b for a, b in pairwise(turns)) > 4


def test_what_follows_depends_on_the_cursor_only(key):
    data = dataset(11, 6)
    num = batches_per_epoch(data, 4)
    run = stream(batches(data, 4), 2 * num)
    _, whole = run(batches(data, 4).init(key))
    for start in range(2 * num):
        _, resumed = run(Cursor(key, jnp.int32(start // num), jnp.int32(start % num)))
        assert resumed[: 2 * num - start] == whole[start:]


def test_the_learner_and_the_step_key_change_nothing(key):
    source = batches(dataset(9), 4)
    a = source.collect(key, None, source.init(key))
    b = source.collect(jax.random.key(7), {"w": 1.0}, source.init(key))
    assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


@pytest.mark.parametrize("sizes", [(9,), (9, 5)])
def test_jit_equals_no_jit(sizes, key):
    source = batches(dataset(*sizes), 4)
    cursor = source.init(key)
    for _ in range(4):
        plain = source.collect(key, None, cursor)
        compiled = jax.jit(source.collect, static_argnums=1)(key, None, cursor)
        assert jax.tree.structure(plain) == jax.tree.structure(compiled)
        assert jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and bool((x == y).all()), plain, compiled))
        cursor = plain[0]


def test_all_batches_have_one_shape_and_are_cut_to_their_own_width(key):
    data = dataset(3, 4)  # two and three tokens wide
    source = batches(data, 2)
    seen = []
    update = at_own_width(lambda key, learner, batch: seen.append(batch.rows["tokens"].shape) or learner, data)
    cursor = source.init(key)
    for _ in range(4):
        cursor, batch = source.collect(key, None, cursor)
        assert batch.batch.rows["tokens"].shape == (2, 3)
        tokens, b = np.asarray(batch.batch.rows["tokens"]), int(batch.bucket)
        assert (tokens[:, : b + 2] == b).all() and (tokens[:, b + 2 :] == 0).all()
        update(key, jnp.zeros(()), batch)
    assert set(seen) == {(2, 2), (2, 3)}


def test_every_row_is_as_likely_in_every_place():
    source = batches(dataset(6), 2)
    epochs = jax.vmap(lambda k: jax.lax.scan(lambda c, _: source.collect(k, None, c), source.init(k), length=3)[1])
    ids = np.asarray(epochs(jax.random.split(jax.random.key(0), 3000)).batch.rows["id"]).reshape(3000, 6)
    shares = np.stack([(ids == i).mean(0) for i in range(6)])
    assert np.abs(shares - 1 / 6).max() < 5 * np.sqrt(1 / 6 * 5 / 6 / 3000)


def test_none_leaves_and_tuples_pass_through(key):
    rows = (jnp.arange(4), None)
    batch = batches((rows,), 2).collect(key, None, batches((rows,), 2).init(key))[1].batch
    assert batch.rows[1] is None and batch.rows[0].shape == (2,)


def test_in_order_by_hand():
    given = in_order(dataset(3, 2), 2)
    assert [bucket.rows["id"].tolist() for bucket in given] == [[[0, 1], [2, 0]], [[1000, 1001]]]
    assert [bucket.weight.tolist() for bucket in given] == [[[1, 1], [1, 0]], [[1, 1]]]
    assert given[1].rows["tokens"].shape == (1, 2, 3)


@pytest.mark.parametrize("batch_size", [1, 4, 30])
def test_in_order_shows_every_row_once(batch_size):
    data = dataset(5, 9, 1)
    given = in_order(data, batch_size)
    seen = [int(i) for b in given for i, w in zip(b.rows["id"].ravel(), b.weight.ravel(), strict=True) if w]
    assert seen == [int(i) for bucket in data for i in bucket["id"]]
    assert sum(len(bucket.weight) for bucket in given) == batches_per_epoch(data, batch_size)


@pytest.mark.parametrize(
    "data, batch_size, message",
    [
        (dataset(3), 0, "batch_size = 0 is no batch"),
        (dataset(3, 0), 2, r"bucket 1 has leading axes \[0\]"),
        (({"a": np.zeros(2), "b": np.zeros(3)},), 2, r"bucket 0 has leading axes \[2, 3\]"),
        ((), 2, "there are no buckets"),
    ],
)
def test_mistakes_are_sentences(data, batch_size, message):
    for f in (batches, batches_per_epoch, in_order):
        with pytest.raises(ValueError, match=message):
            f(data, batch_size)
