"""What is chosen by platform makes PPO faster and leaves what it learns alone."""

import jax
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, program
from jaxrl.ops.platform import tuned


@pytest.mark.parametrize("time_limit", [20, 3])  # truncates a few steps, and a third of them
def test_one_update_is_the_same_whatever_is_chosen(time_limit):
    env = EnvConfig("gymnax/CartPole-v1", num_envs=16, time_limit=time_limit)
    config = PPO(env=env, num_steps=64, num_epochs=2, num_minibatches=2, total_steps=1024, normalize_obs=True)

    def updated(**choices):
        with tuned(**choices):
            p = program(config)
            state = jax.jit(lambda key: p.step(p.init(key))[0])(jax.random.key(0))
        return jax.tree.leaves((state.learner.params, state.learner.obs_stats))

    plain = updated(next_values="all", micro_batch_rows=None)
    quick = updated(next_values="truncated", micro_batch_rows=64)
    for right, found in zip(plain, quick, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
