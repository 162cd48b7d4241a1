"""Checkpoints of a whole pytree, by Orbax, exact or refused.

Orbax alone casts a wrong dtype silently, cannot restore a module that holds a list, and reads what a disk has changed
without a word. So the tree is saved as a flat {key path: leaf} dict beside a manifest of paths, shapes, dtypes and a
SHA-256 of every leaf; names, shapes and dtypes are compared before anything is restored, the bytes before it is used.
"""

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import InputError, PyTree


class Newest(NamedTuple):
    """The newest checkpoint that is whole. notes: a sentence for each newer one that is not, and was set aside."""

    tree: PyTree
    step: int
    notes: list[str]


class Damaged(InputError):
    """A checkpoint that is not what was saved."""


class Checkpoints:
    """The checkpoints of one run, numbered by step, in a directory. The newest `keep` are kept."""

    def __init__(self, directory: str | Path, keep: int = 2, read_only: bool = False):
        self._directory, self._keep, self._read_only = Path(directory).resolve(), keep, read_only

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        if self._read_only:  # beside a run that goes on: nothing of it may be changed
            return ocp.CheckpointManager(self._directory, options=ocp.CheckpointManagerOptions(read_only=True))
        options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, enable_async_checkpointing=False)
        return ocp.CheckpointManager(self._directory, options=options)

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first. A save that was cut short is not among them."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: PyTree) -> None:
        """Write the tree; it can be restored once this returns, and not before. Raises RuntimeError if nothing was
        written.
        """
        leaves = _flatten(tree)
        arrays = {path: _data(leaf) for path, leaf in leaves.items()}
        manifest = {path: [_describe(leaf), _digest(arrays[path])] for path, leaf in leaves.items()}
        ocp = _orbax()
        args = ocp.args.Composite(tree=ocp.args.StandardSave(arrays), manifest=ocp.args.JsonSave(manifest))
        if not self._manager.save(step, args=args):
            raise RuntimeError(f"the checkpoint of step {step} was not written to {self._directory}; is there one?")

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """The tree saved at `step` (the newest by default), in the structure of `template`: a tree of arrays, or of
        the shapes that `jax.eval_shape` gives.

        Raises InputError with a sentence if there is none, or if any leaf has another name, shape or dtype, and Damaged
        if it is not what was saved.
        """
        ocp, steps = _orbax(), self.steps()
        if not steps or (step is not None and step not in steps):
            raise InputError(f"no checkpoint{'' if step is None else f' of step {step}'} in {self._directory}")
        step = steps[-1] if step is None else step
        wanted = _flatten(template)
        saved = self._part(step, "manifest", ocp.args.JsonRestore())
        if not isinstance(saved, dict) or not all(isinstance(x, list) and len(x) == 2 for x in saved.values()):
            raise Damaged(f"the checkpoint of step {step} in {self._directory} has a manifest that cannot be read")
        _compare({path: told for path, (told, _) in saved.items()}, {p: _describe(leaf) for p, leaf in wanted.items()})
        shapes = {path: _shape(leaf) for path, leaf in wanted.items()}
        arrays = self._part(step, "tree", ocp.args.StandardRestore(shapes))
        changed = [path for path in wanted if _digest(arrays[path]) != saved[path][1]]
        if changed:
            raise Damaged(
                f"the checkpoint of step {step} in {self._directory} is damaged: {changed[0]} is not what was saved"
            )
        leaves = [_undata(leaf, arrays[path]) for path, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def newest(self, template: PyTree) -> Newest:
        """The newest tree that is as it was saved. Unless read_only, damaged ones after it are moved aside, to
        `damaged` beside the directory, so that their steps can be saved again.

        Raises InputError as `restore` does, and Damaged if none is whole.
        """
        notes = []
        for step in reversed(self.steps()):
            try:
                tree = self.restore(template, step)
            except Damaged as error:
                notes.append(str(error))
                continue
            if not self._read_only:
                self._set_aside([s for s in self.steps() if s > step])
            return Newest(tree, step, [f"{note}; going on from step {step}" for note in notes])
        if notes:
            raise Damaged(f"{'; '.join(notes)}; no checkpoint is whole: start again in another run_dir")
        raise InputError(f"no checkpoint in {self._directory}")

    def _part(self, step: int, name: str, args: Any) -> Any:
        ocp = _orbax()
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name]
        except Exception as error:  # Orbax and what it reads with raise a dozen kinds for a file that is not whole
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise Damaged(f"the checkpoint of step {step} in {self._directory} cannot be read ({reason})") from error

    def _set_aside(self, steps: list[int]) -> None:
        for step in steps:
            aside = self._directory.parent / "damaged"
            aside.mkdir(exist_ok=True)
            number = sum(1 for _ in aside.iterdir())
            (self._directory / str(step)).rename(aside / f"{step}-{number}")
        if steps:
            self._manager.reload()

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


def _digest(array: Any) -> str:
    held = np.ascontiguousarray(np.asarray(array))
    return hashlib.sha256(held.reshape(-1).view(np.uint8)).hexdigest()


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
