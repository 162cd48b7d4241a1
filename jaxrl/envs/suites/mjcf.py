"""A robot of your own: an MJCF file, simulated by MJX, with a task that you write.

    make("mjcf:robots/quadruped.xml", task="my_robots:Walk")
    jaxrl train ppo/own_robot --name mjcf:robots/quadruped.xml --options task my_robots:Walk

Actions are numbers in [-1, 1], spread over the range of each actuator. A task is a class with any of the methods of
`Task`, which says what they default to.
"""

import contextlib
import functools
import importlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

with contextlib.redirect_stdout(io.StringIO()):  # mujoco.mjx prints that an optional package is absent
    from mujoco import mjx

from jaxtyping import Array

from jaxrl.envs.base import strong
from jaxrl.envs.options import construct
from jaxrl.spaces import Box
from jaxrl.types import InputError, Key, PyTree, Step


class Task:
    """What a robot is to do. model: mjx.Model; data, before, after: mjx.Data, with qpos, qvel, xpos, sensordata and all
    else that MuJoCo computes; action: as it was given, in [-1, 1].
    """

    time_limit: int | None = 1000
    """Steps of an episode."""
    substeps: int = 1
    """Steps of the physics for each of the agent."""

    def start(self, model: Any, key: Key) -> tuple[Array, Array]:
        """(qpos, qvel) to start from: by default the model's keyframe, or its zero pose, with joints and velocities
        moved by up to 0.01."""
        k_pos, k_vel = jax.random.split(key)
        qvel = jax.random.uniform(k_vel, (model.nv,), minval=-0.01, maxval=0.01)
        offset = jnp.where(jnp.arange(model.nq) < model.nq - model.nu, 0.0, 1.0)  # not of where the body stands
        return model.qpos0 + offset * jax.random.uniform(k_pos, (model.nq,), minval=-0.01, maxval=0.01), qvel

    def obs(self, model: Any, data: Any) -> Any:
        """What the policy sees: by default positions, but for x and y of a body that is free to move, and velocities."""
        free = bool(np.any(np.asarray(model.jnt_type) == int(mujoco.mjtJoint.mjJNT_FREE)))
        return jnp.concatenate([data.qpos[2:] if free else data.qpos, data.qvel])

    def reward(self, model: Any, before: Any, after: Any, action: Array) -> Array:
        """What the step is worth."""
        raise NotImplementedError

    def terminated(self, model: Any, data: Any) -> Array:
        """Whether the task has ended, as for a robot that has fallen: by default never."""
        return jnp.zeros((), bool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MjcfEnv:
    """A robot and its task. Its MJX model (masses, friction, gears, …) is the data; the task is static.

    info["x_velocity"]: of the first body that can move, in m/s.
    """

    model: Any
    task: Any = field(metadata={"static": True})
    mj_model: Any = field(metadata={"static": True})
    path: str = field(metadata={"static": True})

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
        return float(self.mj_model.opt.timestep) * self.task.substeps

    @property
    def observation_space(self) -> Any:
        """Vectors without bounds, by name where the task shows several."""
        return _observation_space(self.task, self.mj_model)

    @property
    def action_space(self) -> Box:
        """One number in [-1, 1] for each actuator."""
        return Box((self.mj_model.nu,), -1.0, 1.0)

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start of the task: (state, obs)."""
        qpos, qvel = self.task.start(self.model, key)
        data = mjx.make_data(self.mj_model).replace(qpos=qpos, qvel=qvel)
        data = strong(mjx.forward(self.model, data))
        return data, self.task.obs(self.model, data)

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """As many steps of the physics as the task says, with the same control: (state, Step)."""
        low, high = self._range
        data = state.replace(ctrl=low + (high - low) * 0.5 * (jnp.clip(action, -1.0, 1.0) + 1))
        data = jax.lax.fori_loop(0, self.task.substeps, lambda _, data: strong(mjx.step(self.model, data)), data)
        reward = jnp.asarray(self.task.reward(self.model, state, data, action), jnp.float32)
        terminated = jnp.asarray(self.task.terminated(self.model, data), bool)
        info = {"x_velocity": (data.xpos[1, 0] - state.xpos[1, 0]) / self.dt}
        return data, Step(self.task.obs(self.model, data), reward, terminated, jnp.zeros((), bool), info)

    def frame(self, state: PyTree) -> tuple[jax.Array, jax.Array]:
        """(poses [..., bodies, 7] as position and quaternion wxyz, joint positions qpos [..., nq]), for drawing."""
        return jnp.concatenate([state.xpos, state.xquat], axis=-1)[..., 1:, :], state.qpos

    @property
    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        limited = self.mj_model.actuator_ctrllimited.astype(bool)
        low, high = self.mj_model.actuator_ctrlrange.T.astype(np.float32)
        return np.where(limited, low, -1.0).astype(np.float32), np.where(limited, high, 1.0).astype(np.float32)


@functools.cache
def _observation_space(task: Any, mj_model: Any) -> Any:
    def start(key: Key) -> Any:
        return MjcfEnv(mjx.put_model(mj_model), task, mj_model, "").reset(key)[1]

    return jax.tree.map(lambda x: Box(x.shape, dtype=x.dtype), jax.eval_shape(start, jax.random.key(0)))


@functools.lru_cache(maxsize=None, typed=True)  # two models hash differently and would compile everything twice
def make(path: str, /, task: str | None = None, **options: Any) -> MjcfEnv:
    """The robot of an MJCF file with a task, "package.module:Task"; `options` go to the task's constructor.

    Raises InputError for a file that MuJoCo cannot read or MJX cannot simulate, with what they say, for a robot without
    actuators, and for a task that is none.
    """
    title = f"mjcf:{path}"
    if task is None:
        raise InputError(f'{title} needs a task, which says what is rewarded: task="package.module:Task"')
    if not Path(path).is_file():
        raise InputError(f"{title}: there is no such file; the path is taken from where the program runs")
    module, _, name = task.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{title}: there is no task {task!r} ({error})") from error
    made = construct(task, kind, options)
    if not callable(getattr(made, "reward", None)):
        raise InputError(f"{title}: the task {task} has no reward(self, model, before, after, action)")
    try:
        mj_model = mujoco.MjModel.from_xml_path(path)
        with jax.ensure_compile_time_eval():
            model = mjx.put_model(mj_model)
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{title} cannot be simulated ({error})") from error
    if not mj_model.nu:
        raise InputError(f"{title} has no actuators, so that there is nothing to learn")
    return MjcfEnv(model, _complete(made), mj_model, path)


def _complete(task: Any) -> Any:
    """The task with what it leaves out taken from `Task`."""
    if isinstance(task, Task):
        return task
    for name in ("time_limit", "substeps", "start", "obs", "terminated"):
        if not hasattr(task, name):
            default = getattr(Task, name)
            setattr(task, name, functools.partial(default, task) if callable(default) else default)
    return task
