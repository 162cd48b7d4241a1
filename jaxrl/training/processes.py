"""Several processes as one program, by JAX's own runtime: each has the devices of its machine, all run the same lines,
and what is computed over all devices is the same in each.
"""

import os
from typing import Any

import jax
import numpy as np

from jaxrl.ops.shards import on_host, over_all
from jaxrl.training.leaves import data, is_key
from jaxrl.types import InputError, PyTree

_HEARTBEAT = 30  # seconds without a word after which a process is taken for dead, and the others end
_LONGEST = 2**13  # bytes of a text that is told to all
_OURS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize() -> None:
    """Join the other processes, where this one was started as one of several; call it before anything is computed.

    They are told by JAX_COORDINATOR_ADDRESS (HOST:PORT of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID, as
    `scripts/launch` sets them; or found by JAX: in a step of SLURM, where TPU_WORKER_HOSTNAMES names several, and, on
    whatever it knows, where the first of the three is "auto". Does nothing where there is one process, or when they are
    joined already. Raises InputError where only some of the three are set.
    """
    if jax.distributed.is_initialized():
        return
    told = [os.environ.get(name) for name in _OURS]
    if told[0] == "auto":
        del os.environ[_OURS[0]]  # JAX would take it for an address
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)
    elif any(told):
        missing = [name for name, value in zip(_OURS, told, strict=True) if not value]
        if missing:
            raise InputError(f"{' and '.join(missing)} must be set too, as scripts/launch does")
        address, count, number = told[0], *map(_whole_number, _OURS[1:])
        jax.distributed.initialize(address, count, number, heartbeat_timeout_seconds=_HEARTBEAT)
    elif _of_several():
        jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT)


def _whole_number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise InputError(f"{name} = {os.environ[name]!r} is no whole number; set one, as scripts/launch does") from None


def _of_several() -> bool:
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get("TPU_WORKER_HOSTNAMES") or ""
    return "," in hosts or int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def agreed(*numbers: int) -> tuple[int, ...]:
    """The largest that any process gives, of each, once all have come to this line: what is decided by a clock or a
    signal all must decide alike."""
    if jax.process_count() == 1:
        return numbers
    own = np.tile(np.array(numbers, np.int32), (jax.local_device_count(), 1))
    each = jax.make_array_from_process_local_data(over_all("all"), own)
    return tuple(int(n) for n in np.max(on_host(each), axis=0))


def from_first(text: str) -> str:
    """The text that the first process gives, in all of them."""
    own = text.encode().ljust(_LONGEST) if is_first() else bytes(_LONGEST)
    return bytes(agreed(*own)).decode().rstrip()


def gathered(leaves: list[jax.Array]) -> list[Any]:
    """All of them, whole, on this host, wherever their parts lie. One after the other: no device has room for all."""
    return jax.device_get(leaves) if jax.process_count() == 1 else [on_host(x) for x in leaves]


def waits() -> bool:
    """Whether each program is waited for: on CPUs several processes would run two at once, in another order in each,
    and each would take the other's sums."""
    return jax.process_count() > 1 and jax.default_backend() == "cpu"


def one_at_a_time(tree: PyTree) -> PyTree:
    """The tree, waited for where programs go in turns."""
    return jax.block_until_ready(tree) if waits() else tree


def placed(tree: PyTree, places: PyTree | None) -> PyTree:
    """What this host has whole, on the devices where it belongs."""

    def put(x: jax.Array, place: jax.sharding.Sharding) -> jax.Array:
        if isinstance(x, jax.Array) and (jax.process_count() == 1 or not x.is_fully_addressable):
            return jax.device_put(x, place)
        if is_key(x):
            return jax.random.wrap_key_data(put(data(x), place), impl=jax.random.key_impl(x))
        whole = np.asarray(x)
        return jax.make_array_from_callback(x.shape, place, lambda part: whole[part])

    return tree if places is None else jax.tree.map(put, tree, places)
