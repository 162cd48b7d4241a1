"""The environment protocol: one body, two pure functions, and a clear word at the end of an episode."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl.spaces import Space
from jaxrl.types import Key, PyTree, Step


@runtime_checkable
class Environment(Protocol):
    """One body. Unbatched; never resets itself; a pytree whose leaves are its physical parameters.

    Its class is registered as a pytree (`jax.tree_util.register_dataclass`): what differs between bodies is data, the
    rest is static and hashable. `reset` and `step` are pure and are traced under `vmap`. States, observations, actions
    and info are pytrees of arrays whose structure, shapes and dtypes never change. `check_environment` holds an
    environment to all of this.

    observation_space: a space, or a dict, tuple or list of them with the structure of the observations. Static.
    action_space: a space. Actions arrive with its shape and within its bounds. Static.
    time_limit: the conventional length of an episode in steps, which `vectorize` enforces; None for none.

    One more field may be given, `truncates`: whether `step` may set `truncated` itself. Absent means True, which is
    always right; False saves the critic a pass over the successors where there is no time limit either.

    For the eye there may be a method `render(state) -> uint8 [height, width, 3]`, a picture of one state: `jaxrl
    render` calls it on the host, outside of any trace, so NumPy, Pillow or Matplotlib will do. And `dt`, the seconds
    that a step is shown for, 0.1 if absent. What has no `render` is shown as its observations.
    """

    time_limit: int | None

    @property
    def observation_space(self) -> Space:
        """What an observation looks like."""
        ...

    @property
    def action_space(self) -> Space:
        """What an action looks like."""
        ...

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A fresh start: (state, obs). The state may be anything that `step` takes and gives again."""
        ...

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step: (state, Step). The fields of Step, of one environment without any leading axis:

        next_obs: what the state returned shows, also where the episode ended; never the start of another.
        reward: a float scalar.
        terminated: a boolean scalar: the task ended here, and nothing of worth follows.
        truncated: a boolean scalar: the episode was cut short, and what follows is worth V(next_obs). Always False
        for an environment that leaves its time limit to `vectorize`. With both flags set, terminated counts.
        info: a flat dict of arrays, empty for none; the same names at every step.
        After an end `step` is not called again with this state.
        """
        ...


def truncates(env: Any) -> bool:
    """Whether `env.step` may set `truncated` itself. One that does not say so is believed to."""
    return getattr(env, "truncates", True)


def strong(tree: PyTree) -> PyTree:
    """Arrays without weak types: a weakly typed state changes its type in the second chunk and compiles it anew."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), tree)


def cast_like(tree: PyTree, like: Any) -> PyTree:
    """`tree` with the dtypes of `like`: some environments change theirs between reset and step."""
    return jax.tree.map(lambda x, y: jax.lax.convert_element_type(x, y.dtype), tree, like)


def select(flag: Bool[Array, "*n"], if_true: PyTree, if_false: PyTree) -> PyTree:
    """Leaf by leaf if_true where the flag is set, else if_false; the flag's axes are the leading ones of every leaf."""

    def select(a, b):
        return jnp.where(flag.reshape(flag.shape + (1,) * (jnp.ndim(a) - flag.ndim)), a, b)

    return jax.tree.map(select, if_true, if_false)
