"""The tutorial: an algorithm of one's own, held to what the library holds its own to."""

import jax
import numpy as np
import pytest
from new_algorithm import RLOO, leave_one_out

from jaxrl import EnvConfig, program, replace

SMALL = RLOO(env=EnvConfig("gymnax/CartPole-v1", num_envs=4), total_steps=2000)


@pytest.mark.parametrize(("total", "near"), [(3999, "2000 or 4000"), (1000, "2000"), (2001, "2000 or 4000")])
def test_steps_that_are_no_whole_updates_are_refused_with_the_nearest_numbers(total, near):
    with pytest.raises(ValueError, match=f"total_steps = {total} is not a multiple of the 2000 steps .* try {near}$"):
        program(replace(SMALL, total_steps=total))


def test_it_keeps_the_shapes_that_the_losses_declare():
    p = program(SMALL)  # signatures are checked while tests run
    state, metrics = jax.eval_shape(p.step, jax.eval_shape(p.init, jax.random.key(0)))
    assert "policy_loss" in metrics and state.num_steps.shape == ()


def test_the_baseline_by_hand():
    # returns 1, 2, 6: of the first the others have mean 4, of the second 3.5, of the third 1.5; their std is 2.1602
    found = leave_one_out(np.array([1.0, 2.0, 6.0]))
    np.testing.assert_allclose(found, np.array([-3.0, -1.5, 4.5]) / 2.160247, rtol=1e-5)
