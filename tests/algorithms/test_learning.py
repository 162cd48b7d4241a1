"""Learning on CartPole over several seeds, each algorithm against a stated threshold."""

import jax
import jax.numpy as jnp
import pytest

from jaxrl import cli, evaluate, replace, train
from jaxrl.training.programs import program

CASES = {
    # name: (steps, changes, mean evaluation return that every seed must reach)
    "ppo/cartpole": (307_200, {}, 400),  # after 204,800 steps one seed in twenty-four is still below
    "a2c/cartpole": (256_000, {}, 200),
    "reinforce/cartpole": (1_600_000, {}, 400),
}


@pytest.mark.parametrize("name", CASES)
def test_cartpole_is_learned_by_every_seed(name):
    steps, changes, threshold = CASES[name]
    config = replace(cli.named(name), total_steps=steps, **changes)

    def one(config, key):
        state, _ = train(config, key)
        algorithm = program(config).algorithm
        return evaluate(config.env, algorithm, state.learner, jax.random.fold_in(key, 2**31), num_episodes=32)

    seeds = jax.vmap(jax.random.key)(jnp.arange(100, 103))
    returns = jax.jit(jax.vmap(one, (None, 0)))(config, seeds).episode_return.mean(axis=1)
    assert (returns >= threshold).all(), returns
