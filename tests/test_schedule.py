import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algorithms import A2C, PPO, Reinforce
from jaxrl.config import EnvConfig, check, replace
from jaxrl.schedule import check_steps, linear, remaining

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


@pytest.mark.parametrize("total", [1024, 2048, 102_400, 2**31 - 1024])
def test_whole_numbers_of_rollouts_pass(total):
    check_steps(config(total))


def suggestions(error):
    """Every number that the error offers as a remedy."""
    return [int(x) for x in re.findall(r"\d+", re.split(r"try |the most is ", str(error.value))[1])]


@pytest.mark.parametrize(
    ("total", "expected"),
    [(1, [1024]), (1023, [1024]), (1025, [1024, 2048]), (100_000, [99_328, 100_352]), (2047, [1024, 2048])],
)
def test_other_numbers_are_refused_with_the_nearest_that_pass(total, expected):
    with pytest.raises(ValueError, match=f"total_steps = {total} is not a multiple of .* = 1024") as error:
        check_steps(config(total))
    assert suggestions(error) == expected
    for valid in expected:
        check_steps(config(valid))


@pytest.mark.parametrize("total", [2**31 - 1, 2**31, 3_000_000_000, 2**31 + 1024])
def test_the_numbers_offered_near_the_limit_of_the_step_counter_pass(total):
    with pytest.raises(ValueError) as error:
        check_steps(config(total))
    for valid in suggestions(error):
        check_steps(config(valid))


@pytest.mark.parametrize("make", [PPO, A2C, Reinforce])
def test_every_algorithm_checks_its_steps(make):
    check(make())
    with pytest.raises(ValueError, match="is not a multiple of num_envs"):
        check(replace(make(), total_steps=make().total_steps + 1))
