"""A robot of one's own, on MuJoCo's physics and on Brax's."""

from dataclasses import replace as replaced
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxrl import make
from jaxrl.cli import command
from jaxrl.envs.registry import name_of
from jaxrl.envs.suites.mjcf import BACKENDS, Task
from jaxrl.types import InputError

ROBOT = Path(__file__).parents[3] / "experiments" / "robots" / "quadruped.xml"
CART = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0" damping="0.5"/>
      <geom type="box" size=".1 .1 .05" mass="2" contype="0" conaffinity="0"/>
      <body name="pole" pos="0 0 .05">
        <joint name="hinge" axis="0 1 0"/>
        <geom type="capsule" fromto="0 0 0 0 0 .6" size=".03" mass=".2" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="2" ctrlrange="-3 5"/></actuator>
</mujoco>
"""


class Push(Task):
    """To the right; ends beyond a meter."""

    time_limit, substeps = 50, 2

    def __init__(self, worth: float = 1.0):
        self.worth = worth

    def reward(self, robot, before, now, action):
        return self.worth * (now.qpos[0] - before.qpos[0])

    def terminated(self, robot, now):
        return now.qpos[0] > 1.0


class Worthless(Task):
    pass


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "cart.xml"
    file.write_text(CART)
    return str(file)


def made(path, backend="mjx", task="Push", **options):
    return make(f"mjcf:{path}", task=f"tests.envs.suites.test_mjcf:{task}", backend=backend, **options)


def test_steps_are_mujocos_own_with_actions_spread_over_the_actuators_range(path):
    env = made(path, worth=3.0)
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    assert obs.shape == (4,) and env.action_space.shape == (1,) and env.time_limit == 50 and env.dt == 0.02
    model = mujoco.MjModel.from_xml_string(CART)
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = state.qpos, state.qvel
    step = jax.jit(env.step)
    for action in (0.5, -1.0, 1.0):
        before, data.ctrl[0] = data.qpos[0], -3 + 8 * (action + 1) / 2
        mujoco.mj_step(model, data, 2)
        state, said = step(jax.random.key(0), state, jnp.array([action]))
        np.testing.assert_allclose(said.next_obs, np.concatenate([data.qpos, data.qvel]), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(said.reward, 3 * (data.qpos[0] - before), rtol=1e-2, atol=1e-5)
        np.testing.assert_allclose(said.info["x_velocity"], (data.qpos[0] - before) / 0.02, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_pushes_the_cart_to_its_end(path, backend):
    env = made(path, backend)

    def step(state, key):
        state, said = env.step(key, state, jnp.ones(1))
        return state, said

    start = env.reset(jax.random.key(0))[0]
    said = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 60))[1])(start)
    assert bool(said.terminated[-1]) and not said.terminated[0] and float(said.reward.sum()) > 1
    poses, qpos = env.frame(start)
    assert poses.shape == (2, 7) and qpos.shape == (2,)


def test_masses_are_leaves_and_bodies_may_differ(path):
    env = made(path)
    heavy = replaced(env, model=env.model.replace(body_mass=env.model.body_mass * 10))
    start, obs = env.reset(jax.random.key(0))
    light, slow = (jax.jit(e.step)(jax.random.key(0), start, jnp.ones(1))[1].next_obs[2] - obs[2] for e in (env, heavy))
    assert 0 < float(slow) < float(light) / 5, "metres a second that the cart gained"
    assert name_of(env) == f"mjcf:{path}" and made(path) is env


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "Worthless"}, "Worthless must be a subclass of .*Task that has a reward"),
        ({"task": "Pull"}, "there is no task .*Pull"),
        ({"task": "CART"}, "CART is no class; name a subclass of"),
        ({"backend": "bullet"}, "backend = 'bullet' is not one of mjx, spring"),
        ({"weight": 2}, "has no option 'weight'"),
    ],
)
def test_what_cannot_be_is_said(path, changes, words):
    with pytest.raises(InputError, match=words):
        made(path, **changes)


def test_files_that_cannot_be_are_said(tmp_path):
    task = "tests.envs.suites.test_mjcf:Push"
    with pytest.raises(InputError, match="there is no such file"):
        make("mjcf:nowhere.xml")
    (tmp_path / "bad.xml").write_text("<mujoco><worldbody><body/></mujoco>")
    with pytest.raises(InputError, match="needs a task.*--options task package.module:Task"):
        make(f"mjcf:{tmp_path / 'bad.xml'}")
    with pytest.raises(InputError, match="cannot be simulated by mjx"):
        make(f"mjcf:{tmp_path / 'bad.xml'}", task=task)
    (tmp_path / "still.xml").write_text(CART[: CART.index("  <actuator>")] + "</mujoco>")
    with pytest.raises(InputError, match="has no actuators"):
        make(f"mjcf:{tmp_path / 'still.xml'}", task=task)


def test_a_robot_is_checked_by_name(path, capsys):
    options = ["task", "tests.envs.suites.test_mjcf:Push", "backend", "spring"]
    with pytest.raises(SystemExit) as stopped:
        command.main(["check", f"mjcf:{path}", "--steps", "300", "--options", *options])
    assert stopped.value.code == 0 and '"wrong": []' in capsys.readouterr().out


def test_the_shipped_robot_stands_where_nothing_moves_it(key):
    env = make(f"mjcf:{ROBOT}", task="experiments.own_robot:Walk", backend="spring")

    def step(state, key):
        state, said = env.step(key, state, jnp.zeros(8))
        return state, (said.terminated, env.about.simulator.now(state)[0][2])

    _, (fallen, height) = jax.jit(lambda key: jax.lax.scan(step, env.reset(key)[0], jax.random.split(key, 25)))(key)
    assert not fallen.any() and jnp.all(jnp.abs(height - 0.49) < 0.02)
