"""MuJoCo Playground's environments, where the extra is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, Schedule, load_policy, make, run, to_gymnasium
from jaxrl.envs.registry import from_config, name_of
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.settings import check
from jaxrl.types import InputError

pytestmark = pytest.mark.extra("playground")


@pytest.fixture
def suite():
    from jaxrl.envs.suites import playground

    return playground


def test_every_listed_name_is_made_and_traced(suite):
    for name in suite.names():
        env = suite.make(name)
        state, obs = jax.eval_shape(env.reset, jax.random.key(0))
        after, said = jax.eval_shape(env.step, jax.random.key(0), state, env.action_space.zero())
        same = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, after)
        assert jax.tree.all(same), name
        assert jax.tree.map(lambda x: x.shape, said.next_obs) == jax.tree.map(lambda x: x.shape, env.observation_space)
        assert not env.truncates and env.time_limit == 1000 and name_of(env) == f"playground/{name}"
    assert "mujoco_menagerie" in suite.UNAVAILABLE["Go1Getup"]


def test_steps_are_playgrounds_own(suite):
    env = make("playground/PendulumSwingup")
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    own = jax.jit(env.raw.reset)(jax.random.key(0))
    np.testing.assert_array_equal(obs, own.obs)
    step, theirs = jax.jit(env.step), jax.jit(env.raw.step)
    for action in (1.0, -0.5):
        state, said = step(jax.random.key(1), state, jnp.array([action]))
        own = theirs(own, jnp.array([action]))
        np.testing.assert_allclose(said.next_obs, own.obs, rtol=1e-6)
        assert float(said.reward) == pytest.approx(float(own.reward)) and not said.terminated


def test_a_time_limit_truncates_and_models_may_differ(suite):
    env = from_config(EnvConfig("playground/CartpoleBalance", num_envs=2, time_limit=2))
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(env.step)
    ends = []
    for _ in range(2):
        state, _, said = step(jax.random.key(0), state, jnp.zeros((2, 1)))
        ends.append(said.truncated.tolist())
    assert ends == [[False] * 2, [True] * 2]
    with pytest.raises(InputError, match="does not randomise CartpoleBalance"):
        suite.randomized(env.env, jax.random.key(0), 2)


def test_a_run_is_resumed_and_its_policy_plays_through_gymnasium(tmp_path):
    env = EnvConfig("playground/CartpoleBalance", num_envs=8, resets="pool", time_limit=20, eval_episodes=4)
    config = PPO(env=env, num_steps=8, num_minibatches=2, total_steps=64 * 4, hidden=(8,))
    whole = run(config, 0, tmp_path / "run", schedule=Schedule(2, 1, 2), progress=False)
    Checkpoints(whole.run_dir / "checkpoints").delete(256)
    again = run(config, 0, whole.run_dir, schedule=Schedule(2, 1, 2), progress=False, resume=True)
    jax.tree.map(np.testing.assert_array_equal, again.state.learner, whole.state.learner)
    policy, single = load_policy(whole.run_dir), to_gymnasium("playground/CartpoleBalance")
    obs, _ = single.reset(seed=0)
    paid = [single.step(policy(obs))[1] for _ in range(3)]
    assert all(0 < reward <= 1 for reward in paid)


def test_its_tuned_settings_are_told_in_our_names(suite):
    from experiments.playground_ppo import tuned

    for name in suite.names():
        config = tuned(name)
        check(config)
        assert config.env.num_envs * config.num_steps == 1024 * 32 * 30, name
    swing = tuned("PendulumSwingup")
    assert (swing.env.action_repeat, swing.num_epochs, swing.gamma) == (4, 4, 0.995)
    assert tuned("BallInCup").gamma == 0.95 and tuned("WalkerRun").total_steps == 180 * 1024 * 32 * 30
    with pytest.raises(InputError, match="the nearest are"):
        tuned("PendulumSwingUp")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("PendulumSwingUp", {}, "unknown environment.*playground/PendulumSwingup"),
        ("Go1Getup", {}, "not available: it needs the models of mujoco_menagerie"),
        ("CartpoleBalance", {"impl": "warp"}, "needs a CUDA device"),
        ("CartpoleBalance", {"impl": "cpp"}, "impl = 'cpp' is not one of jax, warp"),
        ("CartpoleBalance", {"speed": 2}, "has no option 'speed'; it has .*ctrl_dt"),
    ],
)
def test_what_cannot_be_is_said(name, options, words):
    with pytest.raises(InputError, match=words):
        make(f"playground/{name}", **options)
