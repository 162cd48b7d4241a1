import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.ops.successors import next_values


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_next_values_are_those_of_the_true_successors(share):
    """Few cut steps or many, on their own and with terminations: each bootstraps from its own next_obs."""
    T, N = 64, 8  # more than are simply all asked about
    rng = np.random.default_rng(0)
    truncated, terminated = rng.random((T, N)) < share, rng.random((T, N)) < 0.1
    obs = rng.normal(size=(T + 1, N, 3)).astype(np.float32)
    done = truncated | terminated
    next_obs = np.where(done[..., None], rng.normal(size=(T, N, 3)).astype(np.float32), obs[1:])

    def value_of(x):
        return jnp.sum(x, axis=-1)

    found = next_values(value_of, value_of(obs[:-1]), *map(jnp.asarray, (next_obs, terminated, truncated)))
    np.testing.assert_allclose(
        np.where(terminated, 0, found), np.where(terminated, 0, next_obs.sum(-1)), rtol=1e-5, atol=1e-5
    )
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("T", "asked_about"), [(64, 8 + 64 * 8 // 16), (32, 32 * 8)])
def test_few_truncated_steps_of_a_long_rollout_do_not_cost_a_second_pass(T, asked_about):
    asked, N = [], 8

    def value_of(x):
        jax.debug.callback(lambda v: asked.append(v.size), x[..., 0])
        return x[..., 0]

    obs, no = jnp.ones((T, N, 1)), jnp.zeros((T, N), bool)
    jax.block_until_ready(next_values(value_of, obs[..., 0], obs, no, no.at[3, 2].set(True)))
    jax.effects_barrier()
    assert sum(asked) == asked_about
