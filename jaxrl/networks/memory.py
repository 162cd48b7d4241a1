"""Networks that remember, and those that do not, in one form: an algorithm is written once for both."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxrl.ops.minibatch import flatten
from jaxrl.types import Memory, Network, Params, PyTree, no_memory


def remembers(network: Network) -> bool:
    """Whether the network has a memory."""
    return network.memory is not None


def with_memory(network: Network) -> Network:
    """Any network as one that remembers: apply(params, obs, first, memory) -> (distribution, value, memories), as
    `Network` says. Of one that does not, the memory is ()."""
    if remembers(network):
        return network

    def apply(params: Params, obs: PyTree, first: Bool[Array, "..."], memory: Memory) -> tuple[Any, Array, Memory]:
        return *network.apply(params, obs), ()

    return Network(network.init, apply, no_memory)


def successor_values(network: Network, params: Params, next_obs: PyTree, memories: Memory) -> Float[Array, "T N"]:
    """V(next_obs) [T, N] of a network as `with_memory` gives it, each seen with what was remembered after its own step,
    also where the episode was cut: the next row of the rollout is then of another.
    """
    T, N = jax.tree.leaves(next_obs)[0].shape[:2]
    return successor_value(network, params, flatten((next_obs, memories))).reshape(T, N)


def successor_value(network: Network, params: Params, rows: tuple[PyTree, Memory]) -> Float[Array, " B"]:
    """Of single rows (next_obs, memory)."""
    next_obs, memory = rows
    going_on = jnp.zeros(len(jax.tree.leaves(next_obs)[0]), bool)
    return network.apply(params, next_obs, going_on, memory)[1]
