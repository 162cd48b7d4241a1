"""A policy that was trained in gymnax plays in Gymnasium, where neither jaxrl nor JAX can be imported."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest

import jaxrl
from jaxrl.runs.exporting.folder import IN_GYMNASIUM

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import play_gymnasium  # noqa: E402


def test_cartpole_is_solved_in_gymnasium():
    figures = play_gymnasium.one("ppo/cartpole", seed=0, episodes=20)
    assert figures["gymnasium"] >= 475 and figures["gymnax"] >= 475


def test_the_process_that_plays_has_no_jax(tmp_path):
    for name in ("jax", "jaxrl"):
        (tmp_path / "other.py").write_text(f"import {name}\n")
        command = [sys.executable, "-c", play_gymnasium.ALONE, "other.py"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert f"import of {name} halted" in done.stderr


def test_a_verdict_is_over_all_seeds_and_cartpole_for_each():
    figures = [{"gymnax": -100.0, "gymnasium": g} for g in (-115.0, -103.0)]
    assert play_gymnasium.verdict("ppo/pendulum", figures)["holds"]
    assert not play_gymnasium.verdict("ppo/pendulum", figures[:1])["holds"]
    figures = [{"gymnax": 500.0, "gymnasium": g} for g in (500.0, 470.0)]
    assert not play_gymnasium.verdict("ppo/cartpole", figures)["holds"]


@pytest.mark.parametrize("name", IN_GYMNASIUM)
def test_a_step_is_the_same_in_both(name):
    theirs, ours = gymnasium.make(name), jaxrl.make(f"gymnax/{name}")
    assert theirs.spec.max_episode_steps == ours.time_limit
    theirs.reset(seed=0)

    @jax.jit
    def steps(key):
        state, _ = ours.reset(key)
        action = ours.action_space.sample(key)
        for _ in range(3):  # none of them ends within so few
            state, _ = ours.step(key, state, action)
        return state, action, ours.step(key, state, action)[1]

    for seed in range(30):
        state, action, expected = jax.device_get(steps(jax.random.key(seed)))
        numbers = [x for field, x in vars(state).items() if field not in ("time", "last_u")]
        theirs.unwrapped.state = np.array(numbers, np.float64).ravel()
        obs, reward, terminated, *_ = theirs.unwrapped.step(action)
        np.testing.assert_allclose(obs, expected.next_obs, atol=1e-5)
        np.testing.assert_allclose(reward, expected.reward, atol=1e-5)
        assert terminated == expected.terminated
