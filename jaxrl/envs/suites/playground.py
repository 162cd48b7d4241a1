"""MuJoCo Playground: the DM-control suite on MJX, and robots where their assets are at hand. The only file that imports
mujoco_playground.
"""

import contextlib
import copy
import functools
import io
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

with contextlib.redirect_stdout(io.StringIO()):  # mujoco.mjx prints that an optional package is absent
    from mujoco_playground import dm_control_suite, locomotion, manipulation
    from mujoco_playground._src import mjx_env, registry

from jaxrl.envs.base import strong
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Space
from jaxrl.types import InputError, Key, PyTree, Step

IMPLS = ("jax", "warp")
_HAVE_ASSETS = mjx_env.MENAGERIE_PATH.exists()
_ROBOTS = (*locomotion.ALL_ENVS, *manipulation.ALL_ENVS)
UNAVAILABLE: dict[str, str] = {}
if not _HAVE_ASSETS:
    UNAVAILABLE |= dict.fromkeys(_ROBOTS, "needs the models of mujoco_menagerie, which Playground clones by `git`")
if not hasattr(mujoco.MjSpec, "find_body"):
    UNAVAILABLE |= dict.fromkeys(
        ("ReacherEasy", "ReacherHard"), "edits its model by a method that MuJoCo no longer has (MjSpec.find_body)"
    )


def names() -> list[str]:
    """The environments whose models are here."""
    return [name for name in (*dm_control_suite.ALL_ENVS, *_ROBOTS) if name not in UNAVAILABLE]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlaygroundEnv:
    """A Playground environment. Its MJX model (masses, friction, gears, …) is the data; the code is static.

    An observation that is a dict may have an entry "privileged_state", which only critics see. info holds the
    environment's metrics.
    """

    model: Any
    raw: Any = field(metadata={"static": True})
    time_limit: int | None = field(default=1000, metadata={"static": True})
    name: str = field(default="", metadata={"static": True})

    @property
    def truncates(self) -> bool:
        """Never: a time limit is left to `vectorize`."""
        return False

    @property
    def observation_space(self) -> Space:
        """Vectors without bounds, by name where there are several."""
        return _observation_space(self.raw)

    @property
    def action_space(self) -> Box:
        """One number in [-1, 1] for each actuator."""
        return Box((self.raw.action_size,), -1.0, 1.0)

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return float(self.raw.dt)

    @property
    def mj_model(self) -> Any:
        """The MuJoCo model, for drawing."""
        return self.raw.mj_model

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A start drawn by Playground, of this model: (state, obs)."""
        state = strong(self._body().reset(key))
        return state, state.obs

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step of Playground, which is several of the physics; its metrics are `info`."""
        # Some environments write into the dicts of the state that they are given.
        state = state.replace(metrics=dict(state.metrics), info=dict(state.info))
        state = strong(self._body().step(state, action))
        terminated = state.done.astype(bool)
        metrics = {name: x for name, x in state.metrics.items() if jnp.ndim(x) == 0}
        return state, Step(state.obs, state.reward, terminated, jnp.zeros((), bool), metrics)

    def frame(self, state: PyTree) -> tuple[jax.Array, jax.Array]:
        """(poses [..., bodies, 7] as position and quaternion wxyz, joint positions qpos [..., nq]), for drawing."""
        poses = jnp.concatenate([state.data.xpos, state.data.xquat], axis=-1)
        return poses[..., 1:, :], state.data.qpos

    def _body(self) -> Any:
        body = copy.copy(self.raw)
        body._mjx_model = self.model
        return body


@functools.cache
def _observation_space(raw: Any) -> Space:
    obs = jax.eval_shape(raw.reset, jax.random.key(0)).obs
    return jax.tree.map(lambda x: Box(x.shape, dtype=x.dtype), obs)


@functools.lru_cache(maxsize=None, typed=True)  # two raw objects hash differently and would compile everything twice
def make(name: str, /, impl: str = "jax", **options: Any) -> PlaygroundEnv:
    """The environment `name` on one of IMPLS: "jax" runs everywhere, "warp" on CUDA only. `options` are entries of its
    config, such as ctrl_dt 0.04.

    Raises InputError for an unknown impl or option, and for an environment that cannot work here, with the reason.
    """
    title = f"playground/{name}"
    if name in UNAVAILABLE:
        raise InputError(f"{title} is not available: it {UNAVAILABLE[name]}")
    if impl not in IMPLS:
        raise InputError(f"impl = {impl!r} is not one of {', '.join(IMPLS)}")
    if impl == "warp" and jax.default_backend() != "gpu":
        raise InputError(f"impl = 'warp' of {title} needs a CUDA device; leave it out for 'jax'")
    config = registry.get_default_config(name)
    if "impl" in config:
        config.impl = impl
    unknown = [option for option in options if option not in dict(config)]
    if unknown:
        raise InputError(f"{title} has no option {unknown[0]!r}; it has {', '.join(dict(config))}")
    with computed_now():  # what is kept must not belong to a trace that may be under way
        try:
            raw = registry.load(name, config, options or None)
        except Exception as error:  # whatever its constructor makes of the options
            raise InputError(f"{title} cannot be made ({type(error).__name__}: {error})") from error
    return PlaygroundEnv(raw.mjx_model, raw, int(config.episode_length), name)


def randomized(env: PlaygroundEnv, key: Key, num_envs: int) -> PlaygroundEnv:
    """So many bodies, of the model drawn as Playground randomises it: for EnvConfig(env_axis=0).

    Raises InputError for an environment that Playground does not randomise.
    """
    randomize = registry.get_domain_randomizer(env.name)
    if randomize is None:
        raise InputError(f"Playground does not randomise {env.name}; change its model yourself, leaf by leaf")
    models, axes = randomize(env.model, jax.random.split(key, num_envs))

    def each(x: Any, axis: int | None) -> Any:
        return jnp.broadcast_to(x, (num_envs, *np.shape(x))) if axis is None else x

    return replace(env, model=jax.tree.map(each, models, axes, is_leaf=lambda x: x is None))
