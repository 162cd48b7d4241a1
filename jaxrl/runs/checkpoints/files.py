"""What one process writes of a run's checkpoints."""

import json
import logging
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.runs.directory import NotSaved
from jaxrl.types import InputError


class Damaged(InputError):
    """A checkpoint that is not what was saved."""


class Files:
    """A folder of checkpoints by step, each a flat dict of arrays and a manifest that is sealed. first: whether it is
    the first process that writes there."""

    def __init__(self, folder: Path, read_only: bool, first: bool = True):
        ocp = _orbax()
        # What is kept is decided elsewhere: Orbax's own rules know no steps and scores together.
        own = {"read_only": True} if read_only else {"max_to_keep": None, "enable_async_checkpointing": False}
        handlers = None if first else {"tree": _numbers().Numbers(), "manifest": ocp.JsonCheckpointHandler()}
        if (count := jax.process_count()) > 1:
            # Orbax would wait for the other processes within each call, by sums over the devices that training is
            # using.
            me = jax.process_index()
            alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"{me} of {count}"}
            options = ocp.options.MultiprocessingOptions(**alone)
            own |= {"multiprocessing_options": options, "create": False}
            if handlers:
                handlers["manifest"] = ocp.JsonCheckpointHandler(multiprocessing_options=options)
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._first = folder, first
        options = ocp.CheckpointManagerOptions(**own)
        self._manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Those that are whole, oldest first. A save that was cut short is not among them."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, arrays: Mapping[str, np.ndarray], manifest: dict[str, Any]) -> None:
        """Raises NotSaved where the disk does not take it, and for a step that is not newer than all there are."""
        ocp = _orbax()
        manifest = json.loads(json.dumps(manifest))  # as it will be read
        parts = {"manifest": ocp.args.JsonSave({**manifest, "sha256": _seal(manifest)})}
        if kept := {name: x for name, x in arrays.items() if x.size}:
            parts["tree"] = ocp.args.PyTreeSave(kept) if self._first else _numbers().Save(kept)
        try:
            written = self._manager.save(step, args=ocp.args.Composite(**parts))
        except Exception as error:  # Orbax wraps what the disk says in kinds of its own
            for draft in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):  # it would take up what is left
                shutil.rmtree(draft, ignore_errors=True)
            reason = _first_line(error)
            raise NotSaved(f"the checkpoint of step {step} could not be written to {self.folder} ({reason})") from error
        if not written:
            raise NotSaved(f"the checkpoint of step {step} was not written to {self.folder}; is there one?")

    def manifest(self, step: int) -> dict[str, Any]:
        """Raises Damaged where it is not what was saved."""
        found = self._read(step, "manifest", _orbax().args.JsonRestore())
        if not isinstance(found, dict) or found.pop("sha256", None) != _seal(found):
            raise Damaged(f"the checkpoint of step {step} in {self.folder} has a manifest that cannot be read")
        return found

    def arrays(self, step: int, names: list[str]) -> dict[str, Any]:
        """Those of these names, on the host. Raises Damaged where they cannot be read."""
        if not names:
            return {}
        if not self._first:
            return self._read(step, "tree", _numbers().Restore(names))
        ocp = _orbax()
        as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
        asked = ocp.args.PyTreeRestore(dict.fromkeys(names, 0), restore_args=as_numpy, partial_restore=True)
        return self._read(step, "tree", asked)

    def _read(self, step: int, name: str, args: Any) -> Any:
        try:
            return self._manager.restore(step, args=_orbax().args.Composite(**{name: args}))[name]
        except Exception as error:  # Orbax and what it reads with raise a dozen kinds for a file that is not whole
            reason = _first_line(error)
            raise Damaged(f"the checkpoint of step {step} in {self.folder} cannot be read ({reason})") from error

    def delete(self, step: int) -> None:
        """Remove a step, if it is there."""
        if step in self._manager.all_steps():
            self._manager.delete(step)

    def reload(self) -> None:
        """See what has been changed by others."""
        self._manager.reload()

    def close(self) -> None:
        """Let go of the folder."""
        self._manager.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _seal(manifest: dict[str, Any]) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _numbers() -> Any:
    from jaxrl.runs.checkpoints import numbers  # imports Orbax

    return numbers


def _orbax() -> Any:
    # Half a second of imports, and the first checkpoint is some way into a run.
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what fails is raised, and said in our words
    return orbax.checkpoint
