"""One program as several shards: on the devices of a mesh, side by side on each, or both. The numbers are the same
wherever the shards lie, but for the order in which sums are taken.

Each shard has its environments, draws its own random numbers and shuffles its own steps; all have one learner, which
stays the same because what it learns from is added up (`jaxrl.ops.shards`). XLA's runtime carries the sums (`shard_map`
over a mesh: the collectives are those that are written, and no other).
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl.lm.layout import over_all_devices, rows_at_once
from jaxrl.lm.settings import ModelParallel
from jaxrl.ops import shards
from jaxrl.settings import parallel_of, shard_of
from jaxrl.types import Batch, Carry, InputError, Key, Learner, Metrics, Program, PyTree, TrainState

T = TypeVar("T")
_SAME, _EACH = PartitionSpec(), PartitionSpec(shards.DEVICES)


def mesh_of(count: int) -> Mesh | AbstractMesh:
    """The mesh that a user has set (`jax.set_mesh`), where it has an axis "data"; else as many devices as shards can be
    dealt to evenly. Raises InputError where they cannot be dealt to the user's."""
    ambient = shards.mesh_that_is_set()
    if shards.DEVICES in ambient.axis_names:
        if AxisType.Explicit in ambient.axis_types:
            raise InputError(
                "the mesh that is set has explicit axes; make it with axis_types=(AxisType.Auto,), or set none: as "
                "many devices are taken then as there are shards"
            )
        if count % (devices := ambient.shape[shards.DEVICES]):
            raise InputError(
                f'parallel.data = {count} shards cannot be dealt to the {devices} devices of axis "{shards.DEVICES}" '
                f"of the mesh that is set; try {devices}"
            )
        return ambient
    devices = max(d for d in range(1, min(count, jax.device_count()) + 1) if count % d == 0)
    if jax.process_count() > 1 and devices < jax.device_count():
        raise InputError(
            f"parallel.data = {count} shards cannot be dealt to the {jax.device_count()} devices of "
            f"{jax.process_count()} processes, each of which must have some; make num_envs a multiple of "
            f"{jax.device_count()}, or start fewer processes"
        )
    return jax.make_mesh((devices,), (shards.DEVICES,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def over_devices(config: T) -> T:
    """The config with a shard for each device, or for as many as come out even, where it leaves that open."""
    section = getattr(config, "parallel", None)
    if isinstance(section, ModelParallel) and section.data is None:
        data = over_all_devices(section, rows_at_once(config))
        return dataclasses.replace(config, parallel=dataclasses.replace(section, data=data))
    parallel = parallel_of(config)
    if parallel.data is not None:
        return config
    for count in range(jax.device_count(), 1, -1):
        with contextlib.suppress(InputError):
            shard_of(config, count)
            return dataclasses.replace(config, parallel=dataclasses.replace(parallel, data=count))
    return config


def spread(p: Program, count: int) -> Program:
    """`count` shards of which each is `p`, with one learner. What each has of its own gets a leading axis [count].

    Raises InputError for programs that the host takes part in.
    """
    if p.host is not None:
        raise InputError(f"part of {p.label} runs on the host, which feeds one shard; set parallel.data = 1")
    mesh, learns = mesh_of(count), p.algorithm
    by_env = learns.by_env or (lambda learner: jax.tree.map(lambda _: False, learner))

    def apart(function: Callable, given: PyTree, made: PyTree) -> Callable:
        """function of every shard's arguments. given, made: whether each argument and result is each shard's own; bools
        or pytrees of them."""
        beside = count // mesh.shape[shards.DEVICES]

        def on_device(*args: PyTree) -> PyTree:
            if beside > 1:
                axes = jax.tree.map(lambda own: 0 if own else None, (given, made))
                return jax.vmap(function, *axes, axis_name=shards.SIDE_BY_SIDE, axis_size=beside)(*args)
            # One needs no map, in which every branch of a choice would be taken.
            own = function(*_on_leaves(lambda x: x[0], given, args))
            return _on_leaves(lambda x: x[None], made, own)

        specs = jax.tree.map(lambda own: _EACH if own else _SAME, (given, made))
        return jax.shard_map(on_device, mesh=mesh, in_specs=specs[0], out_specs=specs[1], check_vma=False)

    def init(key: Key) -> Learner:
        learner = learns.init(key)
        return _on_leaves(lambda x: jnp.broadcast_to(x, (count, *x.shape)), by_env(learner), learner)

    def update(key: Key, learner: Learner, batch: Batch) -> tuple[Learner, Metrics]:
        def one(key: Key, learner: Learner, batch: Batch) -> tuple[Learner, Metrics]:
            learner, metrics = learns.update(shards.own(key), learner, batch)
            return learner, shards.total(metrics)

        own = by_env(learner)
        return apart(one, (False, own, True), (own, False))(key, learner, batch)

    def start(key: Key) -> Carry:
        return apart(lambda key: p.source.init(shards.own(key)), (False,), True)(key)

    def collect(key: Key, learner: Learner, carry: Carry) -> tuple[Carry, Batch]:
        def one(key: Key, learner: Learner, carry: Carry) -> tuple[Carry, Batch]:
            return p.source.collect(shards.own(key), learner, carry)

        return apart(one, (False, by_env(learner), True), (True, True))(key, learner, carry)

    def places(state: TrainState) -> TrainState:
        own = TrainState(False, by_env(state.learner), jax.tree.map(lambda _: True, state.carry), False)
        return jax.tree.map(lambda own: NamedSharding(mesh, _EACH if own else _SAME), own)

    return p._replace(
        algorithm=learns._replace(init=init, update=update),
        source=p.source._replace(init=start, collect=collect),
        total_steps=p.total_steps * count,
        steps_per_update=p.steps_per_update * count,
        places=places,
    )


def _on_leaves(function: Callable, where: PyTree, tree: PyTree) -> PyTree:
    """The tree with function(leaf) where `where`, the tree's beginning, says so."""
    return jax.tree.map(lambda own, part: jax.tree.map(function, part) if own else part, where, tree)
