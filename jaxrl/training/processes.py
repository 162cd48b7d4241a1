"""Several processes as one program, by JAX's own runtime: each has the devices of its machine, all run the same lines,
and what is computed over all devices is the same in each.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

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
    joined already. From here on an exception that nothing catches ends the process at once, so that the others hear of
    it. Raises InputError where only some of the three are set, and where JAX does not find the others.
    """
    if jax.distributed.is_initialized():
        return
    told, options = [os.environ.get(name) for name in _OURS], {"heartbeat_timeout_seconds": _HEARTBEAT}
    if told[0] == "auto" or (not any(told) and _of_several()):
        if told[0]:
            del os.environ[_OURS[0]]  # JAX would take it for an address
        try:
            jax.distributed.initialize(local_device_ids=own_gpus(os.environ), **options)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"JAX does not find the other processes ({error}); set {', '.join(_OURS)}, or, for one process, "
                f"SLURM_STEP_NUM_TASKS=1"
            ) from None
    elif any(told):
        missing = [name for name, value in zip(_OURS, told, strict=True) if not value]
        if missing:
            raise InputError(f"{' and '.join(missing)} must be set too, as scripts/launch does")
        address, count, number = told[0], *map(_whole_number, _OURS[1:])
        if not address.rpartition(":")[2].isdigit():
            raise InputError(f"{_OURS[0]} = {address!r} names no port; set HOST:PORT, as in 10.0.0.1:1234")
        # Nothing is to be found: within a job of SLURM, JAX would give each the GPU of SLURM's number for it.
        jax.distributed.initialize(address, count, number, cluster_detection_method="deactivate", **options)
    else:
        return
    sys.excepthook = functools.partial(_told_and_ended, sys.excepthook)


def _told_and_ended(tell: Callable[..., None], kind: type, error: BaseException, trace: Any) -> None:
    """JAX's own end of one of several processes waits for the others, which may wait for this one."""
    tell(kind, error, trace)
    end_at_once(1)


def end_at_once(status: int) -> NoReturn:
    """End this process without waiting for the others, which end then too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def own_gpus(env: Mapping[str, str]) -> list[int] | None:
    """Which of the GPUs that it sees a task of SLURM takes: an equal share of them with the other tasks of its node, or
    all where it sees none but its own; None where that is not for SLURM to say. JAX by itself would take one, that of
    the task's number on its node.

    Raises InputError where they cannot be dealt evenly.
    """
    seen = env.get("CUDA_VISIBLE_DEVICES", "")
    if "SLURM_LOCALID" not in env or not seen or "JAX_LOCAL_DEVICE_IDS" in env:
        return None
    count, tasks = len(seen.split(",")), _tasks_here(env)
    if count < tasks or count < int(env.get("SLURM_GPUS_ON_NODE") or count):  # bound to this task
        return list(range(count))
    if count % tasks:
        raise InputError(
            f"{count} GPUs cannot be dealt to {tasks} tasks of a node; start a number that divides them "
            "(--ntasks-per-node)"
        )
    each = count // tasks
    return list(range(int(env["SLURM_LOCALID"]) * each, (int(env["SLURM_LOCALID"]) + 1) * each))


def _tasks_here(env: Mapping[str, str]) -> int:
    """Of a step of SLURM on this node; it tells them as in 4(x2),3, node by node."""
    told = env.get("SLURM_STEP_TASKS_PER_NODE") or "1"
    by_node = [tasks for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", told) for _ in range(int(nodes or 1))]
    return int(by_node[min(int(env.get("SLURM_NODEID") or 0), len(by_node) - 1)])


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
