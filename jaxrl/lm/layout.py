"""Where a language model and its rows lie on a mesh of devices. XLA partitions the program accordingly (GSPMD, Xu et
al. 2021, arXiv 2105.04663) and makes what has to be exchanged; the numbers are those of one device, but for rounding.

Axes: "data" deals rows; "fsdp" deals rows too, and the parameters, their gradients and Adam's moments, each gathered a
layer at a time where it is used (Rajbhandari et al. 2020, arXiv 1910.02054, stage 3); "tensor" deals heads, the width
of the MLP and the vocabulary (Shoeybi et al. 2019, arXiv 1909.08053).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl.lm.settings import ModelParallel
from jaxrl.lm.transformer import ModelConfig
from jaxrl.ops.shards import mesh_that_is_set
from jaxrl.types import Batch, InputError, Key, Learner, Metrics, Program, PyTree, TrainState

AXES = ("data", "fsdp", "tensor")
# Whether "tensor" deals the outputs or the inputs of a kernel [in, out], and of its adapter's A [in, r] or B [r, out].
_BY_OUT = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", ".head.kernel")
_BY_IN = ("o_proj", "down_proj")
_SMALL = 2**12  # numbers a matrix: to gather one costs more than it saves


def mesh_of(parallel: ModelParallel) -> Mesh | AbstractMesh | None:
    """The mesh that a user has set (`jax.set_mesh`), where it has the axes above; else the one that the settings ask
    for, None where that is one device. Raises InputError where there are fewer devices, or the user's is another."""
    sizes = (parallel.data or 1, parallel.fsdp, parallel.tensor)
    wanted, there = math.prod(sizes), jax.device_count()
    each = " × ".join(f"parallel.{name} = {size}" for name, size in zip(AXES, sizes, strict=True))
    if (ambient := _set_by_user()) is not None:
        if AxisType.Explicit in ambient.axis_types:
            raise InputError(
                "the mesh that is set has explicit axes, and a whole run is left to XLA to partition; make it with "
                "axis_types=(AxisType.Auto,) * 3 (with explicit ones the model's functions, losses and updates work)"
            )
        if wanted > 1 and any(ambient.shape[name] != size for name, size in zip(AXES, sizes, strict=True)):
            raise InputError(f"{each}, and the mesh that is set is {dict(ambient.shape)}; leave the settings out")
        return ambient
    if wanted == 1 and jax.process_count() == 1:
        return None
    if wanted > there:
        raise InputError(f"{each} takes {wanted} devices, and there are {there}; make one smaller")
    if jax.process_count() > 1 and wanted < there:
        if there % (parallel.fsdp * parallel.tensor):
            remedy = f"take parallel.fsdp and parallel.tensor whose product divides {there}"
        else:
            rows = f"a multiple of {there // parallel.tensor}"
            remedy = f"leave parallel.data out, and let the rows of a gradient (micro_batch_size, if set) be {rows}"
        raise InputError(f"{each}, and all {there} devices of {jax.process_count()} processes must be used; {remedy}")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.devices()[:wanted])


def _set_by_user() -> Mesh | AbstractMesh | None:
    mesh = mesh_that_is_set()
    return mesh if set(AXES) <= set(mesh.axis_names) else None


def rows_at_once(config: Any) -> int:
    """Rows of which `config` takes one gradient: those that the mesh must deal evenly."""
    return config.loop.micro_batch_size or config.loop.batch_size // getattr(config, "num_minibatches", 1)


def over_all_devices(parallel: ModelParallel, rows: int) -> int | None:
    """The largest parallel.data that the devices and so many rows admit; None where a user has set the mesh."""
    if _set_by_user() is not None:
        return None
    most = max(1, jax.device_count() // (parallel.fsdp * parallel.tensor))
    return next((n for n in range(most, 1, -1) if rows % (n * parallel.fsdp) == 0), 1)


def parameter_places(mesh: Mesh | AbstractMesh, tree: PyTree) -> PyTree:
    """A NamedSharding for every leaf of parameters, or of what has leaves of their names and shapes: gradients,
    moments, adapters. Matrices alone are dealt, along axes that come out even, never along that of the layers."""

    def place(path: tuple, x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path)
        first = 1 if ".layers." in name or "_proj'" in name else 0  # adapters are of all layers too
        spec: list[str | None] = [None] * len(x.shape)
        at = _tensor_axis(name, len(x.shape) - first)
        if at is not None and x.shape[at] % mesh.shape["tensor"] == 0:
            spec[at] = "tensor"
        free = [i for i in range(first, len(spec)) if spec[i] is None and x.shape[i] % mesh.shape["fsdp"] == 0]
        if len(spec) - first == 2 and math.prod(x.shape[first:]) > _SMALL and free:
            spec[max(free, key=lambda i: x.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(place, tree)


def _tensor_axis(name: str, dims: int) -> int | None:
    owner = next((part for part in (*_BY_OUT, *_BY_IN) if part in name), None)
    if owner is None:
        return 0 if ".embed" in name else None
    if dims == 1:  # a bias
        return -1 if owner in _BY_OUT else None
    adapter = name.rsplit(".", 1)[-1] in ("a", "b") or ".lora_" in name
    in_a = adapter and (name.endswith(".a") or "lora_a" in name)
    if owner in _BY_OUT:
        return None if in_a else -1
    return -2 if in_a or not adapter else None


def laid_out(config: Any, model: ModelConfig, p: Program) -> Program:
    """The program of a config with `loop`, on the mesh that its section `parallel` asks for, if it has one.

    Raises InputError where there are not so many devices, or rows or heads cannot be dealt to them evenly.
    """
    mesh = mesh_of(getattr(config, "parallel", ModelParallel()))  # a user's own config may have none
    if mesh is None:
        return p
    rows, dealt = rows_at_once(config), mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % dealt:
        raise InputError(
            f"{rows} rows, of which a gradient is taken at once, cannot be dealt to parallel.data × parallel.fsdp = "
            f"{dealt} devices; set micro_batch_size, or batch_size, to a multiple of {dealt}"
        )
    if (heads := model.num_key_value_heads) % (tensor := mesh.shape["tensor"]):
        near = max(n for n in range(1, min(heads, tensor) + 1) if heads % n == 0)
        raise InputError(
            f"the model's {heads} key-value heads cannot be dealt to parallel.tensor = {tensor}; try {near}"
        )
    whole = NamedSharding(mesh, PartitionSpec())

    def on_mesh(function: Callable) -> Callable:
        @functools.wraps(function)
        def called(*args: PyTree) -> PyTree:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return function(*args)

        return called

    def given_places(given: dict[str, Any]) -> dict[str, Any]:
        rest = {name: jax.tree.map(lambda _: whole, value) for name, value in given.items() if name != "params"}
        return {**rest, "params": parameter_places(mesh, given["params"])}

    def places(state: TrainState) -> TrainState:
        rest = jax.tree.map(lambda _: whole, state)
        return rest._replace(learner=parameter_places(mesh, state.learner))

    learns = p.algorithm

    def kept(learner: Learner) -> Learner:
        return jax.lax.with_sharding_constraint(learner, parameter_places(mesh, learner))

    def update(key: Key, learner: Learner, batch: Batch) -> tuple[Learner, Metrics]:
        learner, metrics = learns.update(key, learner, batch)
        return kept(learner), metrics

    return p._replace(
        algorithm=learns._replace(
            init=lambda key: kept(learns.init(key)),
            update=on_mesh(update),
            measure=None if learns.measure is None else on_mesh(learns.measure),
        ),
        source=p.source._replace(collect=on_mesh(p.source.collect)),
        evaluators=tuple(e._replace(measure=on_mesh(e.measure)) for e in p.evaluators),
        places=places,
        given_places=given_places,
    )
