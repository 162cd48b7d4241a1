"""Brax environments. The only file that imports brax, and never its `training` package."""

import contextlib
import copy
import functools
import importlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

with contextlib.redirect_stdout(io.StringIO()):  # mujoco.mjx prints that an optional package is absent
    from brax.envs import _envs
    from brax.io import mjcf

from jaxrl.envs.base import strong
from jaxrl.envs.options import construct
from jaxrl.spaces import Box
from jaxrl.types import InputError, Key, PyTree, Step

BACKENDS = ("generalized", "positional", "spring", "mjx")
UNAVAILABLE = {
    "fast": "is a dummy without physics, made for Brax's own tests",
    "swimmer": "calls jnp.clip with arguments that JAX no longer has",
}


def names() -> list[str]:
    """The registered environments that work."""
    return [name for name in _envs if name not in UNAVAILABLE]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BraxEnv:
    """A Brax environment. The physical system `sys` (masses, friction, gears, …) is the data; the code is static.

    info holds Brax's metrics, such as `x_velocity` in m/s for the bodies that walk.
    """

    sys: Any
    raw: Any = field(metadata={"static": True})
    time_limit: int | None = field(default=1000, metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def truncates(self) -> bool:
        """Never: a time limit is left to `vectorize`."""
        return False

    @property
    def observation_space(self) -> Box:
        """A vector without bounds."""
        return Box((_observation_size(self.raw),))

    @property
    def action_space(self) -> Box:
        """One number in [-1, 1] for each actuator."""
        # Brax scales actions from [-1, 1] to the actuators itself
        return Box((self.raw.action_size,), -1.0, 1.0)

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return float(self.raw.dt)

    @property
    def mj_model(self) -> Any:
        """The MuJoCo model the body was read from: its geometry, for drawing."""
        return self.raw.sys.mj_model

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start drawn by Brax, of these physical parameters: (state, obs)."""
        state = strong(self._body().reset(key))
        return state, state.obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of Brax, which may be several of the physics; its metrics are `info`."""
        # Brax writes into the dicts of the state it is given
        state = state.replace(metrics=dict(state.metrics), info=dict(state.info))
        state = strong(self._body().step(state, action))
        terminated = state.done.astype(bool)
        return state, Step(state.obs, state.reward, terminated, jnp.zeros((), bool), dict(state.metrics))

    def frame(self, state: PyTree) -> tuple[jax.Array, jax.Array]:
        """(poses [..., bodies, 7] as position and quaternion wxyz, joint positions qpos [..., nq]), for drawing."""
        x = state.pipeline_state.x
        return jnp.concatenate([x.pos, x.rot], axis=-1), state.pipeline_state.q

    def _body(self) -> Any:
        body = copy.copy(self.raw)
        body.sys = self.sys
        return body


def simulator(path: str, backend: str) -> tuple[Any, Callable, Callable, Callable]:
    """An MJCF file on a backend of Brax: (system, init, step, now), as in `suites.mjcf.Simulator`."""
    pipeline = importlib.import_module(f"brax.{backend}.pipeline")

    def now(state: Any) -> tuple[jax.Array, ...]:
        return state.q, state.qd, state.x.pos, state.x.rot

    return mjcf.load(path), pipeline.init, pipeline.step, now


@functools.cache
def _observation_size(raw: Any) -> int:
    return jax.eval_shape(raw.reset, jax.random.key(0)).obs.shape[-1]


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, backend: str = "generalized", **options: Any) -> BraxEnv:
    """The Brax environment `name` on one of BACKENDS; `options` go to its constructor.

    Raises InputError for an unknown backend or option, and for an environment that cannot work, with the reason.
    """
    if name in UNAVAILABLE:
        raise InputError(f"brax/{name} is not available: it {UNAVAILABLE[name]}")
    if backend not in BACKENDS:
        raise InputError(f"backend = {backend!r} is not one of {', '.join(BACKENDS)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Brax System, piplines and environments")
        raw = construct(f"brax/{name}", _envs[name], {"backend": backend, **options})
    return BraxEnv(raw.sys, raw, name=name)
