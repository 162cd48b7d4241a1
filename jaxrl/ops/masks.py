"""Actions that are not allowed now. An observation that is a dict may have an entry "action_mask", of booleans or of
zeros and ones: one for each of a Discrete space's actions, or for each value of each entry of a MultiDiscrete one, in
turn. What is forbidden has probability 0, in training, in evaluation, and among random actions. Where nothing is
allowed, as after an end, everything is.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrl.spaces import Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, Key, PyTree

MASK = "action_mask"


def has_mask(tree: PyTree) -> bool:
    """Whether an observation, or the space of one, says which actions are allowed."""
    return isinstance(tree, dict) and MASK in tree


def without_mask(tree: PyTree) -> PyTree:
    """An observation, or the space of one, but for its mask."""
    return {name: part for name, part in tree.items() if name != MASK} if has_mask(tree) else tree


def action_mask(spaces: Spaces, obs: PyTree) -> Bool[Array, "*b n"] | None:
    """Which actions an observation allows; None where it does not say. obs: None to check the spaces only.

    Raises InputError for a mask that does not suit the action space.
    """
    if not has_mask(spaces.observation):
        return None
    sizes, shape = _sizes(spaces.action), spaces.observation[MASK].shape
    if sizes is None or shape != (sum(sizes),):
        wanted = "none, for it is not discrete" if sizes is None else f"({sum(sizes)},)"
        raise InputError(f"the observation's {MASK!r} has shape {shape}; for actions of {spaces.action} it is {wanted}")
    return None if obs is None else jnp.asarray(obs[MASK]).astype(bool)


def allowed_logits(
    sizes: Sequence[int], logits: Float[Array, "*b n"], mask: Bool[Array, "*b n"] | None
) -> Float[Array, "*b n"]:
    """-inf where the mask forbids, for each group of `sizes` alone; groups of which it allows nothing are left."""
    if mask is None:
        return logits
    parts = jnp.split(mask, np.cumsum(sizes)[:-1], axis=-1)
    allowed = jnp.concatenate([part | ~jnp.any(part, axis=-1, keepdims=True) for part in parts], axis=-1)
    return jnp.where(allowed, logits, -jnp.inf)


def random_actions(spaces: Spaces, key: Key, obs: PyTree, num_envs: int) -> Any:
    """One for each of N environments, drawn evenly of those that are allowed."""
    mask = action_mask(spaces, obs)
    if mask is None:
        return jax.vmap(spaces.action.sample)(jax.random.split(key, num_envs))
    parts = _by_entry(spaces.action, mask)
    keys = jax.random.split(key, len(parts))
    return _joined(spaces.action, [jax.random.categorical(k, part) for k, part in zip(keys, parts, strict=True)])


def zero_actions(spaces: Spaces, obs: PyTree, num_envs: int) -> Any:
    """One for each of N environments: the zero action, or the first that is allowed."""
    zero, mask = spaces.action.zero(), action_mask(spaces, obs)
    if mask is None:
        return jnp.broadcast_to(zero, (num_envs, *zero.shape))
    return _joined(spaces.action, [jnp.argmax(part, axis=-1) for part in _by_entry(spaces.action, mask)])


def _by_entry(space: Space, mask: Bool[Array, "*b n"]) -> list[Float[Array, "*b _"]]:
    sizes = _sizes(space)
    return jnp.split(allowed_logits(sizes, jnp.zeros(mask.shape), mask), np.cumsum(sizes)[:-1], axis=-1)


def _joined(space: Space, entries: list[Array]) -> Array:
    made = entries[0] if isinstance(space, Discrete) else jnp.stack(entries, axis=-1)
    return (made + jnp.asarray(space.start)).astype(space.dtype)


def _sizes(space: Space) -> tuple[int, ...] | None:
    if isinstance(space, Discrete):
        return (space.n,)
    return space.nvec if isinstance(space, MultiDiscrete) else None
