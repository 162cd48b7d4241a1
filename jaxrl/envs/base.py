"""The environment protocol: one body, two pure functions, and a clear word at the end of an episode."""

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl.spaces import Space
from jaxrl.types import Key, PyTree, Step


@runtime_checkable
class Environment(Protocol):
    """Unbatched; never resets itself; a pytree whose leaves are its physical parameters.

    time_limit: the conventional length of an episode in steps, which `vectorize` enforces; None for none.
    """

    time_limit: int | None

    @property
    def observation_space(self) -> Space: ...

    @property
    def action_space(self) -> Space: ...

    def reset(self, key: Key) -> tuple[PyTree, PyTree]:
        """A fresh start: (state, obs)."""
        ...

    def step(self, key: Key, state: PyTree, action: PyTree) -> tuple[PyTree, Step]:
        """One step: (state, Step). `Step.next_obs` shows the state returned."""
        ...


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
