"""Which checkpoints a run has, keeps and goes on from."""

import math
import secrets
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl.runs.checkpoints.files import Damaged, Files
from jaxrl.runs.checkpoints.parts import Part, Read, laid_out, needed, own_parts, whole_parts
from jaxrl.runs.directory import NotSaved
from jaxrl.training import leaves as flat
from jaxrl.training.processes import agreed
from jaxrl.types import InputError, PyTree

_HOSTS = "hosts"


class Newest(NamedTuple):
    """The newest checkpoint that is whole. notes: a sentence for each newer one that is not, and was set aside."""

    tree: PyTree
    step: int
    notes: list[str]


class Checkpoints:
    """The checkpoints of one run, numbered by step, in a directory.

    Kept are the newest `keep`, the one of the best score, and those of the steps in `always`. They are written by a
    thread of their own, in order, from a copy. read_only: nothing in the directory is changed, whatever is asked.

    Of several processes each writes the parts that its devices hold: the first in the directory, the others in
    `hosts/N` within it. A checkpoint is whole where all have written, and any number of processes can read it. All must
    call `save`, `wait`, `steps`, `newest`, `delete` and `set_aside` at the same lines. apart: they share no disk, and
    each writes everything in a directory of its own.
    """

    def __init__(
        self,
        directory: str | Path,
        keep: int = 2,
        always: Collection[int] = (),
        *,
        read_only: bool = False,
        apart: bool = False,
    ):
        self._directory, self._keep, self._read_only = Path(directory).resolve(), keep, read_only
        self._always, self.apart = frozenset(always), apart
        self._host = 0 if read_only or apart else jax.process_index()
        self._writer = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[int] | None = None
        self._scores: dict[int, float | None] = {}  # of the checkpoints there are, as far as they have been asked for
        self._files: dict[int, Files] = {}
        self._with_first: set[int] = set()  # steps that the first process has too; others were cut short

    def _of(self, host: int) -> Files:
        if host not in self._files:
            folder = self._directory / _HOSTS / str(host) if host else self._directory
            self._files[host] = Files(folder, self._read_only or host != self._host, first=host == 0)
        return self._files[host]

    @property
    def _own(self) -> Files:
        return self._of(self._host)

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first. A save that was cut short is not among them."""
        self.wait()
        return self._there()

    def _there(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        if self._host:  # the first has saved since
            self._of(0).reload()
        return self._of(0).steps()

    def save(self, step: int, tree: PyTree, about: Mapping[str, Any] = {}, score: float | None = None) -> None:
        """Copy the tree, and write it while the caller goes on, who may donate it. about: kept with it, as JSON.
        score: how good it is. Raises NotSaved if the save before this one has failed.
        """
        self.wait()
        leaves = flat.named(tree)
        arrays = {path: flat.data(leaf) for path, leaf in leaves.items()}
        parts = whole_parts(arrays) if self.apart else own_parts(arrays)
        manifest: dict[str, Any] = {"about": dict(about), "score": score}
        if jax.process_count() > 1 and not self.apart:
            # A number that tells the parts of this save from those of another one of the same step.
            manifest["hosts"] = [jax.process_count(), *agreed(secrets.randbits(31))]
        told = {path: flat.describe(leaf) for path, leaf in leaves.items()}
        self._writing = self._writer.submit(self._write, step, parts, told, manifest)

    def wait(self) -> None:
        """Until what was saved is on disk, with all processes. Raises NotSaved if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        error = writing.exception()
        if jax.process_count() > 1:
            (failed,) = agreed(error is not None)
            if failed and error is None:
                self._remove(writing.result())  # without the others' parts it is no checkpoint
                error = NotSaved(f"the checkpoint of step {writing.result()} could not be written by another process")
            elif not failed:
                self._prune()  # not before all have written, or there might be none that is whole
            agreed(0)  # from here on the others see what is left
        if error is not None:
            raise error

    def _write(self, step: int, parts: list[Part], told: dict[str, str], manifest: dict[str, Any]) -> int:
        for stale in [s for s in self._own.steps() if s >= step] if self._host else []:  # which the first has no more
            self._own.delete(stale)
        leaves = {part.name: part.told(told[part.path]) for part in parts}
        self._own.save(step, {part.name: part.numbers for part in parts}, {"leaves": leaves, **manifest})
        self._scores[step] = manifest["score"]
        self._with_first.add(step)
        if jax.process_count() == 1:
            self._prune()
        return step

    def _prune(self) -> None:
        there = self._own.steps()
        steps = [step for step in there if step in self._with_first or not self._host]
        kept = {self._best(steps), *steps[-self._keep :], *self._always}
        for step in {*there, *self._left_behind()} - kept:
            self._remove(step)

    def _remove(self, step: int) -> None:
        self._own.delete(step)
        for path in self._left_behind().get(step, []):
            shutil.rmtree(path, ignore_errors=True)
        self._scores.pop(step, None)

    def _left_behind(self) -> dict[int, list[Path]]:
        """By step, what processes have written that are no more; the first one clears it away."""
        found: dict[int, list[Path]] = {}
        for path in [] if self._host else self._directory.glob(f"{_HOSTS}/*/*"):
            if path.name.isdigit() and int(path.parent.name) >= jax.process_count():
                found.setdefault(int(path.name), []).append(path)
        return found

    def best(self) -> int | None:
        """The step of the best score, the latest of equals; None where no checkpoint has one."""
        return self._best(self.steps())

    def _best(self, steps: list[int]) -> int | None:
        scores = [(score, step) for step in steps if (score := self._score(step)) is not None]
        return max(scores)[1] if scores else None

    def _score(self, step: int) -> float | None:
        if step not in self._scores:
            try:
                self._scores[step] = self._own.manifest(step)["score"]
            except Damaged:
                self._scores[step] = None
        return self._scores[step]

    def about(self) -> dict[str, Any] | None:
        """What was kept with the newest checkpoint that tells; None where none does."""
        for step in reversed(self.steps()):
            try:
                return self._of(0).manifest(step)["about"]
            except Damaged:
                continue
        return None

    def restore(self, template: PyTree, step: int | None = None, places: PyTree | None = None) -> PyTree:
        """The tree saved at `step` (the newest by default), in the structure of `template`: a tree of arrays, or of
        the shapes that `jax.eval_shape` gives. places: a sharding for each leaf, by default all on one device; what
        this process's devices have no part in is not read.

        Raises InputError with a sentence if there is none, or if any leaf has another name, shape or dtype, and Damaged
        if it is not what was saved.
        """
        steps = self.steps()
        if not steps or (step is not None and step not in steps):
            raise InputError(f"no checkpoint{'' if step is None else f' of step {step}'} in {self._directory}")
        read = self._read(steps[-1] if step is None else step, template, places)
        return laid_out(template, places, read)

    def newest(self, template: PyTree, places: PyTree | None = None) -> Newest:
        """The newest tree that is as it was saved, for every process. Unless read_only, damaged ones after it are moved
        aside, to `damaged` beside the directory, so that their steps can be saved again.

        Raises InputError as `restore` does, and Damaged if none is whole.
        """
        notes, steps = [], self.steps()
        for step in reversed(steps):
            read, damage = self._read_or_damaged(step, template, places)
            if damage is not None:
                notes.append(str(damage))
                continue
            self.set_aside([s for s in steps if s > step])
            self._with_first.update(steps)
            tree = laid_out(template, places, read)
            return Newest(tree, step, [f"{note}; going on from step {step}" for note in notes])
        if notes:
            raise Damaged(f"{'; '.join(notes)}; no checkpoint is whole: start again in another run_dir")
        raise InputError(
            f"no checkpoint in {self._directory}: none was saved before the run ended (--saves 0), or it has not come "
            "so far; train it in another run_dir with --saves 1 or more"
        )

    def _read_or_damaged(self, step: int, template: PyTree, places: PyTree | None) -> tuple[Read, Damaged | None]:
        read, damage = {}, None
        try:
            read = self._read(step, template, places)
        except Damaged as error:
            damage = error
        # Another process reads other parts of it. All go on from the same step.
        if not self._read_only and any(agreed(damage is not None)) and damage is None:
            damage = Damaged(f"{self._that(step)} cannot be read by another process")
        return read, damage

    def _read(self, step: int, template: PyTree, places: PyTree | None) -> Read:
        """What this process needs of the leaves, as it was saved."""
        parts = needed(template, places, self._manifests(step))
        read: Read = {}
        for host in sorted({one.host for one in parts}):
            own = [one for one in parts if one.host == host]
            found = self._of(host).arrays(step, [one.name for one in own if math.prod(one.shape)])
            for one in own:
                numbers = one.checked(found.get(one.name))
                if numbers is None:
                    raise Damaged(f"{self._that(step)} is damaged: {one.path} is not what was saved")
                read.setdefault(one.path, []).append((one.box, numbers))
        return read

    def _manifests(self, step: int) -> list[dict[str, Any]]:
        """Those of all processes that saved this step."""
        first = self._of(0).manifest(step)
        saved, every = first.get("hosts"), [first]
        for host in range(1, saved[0] if saved else 1):
            if not (self._directory / _HOSTS / str(host) / str(step)).is_dir():
                raise Damaged(f"{self._that(step)} is not whole: process {host} had not written its part")
            every.append(self._of(host).manifest(step))
            if every[-1].get("hosts") != saved:
                raise Damaged(f"{self._that(step)} is not whole: the part of process {host} is of another save")
        return every

    def _that(self, step: int) -> str:
        return f"the checkpoint of step {step} in {self._directory}"

    def delete(self, step: int) -> None:
        """Remove the checkpoint of a step."""
        self.wait()
        self._remove(step)

    def set_aside(self, steps: list[int], name: str = "damaged") -> None:
        """Move checkpoints to a folder beside the directory. Nothing is moved where it is read only."""
        if self._read_only:
            return
        for step in [] if self._host else steps:
            aside = self._directory.parent / name
            aside.mkdir(exist_ok=True)
            moved = (self._directory / str(step)).rename(aside / f"{step}-{sum(1 for _ in aside.iterdir())}")
            for part in self._directory.glob(f"{_HOSTS}/*/{step}"):
                part.rename(moved / f"host-{part.parent.name}")
        self._scores = {step: score for step, score in self._scores.items() if step not in steps}
        agreed(0)  # from here on all see what is left
        for files in self._files.values():
            files.reload()

    def close(self) -> None:
        """Wait for what is being written, and let go of the directory."""
        self._writer.shutdown()
        for files in self._files.values():
            files.close()
