"""A robot of your own: an MJCF file, simulated by MJX or by one of Brax's backends, with a task that you write.

    make("mjcf:robots/quadruped.xml", task="my_robots:Walk", backend="spring")
    jaxrl train ppo/hopper --name mjcf:robots/quadruped.xml --options task my_robots:Walk --backend mjx

Actions are numbers in [-1, 1], spread over the range of each actuator. `Task` says what a task is made of.
"""

import contextlib
import functools
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array

with contextlib.redirect_stdout(io.StringIO()):  # mujoco.mjx prints that an optional package is absent
    from mujoco import mjx

from jaxrl.envs.base import strong
from jaxrl.envs.options import construct
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box
from jaxrl.types import InputError, Key, PyTree, Step

BACKENDS = ("mjx", "spring", "positional", "generalized")


class Robot(NamedTuple):
    """What is fixed: the start pose of the file [nq], numbers of positions, velocities and actuators, whether a body is
    free to move (its x, y, z and quaternion are then the first positions), seconds a step of the agent, MuJoCo's model.
    """

    qpos0: np.ndarray
    nq: int
    nv: int
    nu: int
    free: bool
    dt: float
    mj_model: Any


class Now(NamedTuple):
    """What a simulator says: joint positions [nq] and velocities [nv], of each body that moves, in the order of the
    file, position [bodies, 3] and quaternion wxyz [bodies, 4]; and its own `state`, with all else.
    """

    qpos: Array
    qvel: Array
    xpos: Array
    xquat: Array
    state: PyTree


class Simulator(NamedTuple):
    """model: arrays, which may differ from body to body. init(model, qpos, qvel) -> state; step(model, state, control)
    -> state, control in the actuators' own ranges; settled(model, state) -> the state with poses of these positions;
    now(state) -> (qpos, qvel, xpos, xquat).
    """

    model: Any
    init: Callable[[Any, Array, Array], PyTree]
    step: Callable[[Any, PyTree, Array], PyTree]
    settled: Callable[[Any, PyTree], PyTree]
    now: Callable[[PyTree], tuple[Array, Array, Array, Array]]


class Task:
    """What a robot is to do: subclass it, and write `reward`."""

    time_limit: int | None = 1000
    """Steps of an episode."""
    substeps: int = 1
    """Steps of the physics for each of the agent."""

    def start(self, robot: Robot, key: Key) -> tuple[Array, Array]:
        """(qpos, qvel) to start from: by default the file's pose, with joints and velocities moved by up to 0.01."""
        k_pos, k_vel = jax.random.split(key)
        of_joints = jnp.arange(robot.nq) >= (7 if robot.free else 0)
        moved = jax.random.uniform(k_pos, (robot.nq,), minval=-0.01, maxval=0.01)
        qvel = jax.random.uniform(k_vel, (robot.nv,), minval=-0.01, maxval=0.01)
        return jnp.asarray(robot.qpos0, jnp.float32) + jnp.where(of_joints, moved, 0.0), qvel

    def obs(self, robot: Robot, now: Now) -> Any:
        """What the policy sees: by default velocities, and positions but for x and y of a body that is free to move."""
        return jnp.concatenate([now.qpos[2:] if robot.free else now.qpos, now.qvel])

    def reward(self, robot: Robot, before: Now, now: Now, action: Array) -> Array:
        """What the step is worth. action: in [-1, 1]."""
        raise NotImplementedError

    def terminated(self, robot: Robot, now: Now) -> Array:
        """Whether the task has ended, as for a robot that has fallen: by default never."""
        return jnp.zeros((), bool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MjcfEnv:
    """A robot and its task. The simulator's model (masses, friction, gears, …) is the data; the rest is static.

    info["x_velocity"]: of the first body that moves, in m/s.
    """

    model: Any
    task: Any = field(metadata={"static": True})
    about: "Fixed" = field(metadata={"static": True})

    @property
    def path(self) -> str:
        """Of the file."""
        return self.about.path

    @property
    def mj_model(self) -> Any:
        """MuJoCo's model, for drawing."""
        return self.about.robot.mj_model

    @property
    def time_limit(self) -> int | None:
        """The task's."""
        return self.task.time_limit

    @property
    def truncates(self) -> bool:
        """Never: a time limit is left to `vectorize`."""
        return False

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return self.about.robot.dt

    @property
    def observation_space(self) -> Any:
        """Vectors without bounds, by name where the task shows several."""
        return _observation_space(self.task, self.about)

    @property
    def action_space(self) -> Box:
        """One number in [-1, 1] for each actuator."""
        return Box((self.about.robot.nu,), -1.0, 1.0)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start of the task: (state, obs)."""
        state = strong(self.about.simulator.init(self.model, *self.task.start(self.about.robot, key)))
        return state, self.task.obs(self.about.robot, self._now(state))

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """As many steps of the physics as the task says, with the same control: (state, Step)."""
        low, high = self.about.control
        control = low + (high - low) * 0.5 * (jnp.clip(action, -1.0, 1.0) + 1)
        step = self.about.simulator.step
        after = jax.lax.fori_loop(0, self.task.substeps, lambda _, s: strong(step(self.model, s, control)), state)
        after = strong(self.about.simulator.settled(self.model, after))
        robot, before, now = self.about.robot, self._now(state), self._now(after)
        reward = jnp.asarray(self.task.reward(robot, before, now, action), jnp.float32)
        terminated = jnp.asarray(self.task.terminated(robot, now), bool)
        info = {"x_velocity": (now.xpos[0, 0] - before.xpos[0, 0]) / self.dt}
        return after, Step(self.task.obs(robot, now), reward, terminated, jnp.zeros((), bool), info)

    def frame(self, state: PyTree) -> tuple[jax.Array, jax.Array]:
        """(poses [..., bodies, 7] as position and quaternion wxyz, joint positions qpos [..., nq]), for drawing."""
        qpos, _, xpos, xquat = self.about.simulator.now(state)
        return jnp.concatenate([xpos, xquat], axis=-1), qpos

    def _now(self, state: PyTree) -> Now:
        return Now(*self.about.simulator.now(state), state)


@dataclass(frozen=True, eq=False)  # one for each file, backend and task: made once, compared by identity
class Fixed:
    """What is static of an MjcfEnv. control: (low, high) of the actuators."""

    robot: Robot
    simulator: Simulator
    control: tuple[np.ndarray, np.ndarray]
    path: str


@functools.cache
def _observation_space(task: Any, about: Fixed) -> Any:
    made = jax.eval_shape(lambda key: MjcfEnv(about.simulator.model, task, about).reset(key)[1], jax.random.key(0))
    return jax.tree.map(lambda x: Box(x.shape, dtype=x.dtype), made)


@functools.lru_cache(maxsize=None, typed=True)  # two models hash differently and would compile everything twice
def make(path: str, /, task: str | None = None, backend: str = "mjx", **options: Any) -> MjcfEnv:
    """The robot of an MJCF file with a task, "package.module:Task", on one of BACKENDS: "mjx" is MuJoCo's physics,
    "spring" a cruder one that is many times faster on a CPU. `options` go to the task's constructor.

    Raises InputError for a file that MuJoCo cannot read or the backend cannot simulate, with what they say, for a robot
    without actuators, and for a task that is none.
    """
    title = f"mjcf:{path}"
    if backend not in BACKENDS:
        raise InputError(f"backend = {backend!r} is not one of {', '.join(BACKENDS)}")
    if not Path(path).is_file():
        raise InputError(f"{title}: there is no such file; the path is taken from where the program runs")
    made = _task(title, task, options)
    try:
        mj_model = mujoco.MjModel.from_xml_path(path)
        with computed_now():
            simulator = _mjx(mj_model) if backend == "mjx" else _brax(path, backend)
            still = jnp.zeros(mj_model.nq), jnp.zeros(mj_model.nv)
            jax.eval_shape(simulator.init, simulator.model, *still)  # what a backend lacks it says only here
    except Exception as error:  # whatever MuJoCo, MJX or Brax say of a file of somebody else's
        raise InputError(f"{title} cannot be simulated by {backend} ({type(error).__name__}: {error})") from error
    if not mj_model.nu:
        raise InputError(f"{title} has no actuators, so that there is nothing to learn")
    free = bool(mj_model.njnt) and mj_model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE
    dt = float(mj_model.opt.timestep) * made.substeps
    robot = Robot(mj_model.qpos0.copy(), mj_model.nq, mj_model.nv, mj_model.nu, bool(free), dt, mj_model)
    limited, (low, high) = mj_model.actuator_ctrllimited.astype(bool), mj_model.actuator_ctrlrange.T
    control = tuple(np.where(limited, x, end).astype(np.float32) for x, end in ((low, -1), (high, 1)))
    return MjcfEnv(simulator.model, made, Fixed(robot, simulator, control, path))


def _task(title: str, task: str | None, options: dict[str, Any]) -> Task:
    if task is None:
        raise InputError(
            f'{title} needs a task, which says what is rewarded: task="package.module:Task", or --options task '
            "package.module:Task"
        )
    module, _, name = task.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{title}: there is no task {task!r} ({error})") from error
    if not callable(kind):
        raise InputError(f"{title}: {task} is no class; name a subclass of jaxrl.envs.suites.mjcf.Task")
    made = construct(task, kind, options)
    if not isinstance(made, Task) or type(made).reward is Task.reward:
        raise InputError(f"{title}: {task} must be a subclass of jaxrl.envs.suites.mjcf.Task that has a reward")
    return made


def _mjx(mj_model: Any) -> Simulator:
    def init(model: Any, qpos: Array, qvel: Array) -> PyTree:
        return mjx.forward(model, mjx.make_data(mj_model).replace(qpos=qpos, qvel=qvel))

    def step(model: Any, state: PyTree, control: Array) -> PyTree:
        return mjx.step(model, state.replace(ctrl=control))

    def settled(model: Any, state: PyTree) -> PyTree:
        return mjx.kinematics(model, state)  # MuJoCo's poses are those from before the last step

    def now(state: PyTree) -> tuple[Array, Array, Array, Array]:
        return state.qpos, state.qvel, state.xpos[..., 1:, :], state.xquat[..., 1:, :]  # without the world

    return Simulator(mjx.put_model(mj_model), init, step, settled, now)


def _brax(path: str, backend: str) -> Simulator:
    from jaxrl.envs.suites import brax

    system, init, step, now = brax.simulator(path, backend)
    return Simulator(system, init, step, lambda model, state: state, now)
