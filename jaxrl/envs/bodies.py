"""Many bodies in one environment: a leading axis in every leaf."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.settings import EnvConfig
from jaxrl.types import InputError


def num_bodies(env: Any) -> int:
    """The length of the leading axis of every leaf of `env`.

    Raises InputError if there is no such axis, or if the leaves disagree about it.
    """
    sizes = {jnp.shape(x)[:1] for x in jax.tree.leaves(env)}
    if len(sizes) != 1 or sizes == {()}:
        found = ", ".join(sorted(str(jnp.shape(x)) for x in jax.tree.leaves(env))) or "no leaves at all"
        raise InputError(
            f"env_axis = 0 needs an environment whose every leaf has a leading axis of bodies; this one has leaves of "
            f"shapes {found}. Stack bodies with jax.tree.map(lambda *x: jnp.stack(x), *bodies), or leave env_axis out"
        )
    return sizes.pop()[0]


def check_bodies(config: EnvConfig, env: Any) -> None:
    """Hold the number of bodies in `env` to the config's num_envs, one for each; nothing to do without env_axis.

    Raises InputError where they differ: while learning, some bodies would be met more often than others.
    """
    if config.env_axis is None:
        return
    found = num_bodies(env)
    if found != config.num_envs:
        raise InputError(
            f"env.num_envs = {config.num_envs}, but the environment given has {found} bodies; "
            f"set env.num_envs to {found}, one for each"
        )


def repeated(env: Any, num_envs: int) -> Any:
    """`env` with `num_envs` bodies of the B that it has, itself where B is that number: over and over where there are
    fewer, evenly spread where there are more, lest an evaluation meet the first of a sorted lot only.
    """
    found = num_bodies(env)
    if found == num_envs:
        return env
    which = np.arange(num_envs) % found if num_envs > found else np.arange(num_envs) * found // num_envs
    return jax.tree.map(lambda x: jnp.asarray(x)[which], env)
