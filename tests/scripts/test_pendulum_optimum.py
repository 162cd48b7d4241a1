"""The pendulum of the dynamic program is gymnax's, and what it finds is above what a good policy has."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import pendulum_optimum


def test_a_step_is_gymnaxs():
    import gymnax
    from gymnax.environments.classic_control.pendulum import EnvState

    env, params = gymnax.make("Pendulum-v1")
    for angle, speed, torque in np.random.default_rng(0).uniform((-np.pi, -8, -2), (np.pi, 8, 2), (20, 3)):
        state = EnvState(theta=angle, theta_dot=speed, last_u=jnp.zeros(()), time=0)
        _, after, reward, _, _ = env.step_env(jax.random.key(0), state, jnp.array(torque), params)
        told = pendulum_optimum.step(np.array(angle), np.array(speed), torque)
        assert told == pytest.approx((float(reward), float(after.theta), float(after.theta_dot)), rel=1e-5)


def test_without_torque_nothing_can_be_chosen(monkeypatch):
    """On a grid with the one torque 0 the best policy is the pendulum left alone."""
    angle, speed = np.random.default_rng(1).uniform((-np.pi, -1), (np.pi, 1), (4000, 2)).T
    returns = 0.0
    for _ in range(pendulum_optimum.STEPS):
        reward, angle, speed = pendulum_optimum.step((angle + np.pi) % (2 * np.pi) - np.pi, speed, 0.0)
        returns = returns + reward
    monkeypatch.setattr(pendulum_optimum, "MOST_TORQUE", 0.0)
    assert pendulum_optimum.optimum(100, 81, 1) == pytest.approx(returns.mean(), rel=0.03)
