"""Who is in a sweep, which of them share a program, and how many of those learn at once."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.runs.driver import checked_seed
from jaxrl.settings import check, float32, stack
from jaxrl.sweeps.space import shown, with_fields
from jaxrl.training import program
from jaxrl.training.sweeps import Together, compile_together
from jaxrl.types import InputError, Program

_SAVED = 3  # times the states: the copy, and what is made of it to be written, as Orbax 0.12 was seen to do
# Of what XLA counts, what the C library keeps of it on a CPU; and MiB of rows and evaluations.
_HELD, _HOST = 1.07, 28.0


class Member(NamedTuple):
    """One agent. number: of the member. index: of its configuration, which its other seeds share. values: of the fields
    that are swept."""

    number: int
    index: int
    seed: int
    values: Mapping[str, Any]
    config: Any


class Group(NamedTuple):
    """Members whose configs differ by nothing but floats, and so share a program. together(size) -> it, compiled for so
    many at once; a size that was asked for before compiles nothing. given: what it has beside their configs."""

    members: tuple[Member, ...]
    p: Program
    given: dict[str, Any]
    together: Callable[[int], Together]
    devices: int


class Batch(NamedTuple):
    """Members that learn at once: `size` of them in the program, whose last one may be there several times over."""

    number: int
    members: tuple[Member, ...]
    size: int
    group: Group


def members(
    base: Any, points: Sequence[Mapping[str, Any]], seeds: Sequence[Sequence[int]], first: int = 0
) -> list[Member]:
    """Each point with each of its seeds, which are next to each other. first: the number of the first configuration.

    Raises InputError, which names the point, for values that its config cannot have.
    """
    made = []
    for i, (point, own) in enumerate(zip(points, seeds, strict=True), first):
        with _of(i, point):
            config = with_fields(base, point)
            check(config)
        made += [Member(i * len(own) + s, i, checked_seed(seed), point, config) for s, seed in enumerate(own)]
    return made


def groups(everyone: Sequence[Member], load: Callable[[Any], tuple[Any, dict[str, Any]]], devices: int) -> list[Group]:
    """The groups of some members, in the order of their first. load(config) -> the config as it is run, and what it is
    given beside itself. Nothing is compiled. Raises InputError as `program` does.
    """
    found: dict[Any, list[Member]] = {}
    for member in everyone:
        found.setdefault(jax.tree.structure(member.config), []).append(member)
    made = []
    for alike in found.values():
        with _of(alike[0].index, alike[0].values):
            config, given = load(alike[0].config)
            p, compiled = program(config, **given), {}

        def together(size: int, config=config, given=given, p=p, compiled=compiled) -> Together:
            if size not in compiled:
                compiled[size] = compile_together(config, given, p, size, devices)
            return compiled[size]

        own = tuple(m._replace(config=_as_loaded(m.config, alike[0].config, config)) for m in alike)
        made.append(Group(own, p, given, together, devices))
    return made


def _as_loaded(own: Any, before: Any, after: Any) -> Any:
    """A config with what loading has made of another of its group, from before to after: floats too, such as those that
    an adapter brings."""
    leaves = zip(*map(jax.tree.leaves, (own, before, after)), strict=True)
    return jax.tree.unflatten(jax.tree.structure(after), [mine if a == b else b for mine, a, b in leaves])


@contextlib.contextmanager
def _of(index: int, point: Mapping[str, Any]) -> Iterator[None]:
    """What is wrong within is wrong with this configuration."""
    try:
        yield
    except InputError as error:
        if not point:
            raise
        told = ", ".join(f"{name} = {shown(value)}" for name, value in point.items())
        raise InputError(f"the sweep's config {index} ({told}): {error}") from None


def fitting(group: Group, devices: int, budget: float) -> int:
    """How many members at once take no more than `budget` MiB: all, if they fit, else as many as fill equal batches.

    Compiles once where all fit; else the fewest too, for what each takes, and then as many as have room. Raises
    InputError, with the numbers, where not even the fewest do.
    """
    count = len(group.members)
    size = _multiple(count, devices)
    if (needed := needs(group.together(size))) <= budget:
        return size
    fewest = needs(group.together(devices))
    if fewest > budget:
        raise InputError(
            f"{devices} member{'s' * (devices > 1)} at once take{'s' * (devices == 1)} {fewest:,.3g} MiB, and "
            f"{budget:,.3g} MiB may be taken; make the config smaller (num_envs, num_steps, hidden), or allow more "
            "(--memory-gib)"
        )
    each = (needed - fewest) / max(1, size - devices)
    most = min(size - devices, devices + int((budget - fewest) / max(each, 1e-9)))
    while True:
        size = _multiple(math.ceil(count / math.ceil(count / max(most // devices * devices, devices))), devices)
        if size <= devices or needs(group.together(size)) <= budget:
            return size
        most = size - devices


def needs(together: Together) -> float:
    """MiB that a program takes at its widest: its members in training, and beside them an evaluation, or on CPU, where
    the host is the device, what saving takes for a while; 0 where XLA does not say."""
    m = together.memory
    if not m:
        return 0.0
    if jax.default_backend() != "cpu":
        return m["training"] + m["evaluation"]
    return _HELD * (m["training"] + max(m["evaluation"], _SAVED * m["copy"])) + _HOST


def batches(group: Group, size: int, first: int) -> list[Batch]:
    """The members of a group, `size` at a time, numbered from `first`."""
    parts = [group.members[i : i + size] for i in range(0, len(group.members), size)]
    return [Batch(number, part, size, group) for number, part in enumerate(parts, first)]


def filled(some: Sequence[Member], size: int) -> tuple[Member, ...]:
    """As many as a program takes: the last one over and over."""
    return (*some, *[some[-1]] * (size - len(some)))


def stacked(together: Together, some: Sequence[Member]) -> tuple[Any, np.ndarray]:
    """(their configs, on the devices; their seeds [M])."""
    every = filled(some, together.size)
    configs = stack([float32(member.config) for member in every])
    return together.place(configs), np.array([member.seed for member in every], np.uint32)


def _multiple(count: int, devices: int) -> int:
    return math.ceil(count / devices) * devices
