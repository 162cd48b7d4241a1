"""Checkpoints of a whole pytree, by Orbax, exact or refused.

Orbax alone casts a wrong dtype silently and cannot restore a module that holds a list, so the tree is saved as a flat
{key path: leaf} dict beside a manifest of paths, shapes and dtypes, which is compared before anything is restored.
"""

import functools
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import InputError, PyTree


class Checkpoints:
    """The checkpoints of one run, numbered by step, in a directory. The newest `keep` are kept."""

    def __init__(self, directory: str | Path, keep: int = 2):
        self._directory, self._keep = Path(directory).resolve(), keep

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._directory, options=options)

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first. A save that was cut short is not among them."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: PyTree) -> None:
        """Write the tree; it can be restored once this returns, and not before."""
        leaves = _flatten(tree)
        manifest = {path: _describe(leaf) for path, leaf in leaves.items()}
        arrays = {path: _data(leaf) for path, leaf in leaves.items()}
        ocp = _orbax()
        args = ocp.args.Composite(tree=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest))
        self._manager.save(step, args=args)

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """The tree saved at `step` (the newest by default), in the structure of `template`: a tree of arrays, or of
        the shapes that `jax.eval_shape` gives.

        Raises InputError with a sentence if there is none, or if any leaf has another name, shape or dtype.
        """
        ocp, steps = _orbax(), self.steps()
        if not steps or (step is not None and step not in steps):
            raise InputError(f"no checkpoint{'' if step is None else f' of step {step}'} in {self._directory}")
        step = steps[-1] if step is None else step
        wanted = _flatten(template)
        saved = self._manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))["manifest"]
        _compare(saved, {path: _describe(leaf) for path, leaf in wanted.items()})
        shapes = {path: _shape(leaf) for path, leaf in wanted.items()}
        arrays = self._manager.restore(step, args=ocp.args.Composite(tree=ocp.args.StandardRestore(shapes)))["tree"]
        leaves = [_undata(leaf, arrays[path]) for path, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def close(self) -> None:
        """Let go of the directory."""
        if "_manager" in self.__dict__:
            self._manager.close()


def _orbax() -> Any:
    # Half a second of imports, and the first checkpoint is some way into a run.
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.WARNING)
    return orbax.checkpoint


def _flatten(tree: PyTree) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _data(leaf: Any) -> jax.Array:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    made = jax.eval_shape(_data, leaf)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(made.shape, made.dtype, sharding=device)


def _undata(like: Any, array: jax.Array) -> jax.Array:
    # By way of the host: Orbax's arrays are committed to their device, and would compile a second program.
    array = jnp.asarray(np.asarray(array))
    return jax.random.wrap_key_data(array) if _is_key(like) else array


def _compare(saved: dict[str, str], wanted: dict[str, str]) -> None:
    advice = "restore it with the config, environment and versions that it was saved with"
    for path in {**wanted, **saved}:
        if path not in saved:
            raise InputError(f"the checkpoint has no {path} ({wanted[path]}); {advice}")
        if path not in wanted:
            raise InputError(f"the checkpoint holds {path} ({saved[path]}), which this run does not have; {advice}")
        if saved[path] != wanted[path]:
            raise InputError(f"the checkpoint's {path} is {saved[path]}, but this run needs {wanted[path]}; {advice}")
