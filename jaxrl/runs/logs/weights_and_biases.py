"""Weights & Biases, where it is asked for: an extra, `pip install jaxrl[wandb]`."""

import importlib.util
import json
from pathlib import Path
from typing import Any

from jaxrl.types import InputError

_KEPT = "wandb.json"


def check_wandb(project: str | None, run_dir: Path | None) -> str | None:
    """The project to log to: as asked for, or the one that the run in `run_dir` has logged to. None for neither.

    Raises InputError where the package is not installed.
    """
    if project is None and run_dir is not None and (run_dir / _KEPT).is_file():
        project = json.loads((run_dir / _KEPT).read_text())["project"]
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise InputError(f"wandb = {project!r} needs a package; install it (pip install jaxrl[wandb]), or leave it out")
    return project


class WandbRun:
    """One run there, on which a resumed run goes on; its id is kept in wandb.json. WANDB_MODE and all else that wandb
    reads from the environment holds. Steps that a resume repeats are logged again: the later ones are right.
    """

    def __init__(self, project: str, run_dir: Path, config: dict[str, Any], unit: str):
        import wandb

        kept = run_dir / _KEPT
        known = json.loads(kept.read_text()) if kept.is_file() else {"project": project, "id": wandb.util.generate_id()}
        kept.write_text(json.dumps(known) + "\n")
        self._unit = unit
        self._run = wandb.init(**known, name=run_dir.name, dir=run_dir, config=config, resume="allow")
        self._run.define_metric(unit)
        self._run.define_metric("*", step_metric=unit)

    def row(self, step: int, values: dict[str, float]) -> None:
        """One row after `step` steps."""
        self._run.log({self._unit: step, **values})

    def close(self) -> None:
        """Wait until all is sent, or on disk where wandb is offline."""
        self._run.finish(quiet=True)
