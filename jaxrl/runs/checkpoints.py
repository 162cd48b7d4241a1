"""Checkpoints of a whole pytree, by Orbax, exact or refused.

Orbax alone casts a wrong dtype silently, cannot restore a module that holds a list, refuses arrays without entries (as
MJX has them where nothing can touch), and reads what a disk has changed without a word. So the tree is saved as a flat
{key path: leaf} dict beside a manifest of paths, shapes, dtypes and a SHA-256 of every leaf, and of itself; names,
shapes and dtypes are compared before anything is restored, the bytes before it is used. Arrays and JSON are all that is
read: loading executes nothing.
"""

import functools
import json
import logging
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.runs.directory import NotSaved
from jaxrl.training import leaves as flat
from jaxrl.training.processes import gathered
from jaxrl.types import InputError, PyTree


class Newest(NamedTuple):
    """The newest checkpoint that is whole. notes: a sentence for each newer one that is not, and was set aside."""

    tree: PyTree
    step: int
    notes: list[str]


class Damaged(InputError):
    """A checkpoint that is not what was saved."""


class Checkpoints:
    """The checkpoints of one run, numbered by step, in a directory.

    Kept are the newest `keep`, the one of the best score, and those of the steps in `always`. They are written by a
    thread of their own, in order, from a copy. read_only: nothing in the directory is changed, whatever is asked.
    """

    def __init__(self, directory: str | Path, keep: int = 2, always: Collection[int] = (), *, read_only: bool = False):
        self._directory, self._keep, self._read_only = Path(directory).resolve(), keep, read_only
        self._always = frozenset(always)
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future | None = None
        self._scores: dict[int, float | None] = {}  # of the checkpoints there are, as far as they have been asked for

    @functools.cached_property
    def _manager(self) -> Any:
        ocp = _orbax()
        # What is kept is decided here: Orbax's own rules know no steps and scores together.
        own = {"read_only": True} if self._read_only else {"max_to_keep": None, "enable_async_checkpointing": False}
        if (count := jax.process_count()) > 1:
            # Each process writes what it has gathered whole. Orbax would wait for the others within each call, by sums
            # over the devices that training is using.
            me = jax.process_index()
            alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"{me} of {count}"}
            own |= {"multiprocessing_options": ocp.options.MultiprocessingOptions(**alone), "create": False}
            self._directory.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(self._directory, options=ocp.CheckpointManagerOptions(**own))

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first. A save that was cut short is not among them."""
        self.wait()
        return sorted(self._manager.all_steps()) if self._directory.is_dir() else []

    def save(self, step: int, tree: PyTree, about: Mapping[str, Any] = {}, score: float | None = None) -> None:
        """Copy the tree, and write it while the caller goes on, who may donate it. about: kept with it, as JSON.
        score: how good it is. Raises NotSaved if the save before this one has failed.
        """
        self.wait()
        names, data = zip(*flat.named(tree).items(), strict=True)
        arrays = [np.array(x) for x in gathered([flat.data(leaf) for leaf in data])]
        described = [flat.describe(leaf) for leaf in data]
        self._writing = self._writer.submit(self._write, step, names, arrays, described, dict(about), score)

    def wait(self) -> None:
        """Until what was saved is on disk. Raises NotSaved if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, names: tuple, arrays: list, described: list, about: dict, score: float | None) -> None:
        leaves = {name: [told, flat.digest(x)] for name, told, x in zip(names, described, arrays, strict=True)}
        manifest = {"leaves": leaves, "about": about, "score": score}
        manifest["sha256"] = _seal(manifest)
        ocp = _orbax()
        parts = {"tree": ocp.args.StandardSave({n: x for n, x in zip(names, arrays, strict=True) if x.size})}
        try:
            written = self._manager.save(step, args=ocp.args.Composite(**parts, manifest=ocp.args.JsonSave(manifest)))
        except Exception as error:  # Orbax wraps what the disk says in kinds of its own
            for draft in self._directory.glob(f"{step}.orbax-checkpoint-tmp*"):  # it would take up what is left
                shutil.rmtree(draft, ignore_errors=True)
            reason = _first_line(error)
            raise NotSaved(
                f"the checkpoint of step {step} could not be written to {self._directory} ({reason})"
            ) from error
        if not written:
            raise NotSaved(f"the checkpoint of step {step} was not written to {self._directory}; is there one?")
        self._scores[step] = score
        self._prune()

    def _prune(self) -> None:
        steps = sorted(self._manager.all_steps())
        best = self._best(steps)
        for step in steps[: -self._keep]:
            if step != best and step not in self._always:
                self._manager.delete(step)

    def best(self) -> int | None:
        """The step of the best score, the latest of equals; None where no checkpoint has one."""
        return self._best(self.steps())

    def _best(self, steps: list[int]) -> int | None:
        scores = [(score, step) for step in steps if (score := self._score(step)) is not None]
        return max(scores)[1] if scores else None

    def _score(self, step: int) -> float | None:
        if step not in self._scores:
            try:
                self._scores[step] = self._manifest(step)["score"]
            except Damaged:
                self._scores[step] = None
        return self._scores[step]

    def about(self) -> dict[str, Any] | None:
        """What was kept with the newest checkpoint that tells; None where none does."""
        for step in reversed(self.steps()):
            try:
                return self._manifest(step)["about"]
            except Damaged:
                continue
        return None

    def restore(self, template: PyTree, step: int | None = None) -> PyTree:
        """The tree saved at `step` (the newest by default), in the structure of `template`: a tree of arrays, or of
        the shapes that `jax.eval_shape` gives.

        Raises InputError with a sentence if there is none, or if any leaf has another name, shape or dtype, and Damaged
        if it is not what was saved.
        """
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            raise InputError(f"no checkpoint{'' if step is None else f' of step {step}'} in {self._directory}")
        step = steps[-1] if step is None else step
        wanted, saved = flat.named(template), self._manifest(step)["leaves"]
        told = {path: flat.describe(leaf) for path, leaf in wanted.items()}
        flat.compare({path: what for path, (what, _) in saved.items()}, told)
        shapes = {path: flat.shape(leaf) for path, leaf in wanted.items()}
        written = {path: shape for path, shape in shapes.items() if shape.size}
        arrays = self._part(step, "tree", _orbax().args.StandardRestore(written))
        arrays |= {path: np.zeros(shapes[path].shape, shapes[path].dtype) for path in set(shapes) - set(written)}
        changed = [path for path in wanted if flat.digest(arrays[path]) != saved[path][1]]
        if changed:
            raise Damaged(
                f"the checkpoint of step {step} in {self._directory} is damaged: {changed[0]} is not what was saved"
            )
        made = [flat.undata(leaf, arrays[path]) for path, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(template), made)

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
            self.set_aside([s for s in self.steps() if s > step])
            return Newest(tree, step, [f"{note}; going on from step {step}" for note in notes])
        if notes:
            raise Damaged(f"{'; '.join(notes)}; no checkpoint is whole: start again in another run_dir")
        raise InputError(
            f"no checkpoint in {self._directory}: none was saved before the run ended (--saves 0), or it has not come "
            "so far; train it in another run_dir with --saves 1 or more"
        )

    def delete(self, step: int) -> None:
        """Remove the checkpoint of a step."""
        self.wait()
        self._manager.delete(step)
        self._scores.pop(step, None)

    def set_aside(self, steps: list[int], name: str = "damaged") -> None:
        """Move checkpoints to a folder beside the directory. Nothing is moved where it is read only."""
        for step in () if self._read_only else steps:
            aside = self._directory.parent / name
            aside.mkdir(exist_ok=True)
            number = sum(1 for _ in aside.iterdir())
            (self._directory / str(step)).rename(aside / f"{step}-{number}")
            self._scores.pop(step, None)
        if steps:
            self._manager.reload()

    def _manifest(self, step: int) -> dict[str, Any]:
        found = self._part(step, "manifest", _orbax().args.JsonRestore())
        if not isinstance(found, dict) or found.pop("sha256", None) != _seal(found):
            raise Damaged(f"the checkpoint of step {step} in {self._directory} has a manifest that cannot be read")
        return found

    def _part(self, step: int, name: str, args: Any) -> Any:
        ocp = _orbax()
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name]
        except Exception as error:  # Orbax and what it reads with raise a dozen kinds for a file that is not whole
            reason = _first_line(error)
            raise Damaged(f"the checkpoint of step {step} in {self._directory} cannot be read ({reason})") from error

    def close(self) -> None:
        """Wait for what is being written, and let go of the directory."""
        self._writer.shutdown()
        if "_manager" in self.__dict__:
            self._manager.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _seal(manifest: dict[str, Any]) -> str:
    return sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _orbax() -> Any:
    # Half a second of imports, and the first checkpoint is some way into a run.
    import orbax.checkpoint

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what fails is raised, and said in our words
    return orbax.checkpoint
