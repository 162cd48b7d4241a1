"""Scores against what was swept: each field's values, their places on an axis, and what the score is at each."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl.reports.page.svg import labels, ticks
from jaxrl.reports.statistics import interquartile_mean
from jaxrl.reports.sweep.ranking import Configuration, Sweep
from jaxrl.reports.sweep.table import shown
from jaxrl.reports.throughput import short

MOST_VALUES = 12  # of a field; more are put into bins, and so are those that are drawn from a range
_BINS = 5
_FAR_APART = 50.0  # the largest of some listed numbers over the smallest, from which on they lie on a log axis


class Axis(NamedTuple):
    """A swept field over configurations. at [C]: where each lies, a number, its logarithm to base 10, or its place in
    the order. cell [C]: of which value or bin. labels, centres [B]: of those. marks: for an axis, place -> name."""

    field: str
    log: bool
    binned: bool
    at: np.ndarray
    cell: np.ndarray
    labels: list[str]
    centres: np.ndarray
    marks: dict[float, str]


class Level(NamedTuple):
    """Configurations at a point of training where all of them were there, with a score [C] each; told says where."""

    configurations: list[Configuration]
    scores: np.ndarray
    told: str


class Marginal(NamedTuple):
    """Median and quartiles [B] of the scores of configurations at each value or bin."""

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def level(sweep: Sweep) -> Level:
    """Last scores of those that were evaluated as far as the best; with halving, all at the last evaluation before the
    first were dropped, as later only the better ones are there."""
    if sweep.method != "halving":
        return Level(sweep.compared, np.array([c.iqm for c in sweep.compared]), "last score")
    step = min(int(m.steps[-1]) for c in sweep.ranked for m in c.members)
    then = [[m.scores[np.searchsorted(m.steps, step, "right") - 1] for m in c.members] for c in sweep.ranked]
    told = f"score at step {step:,} (the last evaluation at which all were there)"
    return Level(sweep.ranked, np.array([float(interquartile_mean(own)) for own in then]), told)


def axis(sweep: Sweep, field: str, configurations: Sequence[Configuration]) -> Axis:
    """Where configurations lie along a field that was swept: numbers in their order, others as they come."""
    values = [c.values[field] for c in sorted(configurations, key=lambda c: c.index)]
    distinct = list(dict.fromkeys(values))
    own = [c.values[field] for c in configurations]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct):
        places = {value: float(i) for i, value in enumerate(distinct)}
        return _exact(field, False, np.array([places[value] for value in own]), places)
    distinct.sort()
    spec = str(sweep.about["fields"].get(field, ""))
    log = _is_log(spec, distinct)
    where = math.log10 if log else float
    at = np.array([where(value) for value in own])
    if len(distinct) == 1 or (len(distinct) <= MOST_VALUES and not _is_drawn(spec, distinct)):
        return _exact(field, log, at, {value: where(value) for value in distinct})
    return _binned(field, log, at)


def marginal(axis: Axis, scores: np.ndarray) -> Marginal:
    """Over configurations with the same value, or in the same bin, whatever their other fields are."""
    parts = [scores[axis.cell == i] for i in range(len(axis.labels))]
    found = np.array([np.percentile(part, (50, 25, 75)) if len(part) else [math.nan] * 3 for part in parts])
    return Marginal(*found.T)


def influence(axis: Axis, scores: np.ndarray) -> float:
    """How far apart the marginal medians of a field are."""
    median = marginal(axis, scores).median
    return float(np.nanmax(median) - np.nanmin(median))


def cells(down: Axis, across: Axis, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians [B, B'], NaN for none, and counts [B, B'] of the configurations in each pair of values or bins."""
    median = np.full((len(down.labels), len(across.labels)), math.nan)
    count = np.zeros(median.shape, int)
    for i, j in np.ndindex(median.shape):
        own = scores[(down.cell == i) & (across.cell == j)]
        count[i, j] = len(own)
        median[i, j] = np.median(own) if len(own) else math.nan
    return median, count


def _exact(field: str, log: bool, at: np.ndarray, places: dict[Any, float]) -> Axis:
    centres = np.array(list(places.values()))
    cell = np.argmin(np.abs(at[:, None] - centres), axis=1)
    told = next(told for d in (2, 3, 4, 6, 17) if len(set(told := [shown(v, d) for v in places])) == len(places))
    return Axis(field, log, False, at, cell, told, centres, _spaced(dict(zip(centres.tolist(), told, strict=True))))


def _binned(field: str, log: bool, at: np.ndarray) -> Axis:
    """Bins of equal width along the axis; marks at round numbers, of a logarithm at 1, 2 and 5."""
    edges = np.linspace(at.min(), at.max(), _BINS + 1)
    cell = np.clip(np.searchsorted(edges, at, "right") - 1, 0, _BINS - 1)
    told = [shown(float(10**edge if log else edge), 2) for edge in edges]
    labels = [f"{low} to {high}" for low, high in itertools.pairwise(told)]
    return Axis(field, log, True, at, cell, labels, (edges[:-1] + edges[1:]) / 2, marks(at, log))


def marks(at: np.ndarray, log: bool) -> dict[float, str]:
    """Place -> name, at round numbers between the least and the greatest place."""
    low, high = float(np.min(at)), float(np.max(at))
    if not log:
        places = [x for x in ticks(low, high, 5) if low <= x <= high] or [low]
        return dict(zip(places, labels(places), strict=True))
    between = (1, 2, 5) if high - low < 1.5 else (1, 3) if high - low < 2.5 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    found = {math.log10(m) + e: m * 10.0**e for e in decades for m in between}
    near = {x: short(value) for x, value in found.items() if low - 0.02 <= x <= high + 0.02}
    return near or {low: short(10**low), high: short(10**high)}


def _spaced(marks: dict[float, str]) -> dict[float, str]:
    """Those whose names do not run into each other, from left to right."""
    letter = (max(marks) - min(marks)) / 55  # so many have room across a chart
    kept: dict[float, str] = {}
    for x, name in sorted(marks.items()):
        if not kept or x - max(kept) >= letter * ((len(name) + len(kept[max(kept)])) / 2 + 1):
            kept[x] = name
    return kept


def _is_drawn(spec: str, distinct: Sequence[float]) -> bool:
    """Whether values come from anywhere in a range, and not from a grid of it."""
    kind, *parts = spec.split(":")
    if kind not in ("log", "lin"):
        return False
    if len(parts) < 3:
        return True
    space = (np.geomspace if kind == "log" else np.linspace)(float(parts[0]), float(parts[1]), int(parts[2]))
    grid = np.concatenate([space, space.round()])  # of whole numbers
    return not np.isclose(np.array(distinct)[:, None], grid, rtol=1e-4).any(axis=1).all()


def _is_log(spec: str, distinct: Sequence[float]) -> bool:
    if spec.startswith(("log:", "lin:")):
        return spec.startswith("log:")
    return distinct[0] > 0 and distinct[-1] / distinct[0] >= _FAR_APART
