"""What a network or a policy must give, held to by tracing alone: nothing is computed."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.ops.distributions import Categorical, DiagGaussian, MultiCategorical, TanhDiagGaussian
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, Network, PyTree

_METHODS = ("sample", "log_prob", "entropy", "mode", "env_action")
_BATCH = (2, 3)


def check_outputs(network: Network, spaces: Spaces) -> None:
    """Hold an actor-critic to its outputs: `apply(params, obs)` must give (distribution, value) for observations with
    any leading axes.

    Raises InputError, with what to change, where it does not.
    """
    key = jax.random.key(0)
    obs = jax.tree.map(lambda part: jax.ShapeDtypeStruct((*_BATCH, *part.shape), part.dtype), spaces.observation)
    try:
        out = jax.eval_shape(lambda key, obs: network.apply(network.init(key), obs), key, obs)
    except Exception as error:
        raise InputError(
            f"the network fails on observations with the leading axes {_BATCH} ({type(error).__name__}: {error}); "
            "network.apply(params, obs) must take any leading axes as a batch"
        ) from error
    if type(out) is not tuple or len(out) != 2:
        raise InputError(f"network.apply gives {_named(out)}; it must give (distribution, value)")
    distribution, value = out
    check_distribution(distribution, spaces.action, _BATCH)
    _check_value(value)


def _check_value(value: Any) -> None:
    shape = getattr(value, "shape", None)
    if shape == (*_BATCH, 1):
        raise InputError("the network's value has the shape of the batch and a 1; give value[..., 0]")
    if shape != _BATCH:
        raise InputError(f"the network's value has shape {shape} for a batch of {_BATCH}; it must be that of the batch")
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
    _check_width(distribution, space)

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


def _check_width(distribution: Any, space: Space) -> None:
    if isinstance(distribution, Categorical) and isinstance(space, Discrete):
        _same("logits", distribution.logits.shape[-1], space.n, "actions")
    if isinstance(distribution, MultiCategorical) and isinstance(space, MultiDiscrete):
        _same("parts", len(distribution.parts), len(space.nvec), "entries of an action")
        for part, n in zip(distribution.parts, space.nvec, strict=True):
            _same("logits of a part", part.logits.shape[-1], n, "values of that entry")
    if isinstance(distribution, DiagGaussian | TanhDiagGaussian) and isinstance(space, Box):
        _same("means", distribution.mean.shape[-1], math.prod(space.shape), "entries of an action")


def _same(what: str, given: int, wanted: int, of: str) -> None:
    if given != wanted:
        raise InputError(f"the policy gives {given} {what} for {wanted} {of}; give as many as there are")


def _named(x: Any) -> str:
    size = f" of {len(x)}" if type(x) in (tuple, list, dict) else ""
    return f"a {type(x).__name__}{size}"
