import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops import metrics as m
from jaxrl.ops.metrics import Mean
from jaxrl.types import Transition


def test_mean_is_sum_and_count_by_hand():
    # 1 + 2 + 6 = 9 over 3; of those selected, 1 + 6 = 7 over 2
    assert m.mean(jnp.array([1.0, 2.0, 6.0])) == (9, 3)
    assert m.mean(jnp.array([1.0, 2.0, 6.0]), jnp.array([True, False, True])) == (7, 2)
    assert m.mean(jnp.array(4.0)) == (4, 1)


@pytest.mark.parametrize("values", [jnp.array([True, True, False]), jnp.array([2, 1, 1]), jnp.array([2.0, 1.0, 1.0])])
def test_any_kind_of_value_has_a_float_mean(values):
    mean = m.mean(values)
    assert mean.total.dtype == mean.count.dtype == jnp.float32
    np.testing.assert_allclose(mean.value, np.mean(values), rtol=1e-6)


def test_means_add_up_over_pieces_of_any_size():
    data = np.random.default_rng(0).normal(size=100).astype(np.float32)
    where = data > 0.3
    whole = {"x": m.mean(jnp.asarray(data), jnp.asarray(where))}
    pieces = zip(np.split(data, [3, 40, 41]), np.split(where, [3, 40, 41]), strict=True)
    added = {"x": Mean(jnp.zeros(()), jnp.zeros(()))}
    for values, chosen in pieces:
        added = m.add(added, {"x": m.mean(jnp.asarray(values), jnp.asarray(chosen))})
    np.testing.assert_allclose(added["x"], whole["x"], rtol=1e-5)
    np.testing.assert_allclose(m.values(added)["x"], data[where].mean(), rtol=1e-5)


def test_total_adds_over_the_leading_axis_only():
    stacked = {"x": Mean(jnp.array([[1.0, 10.0], [2.0, 20.0]]), jnp.array([[1.0, 2.0], [3.0, 4.0]]))}
    total = m.total(stacked)["x"]
    np.testing.assert_array_equal(total.total, [3, 30])
    np.testing.assert_array_equal(total.count, [4, 6])
    np.testing.assert_array_equal(m.total(m.total(stacked))["x"].total, 33)


def test_what_is_packed_adds_up_as_it_would_by_itself():
    def metrics(i):
        return {"one": m.mean(i * jnp.ones(3)), "half": m.mean(jnp.arange(4.0), jnp.arange(4) < i)}

    each = [metrics(i) for i in range(3)]
    _, stacked = jax.lax.scan(lambda _, i: (_, m.pack(metrics(i))), (), jnp.arange(3))
    expected = functools.reduce(m.add, each)
    assert m.unpack(m.total(stacked)) == expected and expected["half"] == Mean(0 + 1, 0 + 1 + 2)
    assert m.unpack(m.add(*map(m.pack, each[1:]))) == m.add(*each[1:])
    assert m.unpack(m.pack({})) == {}


def test_the_mean_of_nothing_is_nan_not_zero_and_costs_nothing_when_added():
    nothing = m.mean(jnp.array([5.0, 6.0]), jnp.array([False, False]))
    assert np.isnan(nothing.value)
    assert m.add({"x": nothing}, {"x": m.mean(jnp.array([2.0, 4.0]))})["x"].value == 3


def test_a_nan_that_is_not_selected_does_not_spread():
    assert m.mean(jnp.array([1.0, jnp.nan]), jnp.array([True, False])).value == 1


def test_vmap_gives_one_mean_per_seed():
    values = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(jax.vmap(m.mean)(values).value, [1, 4])


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        # Var[G] of 0, 2, 4 is 8/3
        ([0.0, 2.0, 4.0], [0.0, 2.0, 4.0], 1.0),
        ([3.0, 5.0, 7.0], [0.0, 2.0, 4.0], 1.0),  # off by a constant explains all variance
        ([9.0, 9.0, 9.0], [0.0, 2.0, 4.0], 0.0),
        ([0.0, 1.0, 2.0], [0.0, 2.0, 4.0], 0.75),  # errors 0, 1, 2: 1 - (2/3)/(8/3)
        ([4.0, 2.0, 0.0], [0.0, 2.0, 4.0], -3.0),  # errors -4, 0, 4: 1 - (32/3)/(8/3)
        ([1.0, 2.0, 3.0], [5.0, 5.0, 5.0], 0.0),  # nothing to explain
    ],
)
def test_explained_variance_by_hand(value, target, expected):
    mean = m.explained_variance(jnp.array(value), jnp.array(target))
    np.testing.assert_allclose(mean.value, expected, atol=1e-6)
    assert mean.count == 1


def rollout():
    """Two environments of four steps: one episode of return 3 and length 2, one of return 7 and length 4."""
    terminated = jnp.array([[False, False], [True, False], [False, False], [False, False]])
    truncated = jnp.array([[False, False], [False, False], [False, False], [False, True]])
    info = {
        "episode_return": jnp.array([[1.0, 2.0], [3.0, 4.0], [1.0, 6.0], [2.0, 7.0]]),
        "episode_length": jnp.array([[1, 1], [2, 2], [1, 3], [2, 4]]),
        "invalid": jnp.zeros((4, 2), bool).at[2, 0].set(True),
    }
    unused = jnp.zeros((4, 2))
    return Transition(unused, unused, unused, unused, terminated, truncated, unused, info, first=unused)


def test_episodes_count_where_they_end_either_way():
    metrics = m.episode_metrics(rollout())
    assert metrics["episode_return"] == (10, 2)
    assert metrics["episode_length"] == (6, 2)
    assert metrics["invalid_steps"] == (1, 8)


def test_where_restricts_the_steps_that_count():
    metrics = m.episode_metrics(rollout(), jnp.ones((4, 2), bool).at[:, 1].set(False))
    assert metrics["episode_return"] == (3, 1)
    assert metrics["invalid_steps"] == (1, 4)


def test_no_episode_ended_is_nan():
    quiet = jnp.zeros((4, 2), bool)
    metrics = m.episode_metrics(rollout()._replace(terminated=quiet, truncated=quiet))
    assert np.isnan(metrics["episode_return"].value) and metrics["episode_return"].count == 0
