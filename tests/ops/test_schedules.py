import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.algorithms import A2C, PPO, Reinforce
from jaxrl.ops.schedules import linear, remaining, warmup_cosine
from jaxrl.settings import EnvConfig, replace
from jaxrl.training import program

UPDATES = [1, 2, 3, 7, 10, 41, 480, 1953, 12_345]


def config(total_steps, num_envs=8, num_steps=128):
    return PPO(total_steps=total_steps, num_steps=num_steps, env=EnvConfig(num_envs=num_envs))


def annealed(start, final, updates, done):
    c = config(updates * 1024)
    return linear(start, final, remaining(c, done))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("updates", UPDATES)
def test_the_schedule_starts_at_its_start_and_is_exactly_zero_after_the_last_update(compiled, updates):
    f = lambda start, final, done: annealed(start, final, updates, done)  # noqa: E731
    f = jax.jit(f) if compiled else f
    start, final = jnp.float32(3e-4), jnp.float32(0.0)
    np.testing.assert_allclose(f(start, final, jnp.int32(0)), start, rtol=1e-6)
    assert f(start, final, jnp.int32(updates)) == 0
    assert updates == 1 or f(start, final, jnp.int32(updates - 1)) > 0


def test_the_schedule_by_hand():
    # from 2 to 2·¼ over 4 updates: steps of 0.375
    values = [annealed(jnp.float32(2), jnp.float32(0.25), 4, jnp.int32(done)) for done in range(5)]
    np.testing.assert_allclose(values, [2.0, 1.625, 1.25, 0.875, 0.5])


@pytest.mark.parametrize("done", [0, 3, 10])
def test_a_final_share_of_one_is_constant(done):
    np.testing.assert_allclose(annealed(jnp.float32(0.2), jnp.float32(1.0), 10, jnp.int32(done)), 0.2, rtol=1e-6)


def test_the_schedule_counts_updates_not_gradient_steps_or_environment_steps():
    short = replace(config(10 * 1024), num_epochs=1, num_minibatches=1)
    long = replace(config(10 * 1024), num_epochs=10, num_minibatches=8)
    assert remaining(short, jnp.int32(5)) == remaining(long, jnp.int32(5)) == 0.5


def suggestions(error):
    """Every number that the error offers as a remedy."""
    return [int(x) for x in re.findall(r"\d+", str(error.value).split("try ")[1].replace("32-bit", ""))]


@pytest.mark.parametrize("total", [1024, 2048, 102_400, 2**31 - 1024])
def test_whole_numbers_of_rollouts_pass(total):
    assert program(config(total)).num_updates == total // 1024


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, [1024]), (1023, [1024]), (1025, [1024, 2048]), (100_000, [99_328, 100_352]), (2047, [1024, 2048])],
)
def test_other_numbers_are_refused_with_the_nearest_that_pass(total, expected):
    with pytest.raises(ValueError, match=f"total_steps = {total} is not a multiple of the 1024 steps") as error:
        program(config(total))
    assert suggestions(error) == expected
    for valid in expected:
        program(config(valid))


@pytest.mark.parametrize("total", [2**31 - 1, 2**31, 3_000_000_000, 2**31 + 1024])
def test_the_numbers_offered_near_the_limit_of_the_step_counter_pass(total):
    with pytest.raises(ValueError) as error:
        program(config(total))
    for valid in suggestions(error):
        program(config(valid))


@pytest.mark.parametrize("make", [PPO, A2C, Reinforce])
def test_the_steps_of_every_algorithm_are_checked(make):
    program(make())
    with pytest.raises(ValueError, match="is not a multiple of the"):
        program(replace(make(), total_steps=make().total_steps + 1))


def rates(peak, warmup, final, total, extra=1):
    """The learning rate of every update, and after the last."""
    done = jnp.arange(total + extra)
    return np.asarray(warmup_cosine(jnp.float32(peak), jnp.float32(warmup), jnp.float32(final), done, total))


def test_warmup_cosine_by_hand():
    # 10 updates to a peak of 2, of which 2 rise: 1, 2; then the cosine's shares 0/8, 1/8, ..., of which 4/8 is half way
    # from 2 to 2·0.5 and 8/8, after the last update, is there.
    found = rates(2.0, 0.2, 0.5, 10)
    np.testing.assert_allclose(found[[0, 1, 2, 6, 10]], [1.0, 2.0, 2.0, 1.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found[4], 1 + (1 + np.cos(np.pi / 4)) / 2, rtol=1e-6)


def test_without_warmup_the_first_update_has_the_peak_and_with_nothing_else_the_last():
    np.testing.assert_allclose(rates(3.0, 0.0, 0.0, 4, 0), 1.5 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)
    np.testing.assert_allclose(rates(3.0, 1.0, 0.0, 4, 0), [0.75, 1.5, 2.25, 3.0], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.9])
def test_the_rate_is_exactly_zero_after_the_last_update_and_at_no_update(warmup, compiled):
    for updates in UPDATES:
        f = lambda peak, warmup, done, n=updates: warmup_cosine(peak, warmup, jnp.float32(0.0), done, n)  # noqa: E731
        f = jax.jit(f) if compiled else f
        peak, share = jnp.float32(3e-4), jnp.float32(warmup)
        assert f(peak, share, jnp.int32(updates)) == 0
        assert f(peak, share, jnp.int32(0)) > 0 and f(peak, share, jnp.int32(updates - 1)) > 0


@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.1, 0.25, 0.77, 1.0])
def test_the_rate_rises_to_its_peak_and_then_falls_and_never_is_outside(warmup, total):
    found = rates(1.0, warmup, 0.1, total, 0)
    top = int(found.argmax())
    assert (np.diff(found[: top + 1]) > 0).all() and (np.diff(found[top:]) <= 1e-7).all()
    assert found.min() > 0 and found.max() == pytest.approx(1.0)
    assert abs(top + 1 - warmup * total) <= 1


@pytest.mark.parametrize(("rising", "total", "final"), [(10, 40, 0.0), (5, 50, 0.2), (1, 8, 0.5), (0, 8, 0.0)])
def test_it_is_optax_schedule_without_its_first_zero(rising, total, final):
    # While rising, optax's update n + 1 is our n, for its update 0 has rate 0; then the two agree.
    theirs = optax.warmup_cosine_decay_schedule(0.0, 3e-4, rising, total, 3e-4 * final)
    found = rates(3e-4, rising / total, final, total)
    expected = [theirs(n + 1 if n + 1 <= rising else n) for n in range(total + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-10)


def test_a_schedule_is_traced_and_swept_without_compiling_anew():
    count = []

    @jax.jit
    def f(peak, warmup, final, done):
        count.append(1)
        return warmup_cosine(peak, warmup, final, done, 10)

    for peak, warmup, final, done in [(2.0, 0.2, 0.5, 6), (1.0, 0.0, 0.0, 0), (3.0, 0.9, 0.3, 10)]:
        given = jnp.float32(peak), jnp.float32(warmup), jnp.float32(final)
        np.testing.assert_allclose(f(*given, jnp.int32(done)), rates(peak, warmup, final, 10)[done], rtol=1e-6)
    assert len(count) == 1
    swept = jax.vmap(lambda w: warmup_cosine(jnp.float32(1.0), w, jnp.float32(0.0), jnp.int32(3), 10))
    np.testing.assert_allclose(swept(jnp.array([0.0, 0.8])), [rates(1.0, w, 0.0, 10)[3] for w in (0.0, 0.8)], rtol=1e-6)
