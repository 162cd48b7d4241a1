"""A run read back: its config, what it was begun with, and what it has learned."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl.algorithms import ALGORITHMS
from jaxrl.config_file import load_config
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import ABOUT, CONFIG, check_given, read_about
from jaxrl.training import program
from jaxrl.training.given import describe
from jaxrl.types import InputError, Program, TrainState


class SavedRun(NamedTuple):
    """The config and run.json of a run (`about`: its seed, what it was given, schedule, command, git revision, machine
    and versions). `control`: whether it learned by acting, and not from rows.
    """

    run_dir: Path
    config: Any
    about: dict[str, Any]

    @property
    def control(self) -> bool:
        """Whether it acts in an environment."""
        return hasattr(self.config, "env")


class LoadedRun(NamedTuple):
    """A run with the state of one of its checkpoints. notes: a sentence for each newer one that is damaged."""

    saved: SavedRun
    program: Program
    state: TrainState
    notes: list[str]


def about_run(run_dir: str | Path) -> dict[str, Any]:
    """run.json of a directory. Raises InputError where it holds no run."""
    if not (Path(run_dir) / ABOUT).is_file():
        raise InputError(f"{run_dir} holds no run; name the directory that `run` or `jaxrl train` wrote to")
    return read_about(Path(run_dir))


def saved_run(run_dir: str | Path) -> SavedRun:
    """What a directory says of its run. Raises InputError where it holds none."""
    about = about_run(run_dir)
    return SavedRun(Path(run_dir), load_config(Path(run_dir) / CONFIG, ALGORITHMS), about)


def load_run(run_dir: str | Path, **given: Any) -> LoadedRun:
    """A run that learned by acting, with the state of its newest checkpoint that is whole. Nothing is written.

    given: what it was given beside its config, as for `run`: env and network. Raises InputError for something else than
    it was given, and where no checkpoint can be read.
    """
    saved = saved_run(run_dir)
    if not saved.control:
        model = str(saved.run_dir / "model")
        raise InputError(f"{run_dir} learned from rows: load its model by name, jaxrl.lm.load_model({model!r})")
    check_given(saved.run_dir, saved.about, describe(given))
    p = program(saved.config, **given)
    checkpoints = Checkpoints(saved.run_dir / "checkpoints", read_only=True)
    found = checkpoints.newest(jax.eval_shape(p.init, jax.random.key(0)))
    checkpoints.close()
    return LoadedRun(saved, p, found.tree, found.notes)
