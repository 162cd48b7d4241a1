"""What a network or a policy must give, held to by tracing alone: nothing is computed."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.networks.heads import check_width
from jaxrl.spaces import Space, Spaces
from jaxrl.types import InputError, Network, PyTree

_METHODS = ("sample", "log_prob", "entropy", "mode", "env_action")
_BATCH = (2, 3)


def check_outputs(network: Network, spaces: Spaces) -> None:
    """Hold an actor-critic to its outputs: `apply(params, obs)` must give (distribution, value) for observations with
    any leading axes; one that remembers, what `Network` says, for one step and for a sequence.

    Raises InputError, with what to change, where it does not.
    """
    for lead in (_BATCH,) if network.memory is None else (_BATCH[1:], _BATCH):
        out = _outputs(network, spaces, lead)
        names = "(distribution, value)" if network.memory is None else "(distribution, value, memories)"
        if type(out) is not tuple or len(out) != names.count(",") + 1:
            raise InputError(f"network.apply gives {_named(out)}; it must give {names}")
        check_distribution(out[0], spaces.action, lead)
        _check_value(out[1], lead)
        if network.memory is not None:
            _check_memories(network, out[2], lead)


def _outputs(network: Network, spaces: Spaces, lead: tuple[int, ...]) -> Any:
    key = jax.random.key(0)
    obs = jax.tree.map(lambda part: jax.ShapeDtypeStruct((*lead, *part.shape), part.dtype), spaces.observation)
    more, takes = (), "network.apply(params, obs) must take any leading axes as a batch"
    try:
        if network.memory is not None:
            takes = "network.apply(params, obs, first, memory) must take [N] as a step and [T, N] as a sequence"
            memory = jax.eval_shape(lambda: network.memory(lead[-1]))
            more = (jax.ShapeDtypeStruct(lead, bool), memory)
        return jax.eval_shape(lambda key, obs, *more: network.apply(network.init(key), obs, *more), key, obs, *more)
    except Exception as error:
        raise InputError(
            f"the network fails on observations with the leading axes {lead} ({type(error).__name__}: {error}); {takes}"
        ) from error


def _check_memories(network: Network, memories: PyTree, lead: tuple[int, ...]) -> None:
    start = jax.eval_shape(lambda: network.memory(lead[-1]))
    wanted = jax.tree.map(lambda x: ((*lead, *x.shape[1:]), x.dtype), start)
    given = jax.tree.map(lambda x: (x.shape, x.dtype), memories)
    if wanted != given:
        raise InputError(
            f"the network's memories are {given} for a batch of {lead}; they must be {wanted}: the memory after each "
            "step, as network.memory(num_envs) begins it"
        )


def _check_value(value: Any, lead: tuple[int, ...]) -> None:
    shape = getattr(value, "shape", None)
    if shape == (*lead, 1):
        raise InputError("the network's value has the shape of the batch and a 1; give value[..., 0]")
    if shape != lead:
        raise InputError(f"the network's value has shape {shape} for a batch of {lead}; it must be that of the batch")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(f"the network's value has dtype {value.dtype}; it must be of floats")


def check_distribution(distribution: Any, space: Space, batch_shape: tuple[int, ...]) -> None:
    """Hold a policy's distribution (of arrays, or of their shapes) to an action space and the shape of a batch.

    Raises InputError, with what to change, where log-probabilities or actions have other shapes or kinds.
    """
    missing = [method for method in _METHODS if not callable(getattr(distribution, method, None))]
    if missing:
        raise InputError(
            f"the policy gives {_named(distribution)}, which has no {', '.join(missing)}; "
            "give a distribution, as those in jaxrl.ops.distributions"
        )
    check_width(distribution, space)

    def use(distribution, key):
        action = distribution.sample(key)
        scores = distribution.log_prob(action), distribution.entropy(key)
        return action, distribution.mode(), distribution.env_action(action), scores

    try:
        action, mode, env_action, scores = jax.eval_shape(use, distribution, jax.random.key(0))
    except Exception as error:
        raise InputError(
            f"the policy's {type(distribution).__name__} fails ({type(error).__name__}: {error})"
        ) from error
    for name, score in zip(("log_prob", "entropy"), scores, strict=True):
        if score.shape != batch_shape:
            raise InputError(
                f"the policy's {name} has shape {score.shape} for a batch of {batch_shape}; sum it over actions' axes"
            )
    for name, given in (("sample", action), ("mode", mode), ("env_action", env_action)):
        _check_action(name, given, space, batch_shape)


def _check_action(name: str, action: PyTree, space: Space, batch_shape: tuple[int, ...]) -> None:
    if jax.tree.structure(action) != jax.tree.structure(space):
        raise InputError(f"the policy's {name} is {_named(action)}; it must have the structure of the space {space}")
    for given, part in zip(jax.tree.leaves(action), jax.tree.leaves(space), strict=True):
        expected = (*batch_shape, *part.shape)
        if given.shape != expected:
            raise InputError(
                f"the policy's {name} has shape {given.shape}; for a batch of {batch_shape} and the action "
                f"space {part} it must be {expected}"
            )
        kind = jnp.floating if jnp.issubdtype(part.dtype, jnp.floating) else jnp.integer
        if not jnp.issubdtype(given.dtype, kind):
            raise InputError(
                f"the policy's {name} has dtype {given.dtype}, which does not suit the action space {part}; "
                f"it must be of {'floats' if kind is jnp.floating else 'integers'}"
            )


def _named(x: Any) -> str:
    size = f" of {len(x)}" if type(x) in (tuple, list, dict) else ""
    return f"a {type(x).__name__}{size}"
