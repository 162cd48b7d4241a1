"""From a config and what it is given to the program that every driver runs. This is all that drivers know of a config:

    config.program(**given) -> Program

The names of its arguments are what it can be given beside the config; None, their default, is as if left out.
"""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.ops.platform import in_turns
from jaxrl.settings import check, closest, float32, parallel_of, shard_of
from jaxrl.training.parallel import spread
from jaxrl.types import InputError, Program

_MOST_STEPS = 2**31 - 1  # TrainState counts steps in 32 bits


def program(config: Any, **given: Any) -> Program:
    """The program of a config. Raises InputError, before anything is compiled, for a config that cannot be, for
    something given that it does not take, and for a length that is not a whole number of updates.
    """
    if not callable(getattr(type(config), "program", None)):
        kind = type(config).__name__
        raise InputError(
            f"config = {config!r:.60} is a {kind}, not a config of an algorithm, such as PPO(...) or DPO(...)"
        )
    check(config)
    known = takes(config)
    for name in given:
        if name not in known:
            hint = closest(name, known) or f"; it takes {', '.join(known) or 'nothing beside its config'}"
            raise InputError(f"{type(config).__name__} does not take {name}{hint}")
    _check_one(config)
    made = unchecked(config, **given)
    _check_length(made)
    made.check()
    return made


def unchecked(config: Any, **given: Any) -> Program:
    """The program of a config that `program` has taken, made again."""
    shards = parallel_of(config).data or 1
    if shards == 1:
        made = float32(config).program(**given)
    else:
        made = spread(float32(shard_of(config, shards)).program(**given), shards)
    update = functools.partial(in_turns, made.algorithm.update)
    return made._replace(algorithm=made.algorithm._replace(update=update))


def takes(config: Any) -> list[str]:
    """The names of what it can be given beside itself: env for what acts, data for what learns from rows."""
    return list(inspect.signature(config.program).parameters)


def _check_one(config: Any) -> None:
    # Inside vmap every leaf is a scalar. An array would be broadcast: one discount for each environment, say.
    for path, leaf in jax.tree_util.tree_leaves_with_path(config):
        if jnp.ndim(leaf):
            name, shape = jax.tree_util.keystr(path).removeprefix("."), jnp.shape(leaf)
            raise InputError(
                f"{name} has shape {shape}, so this is a stack of configs; map over it: jax.vmap(train, (axes(config), "
                "None))(config, key)"
            )


def _check_length(p: Program) -> None:
    total, update = p.total_steps, p.steps_per_update
    near = [n for n in (total // update * update, (total // update + 1) * update) if 0 < n <= _MOST_STEPS]
    remedy = f"try {' or '.join(map(str, near))}" if near else "make an update smaller"
    if total > _MOST_STEPS:
        most = _MOST_STEPS // update * update
        raise InputError(f"total_steps = {total} overflows the 32-bit counter of steps; try {most} or fewer")
    if total % update or total < update:
        raise InputError(f"total_steps = {total} is not a multiple of the {update} steps of an update; {remedy}")
