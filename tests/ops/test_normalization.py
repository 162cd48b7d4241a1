import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.normalization import (
    RunningStats,
    init_obs_stats,
    init_return_scale,
    init_stats,
    normalize,
    scale_reward,
    update_return_scale,
    update_stats,
)
from jaxrl.spaces import Box, Discrete, MultiDiscrete


def fold(batches, shape, wheres=None):
    stats = init_stats(shape)
    for i, batch in enumerate(batches):
        stats = update_stats(stats, jnp.asarray(batch), None if wheres is None else jnp.asarray(wheres[i]))
    return stats


def assert_stats(stats, data, rtol=1e-5):
    """`stats` are the count, mean and variance over the first axis of `data`."""
    assert stats.count == len(data)
    np.testing.assert_allclose(stats.mean, np.mean(data, axis=0, dtype=np.float64), rtol=rtol, atol=1e-5)
    np.testing.assert_allclose(stats.var, np.var(data, axis=0, dtype=np.float64), rtol=rtol, atol=1e-6)


# --- running statistics -----------------------------------------------------------------------------------------------


def test_update_by_hand():
    # 1, 3 then 5, 11: the mean of all four is 5 and the variance (16 + 4 + 0 + 36)/4 = 14
    stats = fold([[1.0, 3.0], [5.0, 11.0]], ())
    assert (stats.count, stats.mean, stats.var) == (4, 5, 14)


def test_statistics_of_nothing_normalise_nothing():
    x = jnp.array([1.0, -2.0])
    np.testing.assert_array_equal(normalize(init_stats((2,)), x), x)


@pytest.mark.parametrize(
    ("shape", "cuts"), [((), [10, 20, 30, 40, 50]), ((3,), []), ((3,), [1]), ((2, 3), [7, 8, 50])], ids=str
)
def test_updates_in_pieces_give_the_statistics_of_all_data(cuts, shape):
    data = np.random.default_rng(0).normal(3.0, 2.0, (60, *shape)).astype(np.float32)
    assert_stats(fold(np.split(data, cuts), shape), data)


@pytest.mark.parametrize("leading", [(60,), (12, 5), (3, 4, 5)], ids=str)
def test_all_leading_axes_are_samples(leading):
    data = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    assert_stats(fold([data.reshape(*leading, 2)], (2,)), data)


def test_a_mean_far_from_zero_costs_no_precision():
    data = np.random.default_rng(0).normal(1000.0, 0.5, (100, 2)).astype(np.float32)
    assert_stats(fold(np.split(data, 10), (2,)), data, rtol=1e-2)


def test_only_what_where_selects_counts_and_a_nan_elsewhere_does_not_spread():
    rng = np.random.default_rng(0)
    data, where = rng.normal(size=(4, 6, 5, 3)).astype(np.float32), rng.random((4, 6, 5)) < 0.5
    stats = fold(np.where(where[..., None], data, np.nan), (3,), where)
    assert_stats(stats, data[where])


def test_where_all_is_the_same_as_no_where():
    data = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
    for a, b in zip(fold([data], (3,)), fold([data], (3,), [np.ones(20, bool)]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("seen", [0, 3])
def test_a_batch_in_which_nothing_counts_changes_nothing(seen):
    before = fold([np.arange(6.0, dtype=np.float32).reshape(3, 2)], (2,)) if seen else init_stats((2,))
    after = update_stats(before, jnp.ones((4, 2)), jnp.zeros(4, bool))
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_jit_vmap_and_scan_change_nothing():
    data = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 10, 2)), jnp.float32)
    looped = [fold(seed, (2,)) for seed in data]

    def scanned(batches):
        return jax.lax.scan(lambda stats, batch: (update_stats(stats, batch), None), init_stats((2,)), batches)[0]

    mapped = jax.jit(jax.vmap(scanned))(data)
    for a, b in zip(mapped, zip(*looped, strict=True), strict=True):
        np.testing.assert_allclose(a, np.stack(b), rtol=1e-5, atol=1e-6)


def test_float64_in_gives_float64_out():
    with jax.enable_x64(True):
        data = np.random.default_rng(0).normal(1e4, 1.0, (60, 2))
        stats = fold(np.split(data, 3), (2,))
        assert stats.mean.dtype == stats.var.dtype == normalize(stats, jnp.asarray(data)).dtype == jnp.float64
        assert_stats(stats, data, rtol=1e-9)


# --- normalise --------------------------------------------------------------------------------------------------------


def test_normalised_data_have_mean_zero_and_variance_one():
    data = jnp.asarray(np.random.default_rng(0).normal([5.0, -3.0], [0.1, 20.0], (500, 2)), jnp.float32)
    z = normalize(fold([data], (2,)), data)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-4)


def test_normalise_by_hand_and_clip():
    # (x - 1)/2, held to ±10 by default and to ±1 where asked
    stats = RunningStats(jnp.array(5.0), jnp.array(1.0), jnp.array(4.0))
    x = jnp.array([1.0, 5.0, -2.0, 100.0, -100.0])
    np.testing.assert_allclose(normalize(stats, x), [0, 2, -1.5, 10, -10])
    np.testing.assert_allclose(normalize(stats, x, 1.0), [0, 1, -1, 1, -1])


def test_a_feature_that_never_varies_is_zero():
    data = jnp.full((10, 1), 3.0)
    np.testing.assert_array_equal(normalize(fold([data], (1,)), data), 0 * data)


def test_without_statistics_anything_passes_through():
    obs = {"camera": jnp.ones(3), "speed": 2}
    assert normalize(None, obs) is obs


# --- the scale of returns ---------------------------------------------------------------------------------------------


def running_returns(reward, done, gamma, start):
    """The running return after each step, *including* that step's reward, and what is carried on to the next."""
    seen, running = np.zeros(reward.shape), np.array(start, np.float64)
    for t, n in np.ndindex(reward.shape):
        seen[t, n] = running[n] = reward[t, n] + gamma * running[n]
        if done[t, n]:
            running[n] = 0.0
    return seen, running


def test_the_running_return_counts_the_last_reward_and_then_starts_anew():
    # γ = ½; rewards 1, 2, 4 | 8: R = 1, 2.5, 5.25 (the episode's last reward of 4 is in), then 8 afresh
    reward, done = jnp.array([[1.0], [2.0], [4.0], [8.0]]), jnp.array([[False], [False], [True], [False]])
    scale = update_return_scale(init_return_scale(1), reward, done, 0.5)
    assert_stats(scale.stats, [1.0, 2.5, 5.25, 8.0])
    np.testing.assert_allclose(scale.running, [8.0])


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_the_return_scale_over_several_rollouts_equals_a_loop(gamma):
    rng = np.random.default_rng(0)
    reward, done = rng.normal(1.0, 2.0, (24, 5)).astype(np.float32), rng.random((24, 5)) < 0.2
    seen, running = running_returns(reward, done, gamma, np.zeros(5))
    scale = init_return_scale(5)
    for r, d in zip(np.split(reward, 3), np.split(done, 3), strict=True):
        scale = update_return_scale(scale, jnp.asarray(r), jnp.asarray(d), gamma)
    assert_stats(scale.stats, seen.ravel(), rtol=1e-4)
    np.testing.assert_allclose(scale.running, running, rtol=1e-4, atol=1e-5)


def test_a_reset_that_drops_the_terminal_reward_would_be_noticed():
    # rewards come only at the end: dropped, every return would be 0
    reward = jnp.zeros((9, 2)).at[2::3].set(5.0)
    scale = update_return_scale(init_return_scale(2), reward, reward > 0, 0.9)
    np.testing.assert_allclose(scale.stats.mean, 5 / 3, rtol=1e-6)
    np.testing.assert_allclose(scale.running, 0)


def test_rewards_are_divided_but_not_centred():
    scale = init_return_scale(1)._replace(stats=RunningStats(jnp.array(9.0), jnp.array(7.0), jnp.array(4.0)))
    reward = jnp.array([[0.0, 1.0, -3.0, 100.0, -100.0]])
    np.testing.assert_allclose(scale_reward(scale, reward), [[0, 0.5, -1.5, 10, -10]], rtol=1e-6)
    np.testing.assert_allclose(scale_reward(scale, reward, 1.0), [[0, 0.5, -1, 1, -1]], rtol=1e-6)


def test_rewards_are_left_alone_before_any_return_was_seen():
    reward = jnp.array([[1.0, -2.0]])
    np.testing.assert_allclose(scale_reward(init_return_scale(2), reward), reward, rtol=1e-6)


def test_scaled_rewards_have_returns_of_spread_one():
    rng = np.random.default_rng(0)
    reward, done = jnp.asarray(rng.normal(0, 0.01, (200, 5)), jnp.float32), jnp.zeros((200, 5), bool)
    scaled = scale_reward(update_return_scale(init_return_scale(5), reward, done, 0.9), reward)
    seen, _ = running_returns(np.asarray(scaled), np.asarray(done), 0.9, np.zeros(5))
    np.testing.assert_allclose(seen.std(), 1.0, rtol=1e-3)


# --- rows that would spoil the statistics -----------------------------------------------------------------------------


def plain_update(stats, batch, where=None):
    """The same formula with jnp.mean and jnp.var and without any care: what healthy data must give to the bit."""
    where = None if where is None else where.reshape(-1, *[1] * stats.mean.ndim)
    batch = batch.reshape(-1, *stats.mean.shape)
    count = batch.shape[0] if where is None else jnp.sum(where, dtype=jnp.float32)
    mean, var = jnp.mean(batch, axis=0, where=where), jnp.var(batch, axis=0, where=where)
    total = stats.count + count
    delta, share = mean - stats.mean, count / jnp.maximum(total, 1.0)
    new_var = stats.var * (1 - share) + var * share + jnp.square(delta) * share * (1 - share)
    return RunningStats(total, stats.mean + delta * share, new_var)


@pytest.mark.parametrize("masked", [False, True])
def test_healthy_data_give_the_numbers_of_the_plain_formula_to_the_bit(masked):
    rng = np.random.default_rng(0)
    a = b = c = init_stats((7,))
    for scale in (1.0, 30.0, 1e-3):
        data = jnp.asarray(rng.normal(3.0, scale, (37, 11, 7)), jnp.float32)
        where = jnp.asarray(rng.random((37, 11)) < 0.7) if masked else None
        a, b, c = update_stats(a, data, where), plain_update(b, data, where), jax.jit(update_stats)(c, data, where)
        for x, y, compiled in zip(a, b, c, strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_allclose(compiled, y, rtol=2e-6)  # a compiler may sum in another order


@pytest.mark.parametrize("bad", [1e25, -1e16, np.inf, np.nan])
@pytest.mark.parametrize("masked", [False, True])
def test_a_row_with_a_huge_or_missing_number_is_left_out(bad, masked):
    data = np.random.default_rng(0).normal(2.0, 3.0, (20, 2)).astype(np.float32)
    spoiled, kept = data.copy(), np.arange(20) != 4
    spoiled[4, 1] = bad
    wheres = [np.arange(20) % 3 > 0] if masked else None
    assert_stats(fold([spoiled], (2,), wheres), data[kept & wheres[0] if masked else kept])


def test_a_batch_of_nothing_but_such_rows_changes_nothing():
    before = fold([np.arange(6.0, dtype=np.float32).reshape(3, 2)], (2,))
    for a, b in zip(update_stats(before, jnp.full((4, 2), 1e25)), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_huge_observation_is_clipped():
    stats = RunningStats(jnp.array(5.0), jnp.array(1.0), jnp.array(4.0))
    np.testing.assert_allclose(normalize(stats, jnp.array([1e25, -jnp.inf])), [10, -10])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.uint8])
def test_statistics_are_float32_whatever_the_data_are(dtype):
    # the sum of 4096 times 200 overflows float16 (65 504), and bfloat16 has no number between 200 and 201
    data = jnp.asarray([[200, 202]] * 2048, dtype).reshape(-1)
    stats = fold([data], ())
    assert all(x.dtype == jnp.float32 for x in stats)
    assert (stats.count, stats.mean, stats.var) == (4096, 201, 1)
    assert normalize(stats, data).dtype == jnp.float32


def test_float64_stays_float64():
    with jax.enable_x64(True):
        data = np.random.default_rng(0).normal(1e6, 1e-3, (100, 2))
        stats = fold(np.split(data, 4), (2,))
        assert all(x.dtype == jnp.float64 for x in stats)
        np.testing.assert_allclose(stats.var, data.var(axis=0), rtol=1e-6)


@pytest.mark.parametrize("bad", [1e25, np.inf, np.nan])
def test_a_huge_reward_is_left_out_of_the_scale_and_of_the_returns_after_it(bad):
    # γ = ½; rewards 1, ✗, 4: R = 1, left out, 4 + ½·½·1 = 4.25
    scale = update_return_scale(init_return_scale(1), jnp.array([[1.0], [bad], [4.0]]), jnp.zeros((3, 1), bool), 0.5)
    assert_stats(scale.stats, [1.0, 4.25])
    np.testing.assert_allclose(scale.running, [4.25])
    assert scale_reward(scale, jnp.array([[1e25]])) == 10


# --- observations that are pytrees ------------------------------------------------------------------------------------

PARTS = {"camera": Box((2, 2)), "gear": Discrete(4), "speeds": (Box(()), Box((3,)))}


def test_each_box_of_a_pytree_has_its_own_statistics_and_names_have_none():
    rng = np.random.default_rng(0)
    shapes = ((2, 2), (), (3,))
    camera, speed, wheels = (rng.normal(3.0, 2.0, (5, 6, *s)).astype(np.float32) for s in shapes)
    gear = jnp.asarray(rng.integers(4, size=(5, 6)))
    obs = {"camera": jnp.asarray(camera), "gear": gear, "speeds": (jnp.asarray(speed), jnp.asarray(wheels))}
    stats = update_stats(init_obs_stats(PARTS, True), obs)
    assert stats["gear"] is None
    for part, data in ((stats["camera"], camera), (stats["speeds"][0], speed), (stats["speeds"][1], wheels)):
        assert_stats(part, data.reshape(30, *data.shape[2:]))
    shown = normalize(stats, obs)
    assert shown["gear"] is gear
    np.testing.assert_array_equal(shown["speeds"][1], normalize(stats["speeds"][1], wheels))


def test_a_space_without_any_box_has_no_statistics():
    assert init_obs_stats(PARTS, False) is None
    for space in (Discrete(3), {"a": Discrete(3), "b": MultiDiscrete((2, 2))}):
        with pytest.raises(ValueError, match="normalize_obs = True does not suit .*Discrete.*set it to False"):
            init_obs_stats(space, True)
