"""Arrays of one process among several, as a handler for Orbax's manager: Orbax's own for NumPy's arrays writes those of
the first process alone, and that for JAX's waits for all processes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

_FILE = "arrays.npz"


class Numbers(ocp.CheckpointHandler):
    """A dict of arrays in a file of NumPy's."""

    def save(self, directory: Path, args: "Save") -> None:
        """All of them."""
        np.savez(directory / _FILE, **args.arrays)

    def restore(self, directory: Path, args: "Restore") -> dict[str, np.ndarray]:
        """Those of these names. What is of none of NumPy's own types, such as bfloat16, comes as so many bytes."""
        with np.load(directory / _FILE, allow_pickle=False) as file:
            return {name: file[name] for name in args.names}


@ocp.args.register_with_handler(Numbers, for_save=True)
@dataclasses.dataclass
class Save(ocp.args.CheckpointArgs):
    """What to save."""

    arrays: dict[str, Any]


@ocp.args.register_with_handler(Numbers, for_restore=True)
@dataclasses.dataclass
class Restore(ocp.args.CheckpointArgs):
    """What to read."""

    names: list[str]
