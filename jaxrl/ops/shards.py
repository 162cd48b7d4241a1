"""What the shards of one program have to tell each other; and, below, where the rows of one batch lie.

`training.parallel` maps a program over shards, on several devices, side by side on one, or both. Each has environments,
random numbers and minibatches of its own; the learner is the same on all, because all that it learns from is added up
here. Outside such a map there is one shard, and every function here gives back what it is given.
"""

import contextlib
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from jaxrl.types import Key, PyTree

DEVICES, SIDE_BY_SIDE = "data", "shard"  # the mesh's axis, and the one that is mapped on each device
ROWS = ("data", "fsdp")  # axes of a mesh that the rows of a batch are dealt over, where XLA partitions the program


def _axes() -> tuple[str, ...]:
    return tuple(name for name in (DEVICES, SIDE_BY_SIDE) if _is_mapped(name))


def _is_mapped(name: str) -> bool:
    try:
        jax.lax.axis_size(name)
    except NameError:
        return False
    return True


def apart() -> bool:
    """Whether there are several."""
    return bool(_axes())


def total(tree: PyTree) -> PyTree:
    """Σ over the shards, leaf by leaf, of floats: one all-reduce, however many leaves there are."""
    if not apart():
        return tree
    flat, whole = ravel_pytree(tree)
    return whole(jax.lax.psum(flat, _axes()))


def own(key: Key) -> Key:
    """A key for this shard alone, of one that all have: the same wherever it lies."""
    return jax.random.fold_in(key, jax.lax.axis_index(_axes())) if apart() else key


def mean_and_variance(
    x: Float[Array, "..."], where: Bool[Array, "..."] | None = None, axis: int | None = None
) -> tuple[Array, Array]:
    """Of all shards' numbers, or of those selected, over all axes or one: as of one array that holds them all."""
    if not apart():
        return jnp.mean(x, axis=axis, where=where), jnp.var(x, axis=axis, where=where)
    counted = jnp.ones_like(x) if where is None else jnp.broadcast_to(where, x.shape).astype(x.dtype)

    def summed(x: Array) -> Array:
        return jnp.sum(jnp.where(counted > 0, x, 0.0), axis=axis)

    count, mean = total((summed(counted), summed(x)))
    mean = mean / count
    # In a second round: the difference of two sums of squares would lose what is small beside the mean.
    return mean, total(summed(jnp.square(x - (mean if axis is None else jnp.expand_dims(mean, axis))))) / count


def standardized(x: Float[Array, "..."], where: Bool[Array, "..."] | None = None) -> Float[Array, "..."]:
    """(x - mean)/(std + 1e-8), over all shards."""
    mean, variance = mean_and_variance(x, where)
    return (x - mean) / (jnp.sqrt(variance) + 1e-8)


# --- rows of a batch on a mesh that has been set, which XLA partitions a program over: no shard knows of the others


def rows_apart(batch: PyTree) -> PyTree:
    """The batch, its rows dealt over the mesh: without this XLA may have each device compute all of them. As it is
    where no mesh is set, and leaves whose rows do not come out even."""
    axes, shards = _row_axes()

    def dealt(x: Array) -> Array:
        if not x.ndim or x.shape[0] % shards:
            return x
        free = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
        return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *free))

    return jax.tree.map(dealt, batch) if axes else batch


def looked_up(table: Float[Array, "V D"], rows: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """table[rows], of rows that are dealt over the mesh, where columns of the table may be: each device gets all of
    the columns first, for XLA would have every device look up all rows."""
    if _row_axes()[0]:
        table = jax.lax.with_sharding_constraint(table, PartitionSpec(PartitionSpec.UNCONSTRAINED, None))
    return rows_apart(table[rows_apart(rows)])


def by_rows(function: Callable[..., PyTree], rows: tuple[PyTree, ...], given: tuple[PyTree, ...] = ()) -> PyTree:
    """function(*rows, *given), on each device of its own rows alone: for what would else be exchanged though no row
    needs another, as in a sort, or a loop that ends when all have ended. given: the same for every row."""
    axes, shards = _row_axes()
    if not axes or any(x.shape[0] % shards for x in jax.tree.leaves(rows)):
        return function(*rows, *given)
    own, same = PartitionSpec(axes), PartitionSpec()
    specs = (own,) * len(rows) + (same,) * len(given)
    alone = jax.shard_map(function, in_specs=specs, out_specs=own, axis_names={*axes}, check_vma=False)
    return alone(*rows, *given)


def in_step(x: Int[Array, ""]) -> Int[Array, ""]:
    """Within `by_rows`, the largest of any device's, where another axis of the mesh is left to XLA: what that exchanges
    in a loop, all must exchange equally often. Else x itself."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = [(n, kind) for n, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if mesh.shape[n] > 1]
    mapped = tuple(name for name, kind in kinds if kind == AxisType.Manual)
    return jax.lax.pmax(x, mapped) if mapped and len(mapped) < len(kinds) else x


def mesh_that_is_set() -> Mesh | AbstractMesh:
    """By `jax.set_mesh`, with its devices; without them where something is being traced. Empty where none is."""
    with contextlib.suppress(ValueError):  # within a trace
        if not (mesh := jax.sharding.get_mesh()).empty:
            return mesh
    return jax.sharding.get_abstract_mesh()


def _row_axes() -> tuple[tuple[str, ...], int]:
    """Those of the mesh that is set which XLA partitions over, and how many shards they make."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    axes = tuple(name for name in ROWS if kinds.get(name) == AxisType.Auto and mesh.shape[name] > 1)
    return axes, math.prod(mesh.shape[name] for name in axes)


def typed_by_rows(function: Callable[..., PyTree], which: int) -> Callable[..., PyTree]:
    """`function` on a mesh with explicit axes too, as `jax.make_mesh` makes them unasked: XLA partitions it as on any
    other, and what it gives lies by rows as its argument number `which` does."""

    @functools.wraps(function)
    def called(*args: PyTree, **options: PyTree) -> PyTree:
        if AxisType.Explicit not in jax.sharding.get_abstract_mesh().axis_types:
            return function(*args, **options)
        spec = jax.typeof(args[which]).sharding.spec
        lies = PartitionSpec(*spec[:1])
        return jax.sharding.auto_axes(lambda *args: function(*args, **options), out_sharding=lies)(*args)

    return called


def on_host(x: jax.Array) -> np.ndarray:
    """All of an array, wherever its parts lie; where some lie with other processes, all must come to this line."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(jax.block_until_ready(_everywhere()(x)))


@functools.cache
def _everywhere() -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=over_all())


def over_all(*axes: str) -> NamedSharding:
    """Over all devices of all processes: by the first axis for "all", else whole on each."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec(*axes))
