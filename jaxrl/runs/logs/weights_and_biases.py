"""Weights & Biases, where it is asked for: the extra jaxrl[wandb]."""

import importlib.util
import json
import secrets
import sys
import warnings
from pathlib import Path
from typing import Any

from jaxrl.ops.platform import installing
from jaxrl.types import InputError

_KEPT = "wandb.json"


def check_wandb(project: str | None, run_dir: Path | None) -> str | None:
    """The project to log to: as asked for, or the one that the run in `run_dir` has logged to. None for neither.

    Raises InputError where the package is not installed, and for another project than the run's own.
    """
    kept = {} if run_dir is None else _kept(run_dir)
    own = kept.get("project", project)
    if project is not None and project != own:
        raise InputError(f"wandb = {project!r}: {run_dir} logs to the project {own!r}; give that, or leave wandb out")
    if own is not None and not _installed():
        leave = f"delete {run_dir / _KEPT}" if kept else "leave wandb out"
        raise InputError(
            f"wandb = {own!r} needs the package wandb, which is not installed; {installing('wandb')} adds it, or "
            f"{leave}"
        )
    return own


def _installed() -> bool:
    found = importlib.util.find_spec("wandb")
    return found is not None and found.origin is not None  # any folder called wandb, as wandb itself makes, is found


def _kept(run_dir: Path) -> dict[str, str]:
    path = run_dir / _KEPT
    if not path.is_file():
        return {}
    try:
        kept = json.loads(path.read_text())
        return {name: kept[name] for name in ("project", "id")}
    except (ValueError, TypeError, KeyError):
        raise InputError(f"{path} cannot be read; delete it, and the run goes on as another one there") from None


class WandbRun:
    """One run there, on which a resumed run goes on; its id is kept in wandb.json. WANDB_MODE and all else that wandb
    reads from the environment holds. Steps that a resume repeats are logged again, and are the same. Of a run that is
    killed wandb may lose what it was told last; the run's own files have it.

    Raises InputError where wandb refuses to begin: nobody is logged in, or nothing answers.
    """

    def __init__(self, project: str, run_dir: Path, config: dict[str, Any], unit: str):
        import wandb

        known = _kept(run_dir) or {"project": project, "id": secrets.token_hex(4)}
        (run_dir / _KEPT).write_text(json.dumps(known) + "\n")
        # Nothing it would say of the run at its end is not in the files, and what the run says is not for it to catch.
        settings = wandb.Settings(console="off", quiet=True)
        options = {"name": run_dir.resolve().name, "dir": run_dir, "config": config, "settings": settings}
        try:
            self._run = wandb.init(**known, **options, resume="allow")
        except wandb.Error as error:
            raise InputError(
                f"wandb = {project!r}: {error} Log in (wandb login) or set WANDB_MODE=offline, and go on with "
                f"--run-dir {run_dir} --resume (resume=True)"
            ) from error
        self._unit = unit
        self._run.define_metric(unit)
        self._run.define_metric("*", step_metric=unit)

    def row(self, step: int, values: dict[str, float]) -> None:
        """One row after `step` steps."""
        if self._run is not None:
            self._told(self._run.log, {self._unit: step, **values})

    def close(self) -> None:
        """Its end. wandb's own process sends the rest, or writes it; what an error ends has failed there, too."""
        if self._run is not None:
            self._told(self._run.finish, int(isinstance(sys.exception(), Exception)))

    def _told(self, say: Any, what: Any) -> None:
        try:
            say(what)
        except Exception as error:  # whatever goes wrong there, the run is what counts, and its own files have it all
            self._run = None
            warnings.warn(f"Weights & Biases takes no more, and is told no more: {error!r}", stacklevel=3)
