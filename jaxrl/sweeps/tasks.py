"""What a sweep is asked to do, read and checked: from fields and a plan to groups of members, and their batches."""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex

import jax

from jaxrl.config_file import to_dict
from jaxrl.ops.platform import memory_left
from jaxrl.runs.driver import Schedule, checked_seed
from jaxrl.sweeps.forecasting import Forecast, forecast
from jaxrl.sweeps.plan import Batch, Group, batches, fitting, groups, members
from jaxrl.sweeps.searches import ASKED, METHODS, Method, Search, search
from jaxrl.sweeps.space import Swept, check_apart, home_of, swept
from jaxrl.types import InputError

_SHARE = 0.8  # of the memory that is free, which a sweep may take
_READ_BY = {"eta": ("halving",), "intervals": ("pbt",), "at_once": ASKED, "searcher": ("ray",)}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked of a sweep, beside its config and its fields."""

    seeds: int | tuple[int, ...] = 1
    """Seeds of every configuration: so many, from 0 on; or these."""
    method: Method = "grid"
    """All combinations (grid); so many samples, drawn (random); successive halving; population-based training (pbt); or
    those that Optuna asks for (optuna), with jaxrl[tune]; or a search algorithm of Ray Tune (ray), with jaxrl[ray]."""
    samples: int | None = None
    """Configurations to draw; None takes the grid."""
    search_seed: int = 0
    """Of what is drawn."""
    score: str | None = None
    """The figure of an evaluation that members are ranked and searched by; with - before it where less is better, as in
    -eval_loss. None takes the return, or -eval_loss."""
    eta: int = 3
    """Of halving: one configuration in so many goes on at each rung."""
    intervals: int = 10
    """Of pbt: into so many parts training is cut, between which the worst quarter learns from the best."""
    at_once: int = 8
    """Of optuna and ray: configurations that are asked for, and learn, together."""
    searcher: str = "hyperopt"
    """Of ray: the algorithm, by Ray Tune's name for it. Each needs a package of its own."""
    schedule: Schedule = Schedule(logs=20, evals=5, saves=5)
    """How often each member is logged and evaluated, and all are saved."""
    devices: int | None = None
    """Among how many devices the members are spread; None takes all. On CPU `jaxrl sweep` makes one of each core."""
    memory_gib: float | None = None
    """Memory that may be taken; None takes four fifths of what is free."""
    tensorboard: bool = False
    """Write the curve of each member for TensorBoard too, when its batch has ended."""
    shard: str | None = None
    """2/8 is the second of eight parts of the members, each for a machine and with a run_dir of its own; `jaxrl merge`
    makes one sweep of them. Of a grid, or of what is drawn at random."""


class Task(NamedTuple):
    """A sweep that can be: its plan with the fields as they were read, seeds as they are, and the search."""

    config: Any
    plan: Plan
    fields: tuple[Swept, ...]
    seeds: tuple[int, ...]
    search: Search
    load: Callable[[Any], tuple[Any, dict[str, Any]]]
    devices: int

    def asked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All that must be the same for a resume, as JSON has it."""
        plan = dataclasses.asdict(self.plan)
        del plan["memory_gib"]  # the batches are what counts, and they are written down
        if not self.plan.tensorboard:  # sweeps were begun before there was the choice
            del plan["tensorboard"]
        for name in ("score", "shard"):
            if getattr(self.plan, name) is None:
                del plan[name]
        if self.plan.method != "ray":
            del plan["searcher"]
        fields = {one.field: one.spec for one in self.fields}
        own = {"seeds": list(self.seeds), "devices": self.devices}
        return {"config": to_dict(self.config), "fields": fields, **plan, **own, "given": dict(given)}

    def form(self, told: Sequence[Sequence[float]]) -> list[Group]:
        """The groups of the next generation; none where the search is over. told: scores of the seeds of each
        configuration so far. Raises InputError for what cannot be; nothing is compiled.
        """
        points = self.search.ask(told)
        seeds = [tuple(seed + i * self.search.seeds_apart for seed in self.seeds) for i in range(len(points))]
        everyone = members(self.config, points, seeds, len(told))
        part, parts = shard_of(self.plan)
        own = everyone[(part - 1) * len(everyone) // parts : part * len(everyone) // parts]
        if everyone and not own:
            raise InputError(
                f"shard = {self.plan.shard!r} is empty: there are {len(everyone)} members; make fewer parts"
            )
        formed = groups(own, self.load, self.devices)
        self.search.check([len({member.index for member in group.members}) for group in formed])
        for group in formed:
            if len(group.members) > 1 or self.search.act is None:
                self.search.marks(group.p.num_updates)
        return formed

    def cut(
        self, formed: Sequence[Group], first: int, stored: Sequence[Mapping[str, Any]], pause: Callable[[], None]
    ) -> list[Batch]:
        """The batches of some groups, numbered from `first`. stored: as an earlier session has cut them, if it has.
        pause: called between what takes long."""
        made: list[Batch] = []
        if stored:
            home = {member.number: (member, group) for group in formed for member in group.members}
            for number, told in enumerate(stored, first):
                own = tuple(home[m][0] for m in told["members"])
                made.append(Batch(number, own, told["size"], home[told["members"][0]][1]))
            return made
        for group in formed:
            pause()
            size = fitting(group, self.devices, self._budget())
            if size < len(group.members) and self.search.act is not None:
                raise InputError(
                    f"method = {self.plan.method!r} compares members while they learn, so all {len(group.members)} must"
                    f" learn at once, and memory has room for {size}; try fewer, or a smaller config"
                )
            made += batches(group, size, first + len(made))
        return made

    def marks(self, group: Group) -> dict[str, set[int]]:
        """The updates after which something is due. A search that acts is told scores there."""
        updates = group.p.num_updates
        acts = set(self.search.marks(updates)) if self.search.act is not None else set()
        marks = self.plan.schedule.marks(updates)
        return {"logs": marks["logs"], "evals": marks["evals"] | acts, "saves": marks["saves"], "acts": acts}

    def foresee(self, some: Sequence[Batch], pause: Callable[[], None]) -> list[Forecast]:
        """What these batches will take; one of each program is tried. pause: called in between."""
        tried: dict[Any, Forecast] = {}
        for batch in some:
            program = (id(batch.group), batch.size)
            if program not in tried:
                marks = self.marks(batch.group)
                tried[program] = forecast(batch, self._weighed(batch), len(marks["evals"]), pause)
        return [tried[id(batch.group), batch.size] for batch in some]

    def compilations(self, some: Sequence[Batch]) -> int:
        """Programs that train: one for each group, and one for each size that a search leaves of it."""
        sizes = {(id(b.group), s) for b in some for s in (b.size, *self.search.sizes(len(b.members)))}
        return len(sizes)

    def steps(self, batch: Batch, updates: int | None = None) -> int:
        """Of all its members together, in the first so many updates, by default all."""
        return round(self._weighed(batch, updates) * batch.group.p.steps_per_update * len(batch.members))

    def _weighed(self, batch: Batch, updates: int | None = None) -> float:
        """Updates of the whole batch that take as long as its own, of which fewer and fewer members may be left."""
        updates = batch.group.p.num_updates if updates is None else updates
        left, before, weighed = len(batch.members), 0, 0.0
        acts = sorted(mark for mark in self.marks(batch.group)["acts"] if mark < updates)
        for mark, size in zip(acts, self.search.sizes(left), strict=False):
            weighed += (mark - before) * left / len(batch.members)
            left, before = size, mark
        return weighed + (updates - before) * left / len(batch.members)

    def _budget(self) -> float:
        gib = self.plan.memory_gib
        return memory_left() * _SHARE if gib is None else gib * 1024


def task(config: Any, fields: Mapping[str, Any], plan: Plan, load: Callable[[Any], tuple[Any, dict[str, Any]]]) -> Task:
    """Read what is asked. Raises InputError for what cannot be."""
    plan.schedule.check()
    if plan.method not in METHODS:
        raise InputError(f"method = {plan.method!r} is not one of {', '.join(METHODS)}")
    if plan.schedule.keeps:
        raise InputError(f"keeps = {plan.schedule.keeps}: a sweep keeps no checkpoints for good; leave it out")
    for name, methods in _READ_BY.items():
        if plan.method not in methods and (value := getattr(plan, name)) != getattr(Plan, name):
            use = " or ".join(methods)
            raise InputError(f"{name} = {value} is not read by method = {plan.method!r}; leave it out, or use {use}")
    if plan.memory_gib is not None and not plan.memory_gib > 0:
        raise InputError(f"memory_gib = {plan.memory_gib} must be above 0")
    part, parts = shard_of(plan)
    if parts > 1 and plan.method not in ("grid", "random"):
        raise InputError(
            f"shard = {plan.shard!r}: method = {plan.method!r} compares all members; use grid or random, or one machine"
        )
    chosen = tuple(swept(config, field, spec) for field, spec in fields.items())
    check_apart(config, chosen)
    _check_score(config, plan, chosen)
    if not isinstance(plan.seeds, Iterable | SupportsIndex):
        raise InputError(f"seeds = {plan.seeds!r}: give a number of seeds, or a list of them")
    seeds = plan.seeds if isinstance(plan.seeds, Iterable) else range(operator.index(plan.seeds))
    seeds = tuple(checked_seed(seed) for seed in seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds = {plan.seeds!r}: name at least one, and each once")
    return Task(config, plan, chosen, seeds, search(plan, chosen, len(seeds)), load, _devices(plan.devices))


def shard_of(plan: Plan) -> tuple[int, int]:
    """Which of how many parts, from 1 on. Raises InputError for what says neither."""
    part, _, parts = (plan.shard or "1/1").partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise InputError(f'shard = {plan.shard!r} is not as in "2/8", the second of eight')
    return int(part), int(parts)


def _check_score(config: Any, plan: Plan, chosen: Sequence[Swept]) -> None:
    """Raises InputError where members would be ranked by the very thing that they are made to differ by."""
    for one in chosen if plan.score is None else ():
        home, name = home_of(config, one.field), one.field.rpartition(".")[2]
        if name in getattr(home, "defines_loss", ()):
            raise InputError(
                f"sweep.{one.field}: it is part of the loss itself, and losses that are defined otherwise do not "
                "compare; say what to rank by instead: --score eval_rewards/accuracy (first_rows_rewards/accuracy with "
                "no rows held out)"
            )
        if name in getattr(home, "defines_task", ()) and (one.is_range or len(one.values) > 1):
            figure = "-eval_loss" if hasattr(config, "data") else "eval_return"
            raise InputError(
                f"sweep.{one.field}: it is part of the task itself, and scores on different tasks do not compare; make "
                f"a sweep for each, or, to rank all by one figure none the less, name it: --score {figure}"
            )


def _devices(asked: int | None) -> int:
    there = jax.local_device_count()
    if asked is not None and not 1 <= asked <= there:
        remedy = "; on CPU set jax_num_cpu_devices first" if jax.default_backend() == "cpu" else ""
        raise InputError(f"devices = {asked}, and there {'is' if there == 1 else 'are'} {there}{remedy}")
    return there if asked is None else asked
