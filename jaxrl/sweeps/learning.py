"""A batch of members under way: from its start, or its checkpoint, to its end."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import CHECKPOINTS
from jaxrl.runs.divergence import SKIPPED
from jaxrl.runs.preemption import Interrupts, awaited
from jaxrl.sweeps.plan import Batch, Member, filled, stacked
from jaxrl.sweeps.searches import Standing, is_field
from jaxrl.sweeps.table import Part, evaluated
from jaxrl.sweeps.tasks import Task
from jaxrl.types import Evaluator

_POLL = 5.0  # seconds between two questions whether to stop


@dataclasses.dataclass
class Learning:
    """One batch under way. asked: the sweep that it is of. tell(steps, scores): called as it goes on, with the steps of
    all its members since it was last called, and the newest scores by configuration. passed(steps): with those of an
    earlier session."""

    sweep_dir: Path
    batch: Batch
    asked: Task
    interrupts: Interrupts
    tell: Callable[[int, dict[int, list[float]]], None]
    passed: Callable[[int], None]

    def run(self) -> dict[str, Any]:
        """To its end. Returns the last score of each member that got there, and seconds."""
        self.marks = self.asked.marks(self.batch.group)
        self.began, self.earlier, self.compiling = time.perf_counter(), 0.0, 0.0
        with contextlib.closing(Checkpoints(self._directory)) as self.saves:
            self._begin()
            last = self._step() if self.written else self._step() - 1
            columns = [
                "member",
                "config",
                "seed",
                "step",
                *[one.field for one in self.asked.fields],
                *self._metrics(),
                "score",
                "diverged",
            ]
            with contextlib.closing(Part(self.sweep_dir, self.batch.number, columns, last)) as self.part:
                self._learn()
                self.part.flush()
            self.saves.wait()
        ended = [[member.number, score] for member, score in zip(self.members, self.scores.tolist(), strict=True)]
        return {"scores": ended, "seconds": self._seconds()}

    def _begin(self) -> None:
        """From the newest checkpoint, or the start."""
        about = self.saves.about() or {}
        by_number = {member.number: member for member in self.batch.members}
        numbers = about.get("members", list(by_number))
        self._seat(tuple(by_number[number] for number in numbers))
        # A row of step 0 is written where something is measured before the first update.
        before = not any(e.at_start for e in self.batch.group.p.evaluators)
        self.update, self.written = about.get("update", 0), about.get("written", before)
        self.earlier, self.piece = about.get("seconds", 0.0), 1
        self.scores = np.array(about.get("scores", [math.nan] * len(numbers)))
        self.configs, seeds = stacked(self.together, self.members)
        self.told = self.together.nothing()
        if about:
            template = self._tree(self.together.state)
            found = self.saves.newest(jax.eval_shape(lambda: template)).tree
            self.configs, self.states, self.told = map(self.together.place, found.values())
            self.meant = np.array(about["meant"], bool)
            self.passed(self.asked.steps(self.batch, self.update))
        else:
            self.states = self.together.init(self.configs, seeds)
            self.states, self.told = self.together.chunk(self.configs, self.states, self.told, 0)
            self.meant = ~self.together.read(self.told)[1].all(axis=0)  # such as the best score so far
            self.told = self.together.nothing() if self.written else self.told

    def _seat(self, members: tuple[Member, ...]) -> None:
        devices = self.batch.group.devices
        size = (
            self.batch.size if len(members) == len(self.batch.members) else math.ceil(len(members) / devices) * devices
        )
        began = time.perf_counter()
        self.members, self.together = members, self.batch.group.together(size)
        self.compiling += time.perf_counter() - began

    def _seconds(self) -> float:
        """Of learning and evaluating, in all sessions: programs of another size that are compiled on the way do not
        count."""
        return round(self.earlier + time.perf_counter() - self.began - self.compiling, 2)

    def _learn(self) -> None:
        """Every mark that is still ahead, and the one whose row was not written."""
        ahead = {mark for mark in set().union(*self.marks.values()) if mark > self.update}
        for mark in sorted(ahead | ({self.update} if not self.written else set())):
            self._advance(mark)
            self._row()
            if mark in self.marks["acts"]:
                self._act()
            if mark in self.marks["saves"] | self.marks["acts"]:
                self._save()

    def _advance(self, mark: int) -> None:
        """Updates up to a mark, in pieces, between which somebody may ask to stop."""
        while self.update < mark:
            self._heed()
            count, began = min(self.piece, mark - self.update), time.perf_counter()
            self.states, self.told = self.together.chunk(self.configs, self.states, self.told, count)
            jax.block_until_ready(self.told)
            self.update += count
            self.written = False
            self.piece = max(1, int(count * _POLL / (time.perf_counter() - began)))
            self.tell(count * self.batch.group.p.steps_per_update * len(self.members), {})

    def _row(self) -> None:
        """A row of every member: of its updates since the row before, and its evaluation where one is due."""
        means, fine = self.together.read(self.told)
        due = self.update in self.marks["evals"] or not self.update
        figures = self._evaluated() if due else [({}, None)] * len(self.members)
        values = self._values()
        rows = []
        for i, (member, (found, score)) in enumerate(zip(self.members, figures, strict=True)):
            told = dict(zip(self.together.names, means[i].tolist(), strict=True)) if self.update else {}
            own = {"member": member.number, "config": member.index, "seed": member.seed, "step": self._step()}
            broken = not (fine[i] | self.meant).all() or told.get(SKIPPED) == 1
            measured = {self._column(name): value for name, value in (told | found).items()}
            rows.append({**own, **values[i], **measured, "score": score, "diverged": int(broken)})
            if score is not None:
                self.scores[i] = math.nan if broken else score
        self.part.rows(rows)
        self.part.flush()
        self.told, self.written = self.together.nothing(), True
        by_config: dict[int, list[float]] = {}
        for member, score in zip(self.members, self.scores.tolist(), strict=True):
            by_config.setdefault(member.index, []).append(score)
        self.tell(0, by_config)

    def _evaluated(self) -> list[tuple[dict[str, float], float | None]]:
        """For every member its figures, and its score. Raises InputError for a start that cannot be."""
        seeds = np.array([m.seed for m in filled(self.members, self.together.size)], np.uint32)
        found: list[dict[str, float]] = [{} for _ in self.members]
        scores: list[float | None] = [None] * len(self.members)
        first = self.batch.group.members[0].index
        for e, measure in zip(self.together.evaluators, self.together.measures, strict=True):
            if not (self.update or e.at_start):
                continue
            measured = jax.device_get(awaited(measure(self.configs, seeds, self.states), self._heed))
            for i in range(len(self.members)):
                figures = e.read(e.cases[0], jax.tree.map(lambda x, i=i: x[i], measured))
                found[i] |= {f"{e.prefix}{name}": value for name, value in figures.items()}
                if scores[i] is None:
                    scores[i] = self._score(e, figures)
                # It expects what the config has that the program was made of: the first one's.
                if e.check_start is not None and not self.update and self.members[i].index == first:
                    e.check_start(figures)
        return list(zip(found, scores, strict=True))

    def _score(self, e: Evaluator, figures: Mapping[str, float]) -> float | None:
        """Of an evaluator's figures; None where it has no say."""
        asked = self.asked.plan.score
        if asked is None:
            return None if e.score is None else e.score(figures)
        value = {e.prefix + name: x for name, x in figures.items()}.get(asked.removeprefix("-"))
        return -value if value is not None and asked.startswith("-") else value

    def _act(self) -> None:
        """What the search makes of the members; a program of another size where fewer go on."""
        key = jax.random.fold_in(jax.random.key(self.asked.plan.search_seed), self.batch.number)
        key = jax.random.fold_in(key, self.update)
        count = len(self.members)
        configs, states = jax.tree.map(lambda x: x[:count], (self.configs, self.states))
        after = self.asked.search.act(key, Standing(self.members, configs, states, self.scores))
        self._seat(after.members)
        pad = np.minimum(np.arange(self.together.size), len(after.members) - 1)
        self.configs, self.states = self.together.place(jax.tree.map(lambda x: x[pad], (after.configs, after.states)))
        self.scores, self.told = after.scores.copy(), self.together.nothing()

    def _values(self) -> list[Mapping[str, Any]]:
        """Of every member, what its swept fields are."""
        if not self.asked.search.moves:
            return [member.values for member in self.members]
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(self.configs))
        names = [one.field for one in self.asked.fields]
        now = {name: leaf for name in names for path, leaf in leaves if is_field(path, name)}
        return [{f: float(f"{x[i]:.6g}") for f, x in now.items()} for i in range(len(self.members))]

    def _metrics(self) -> list[str]:
        names = [*self.together.names, *evaluated(self.batch.group.p).names]
        return list(dict.fromkeys(map(self._column, names)))

    def _column(self, metric: str) -> str:
        """The name of a metric, apart from that of a swept field: a learning rate as it was set, and as it is now."""
        return f"{metric}_metric" if metric in {one.field for one in self.asked.fields} else metric

    def _tree(self, states: Any) -> dict[str, Any]:
        return {"configs": self.configs, "states": states, "told": self.told}

    def _step(self) -> int:
        return self.update * self.batch.group.p.steps_per_update

    @property
    def _directory(self) -> Path:
        return self.sweep_dir / CHECKPOINTS / f"{self.batch.number:04d}"

    def _save(self) -> None:
        about = {
            "members": [member.number for member in self.members],
            "update": self.update,
            "written": self.written,
            "scores": self.scores.tolist(),
            "meant": self.meant.astype(int).tolist(),
            "seconds": self._seconds(),
        }
        number = 2 * self.update + self.written  # once before its row, and once after
        if number not in self.saves.steps():
            self.saves.save(number, self._tree(self.states), about)

    def _heed(self) -> None:
        if self.interrupts.asked and self.update:
            self._save()
            self.saves.wait()
        self.interrupts.heed()
