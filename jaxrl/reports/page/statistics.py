"""Numbers over steps and over seeds."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

# Means over the episodes that ended since the row before: null where none did, and not because of a bad number.
WITHOUT_EPISODES = ("episode_return", "episode_length")


class Curve(NamedTuple):
    """Values [P] of one run at its steps [P], rising; NaN where what was logged was not finite."""

    step: np.ndarray
    value: np.ndarray


class Band(NamedTuple):
    """Mean, least and greatest value [P] of those runs that have one at each step [P]."""

    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Interval(NamedTuple):
    """The mean of n values, and half of its 95 % interval by Student's t: None for one value, which tells no spread."""

    mean: float
    half: float | None
    n: int


class Share(NamedTuple):
    """The mean over all steps, and the rows above 0, of so many."""

    mean: float
    above: int
    rows: int


def curve(rows: Iterable[dict[str, Any]], metric: str) -> Curve:
    """A metric of some rows; rows without it are passed over."""
    told = {row["step"]: row[metric] for row in rows if metric in row and _is_number(row[metric])}
    steps = sorted(told)
    return Curve(np.array(steps, float), np.array([math.nan if told[s] is None else told[s] for s in steps], float))


def band(curves: Sequence[Curve]) -> Band:
    """Over runs, at every step that one of them has. Between its own steps a run is taken to move straight; before its
    first, after its last, and where it was not finite it does not count."""
    steps = np.unique(np.concatenate([c.step for c in curves]))
    values = np.array([_at(c, steps) for c in curves])
    some = ~np.isnan(values).all(axis=0)
    steps, values = steps[some], values[:, some]
    return Band(steps, np.nanmean(values, axis=0), np.nanmin(values, axis=0), np.nanmax(values, axis=0))


def _at(c: Curve, steps: np.ndarray) -> np.ndarray:
    own = dict(zip(c.step, c.value, strict=True))
    fine = ~np.isnan(c.value)
    if not fine.any():
        return np.full(len(steps), math.nan)
    between = np.interp(steps, c.step[fine], c.value[fine], left=math.nan, right=math.nan)
    return np.array([own.get(s, x) for s, x in zip(steps, between, strict=True)])


def interval(values: Sequence[float]) -> Interval:
    """Mean ± t(0.975, n - 1) · s / √n."""
    n = len(values)
    half = scipy.special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n) if n > 1 else None
    return Interval(float(np.mean(values)), None if half is None else float(half), n)


def not_finite(rows: Iterable[dict[str, Any]]) -> Counter[str]:
    """How many values of each metric were not finite: they are logged as null."""
    return Counter(name for row in rows for name, value in row.items() if value is None)


def share(rows: Sequence[dict[str, Any]], metric: str) -> Share | None:
    """Of a metric that is a share of what each row covers; None if no row has it. One that was not finite counts as
    above 0, and not in the mean."""
    found, before = [], 0
    for row in sorted(rows, key=lambda row: row["step"]):
        if metric in row and _is_number(row[metric]):
            found.append((row["step"] - before, row[metric]))
        before = row["step"]
    if not found:
        return None
    known = [(steps, value) for steps, value in found if value is not None]
    total = sum(steps for steps, _ in known)
    mean = sum(steps * value for steps, value in known) / total if total else 0.0
    return Share(mean, sum(value is None or value > 0 for _, value in found), len(found))


def thinned(points: np.ndarray, most: int = 400) -> np.ndarray:
    """At most `most` of the points [P, …], evenly, with the first and the last."""
    if len(points) <= most:
        return points
    return points[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)
