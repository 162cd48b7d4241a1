"""Domain randomisation: every environment has a body of its own, through `train`, `run` and evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, Schedule, evaluate, make, program, replace, run
from jaxrl.envs.bodies import repeated

CARTPOLE = make("gymnax/CartPole-v1")


def carts(masses):
    """CartPoles whose carts weigh so much; gymnax keeps the sum beside its parts."""
    p, masses = CARTPOLE.params, jnp.asarray(masses, jnp.float32)
    like = jax.tree.map(lambda x: jnp.broadcast_to(x, masses.shape), p)
    return dataclasses.replace(CARTPOLE, params=like.replace(masscart=masses, total_mass=masses + p.masspole))


CONFIG = PPO(
    env=EnvConfig("gymnax/CartPole-v1", num_envs=8, env_axis=0, eval_episodes=16),
    total_steps=8 * 128 * 100,
    learning_rate=1e-3,
)


def test_heavier_bodies_learn_too(tmp_path):
    bodies = carts(np.linspace(1.0, 8.0, 8))
    result = run(CONFIG, 0, tmp_path / "run", schedule=Schedule(2, 1, 1), progress=False, env=bodies)
    algorithm = program(CONFIG, env=bodies).algorithm
    for mass in (1.0, 8.0):
        alone = replace(CONFIG.env, env_axis=None)
        played = evaluate(alone, algorithm, result.state.learner, jax.random.key(1), num_episodes=16, body=carts(mass))
        assert played.episode_return.mean() > 200, f"a cart of {mass} kg; doing nothing gives 9"


def test_each_environment_has_its_own_body():
    masses = np.linspace(1.0, 8.0, 8)
    p = program(CONFIG, env=carts(masses))
    state = p.init(jax.random.key(0))
    _, batch = jax.jit(p.source.collect)(jax.random.key(1), state.learner, state.carry)
    pushed = np.abs(batch.next_obs - batch.obs)[0, :, 1]  # of the first step: 10 N for 0.02 s
    np.testing.assert_allclose(pushed * masses, 0.2, rtol=0.05)


def test_bodies_that_are_not_as_many_as_environments_are_refused():
    with pytest.raises(ValueError, match="env.num_envs = 8, but the environment given has 3 bodies"):
        program(CONFIG, env=carts([1.0, 2.0, 3.0]))


def test_an_evaluation_of_few_episodes_meets_bodies_of_all_kinds():
    few = repeated(carts(np.arange(1.0, 17.0)), 4)
    np.testing.assert_array_equal(few.params.masscart, [1.0, 5.0, 9.0, 13.0])
    np.testing.assert_array_equal(repeated(carts([1.0, 2.0]), 5).params.masscart, [1.0, 2.0, 1.0, 2.0, 1.0])
