"""How sure a reward model is of its preferences, against how often it is right: a reliability diagram."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxrl.reports.page.collected import Group, Record
from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.svg import HEIGHT, WIDTH, Frame, axes

BINS = 10  # as `jaxrl.algorithms.reward_model` makes them, between a half and one
_FRAME = Frame((0.5, 1.0), (0.0, 1.0))
_TALLEST = 0.22  # of the bars, in units of the y axis
_FIELDS = ("confidence", "accuracy", "pairs")


class Bin(NamedTuple):
    """Pairs of which the likelier answer has about the same probability: their mean, and the share that is right."""

    confidence: float
    accuracy: float
    pairs: int

    def interval(self) -> tuple[float, float]:
        """Where the share that is right lies with 95 % (Wilson 1927)."""
        n, p, z2 = self.pairs, self.accuracy, 1.96**2
        middle, reach = p + z2 / (2 * n), math.sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n)
        return max(0.0, (middle - reach) / (1 + z2 / n)), min(1.0, (middle + reach) / (1 + z2 / n))


def diagrams(groups: Sequence[Group]) -> Markup | None:
    """A diagram of each group that has held-out pairs, at its last evaluation; the pairs of all its seeds together."""
    drawn = [made for group in groups if (made := _figure(group, len(groups) > 1)) is not None]
    told = (
        "Points: held-out pairs by the probability that the likelier answer is given, and how often that one was the "
        "preferred one, with 95 % intervals. On the dotted line both agree; below it the model is surer than it is "
        "right. Bars and numbers: how many pairs."
    )
    return join(el("p", told), el("div", drawn, class_="charts")) if drawn else None


def bins(records: Sequence[Record]) -> list[Bin]:
    """Of the last evaluation of each run, in order of confidence, empty ones left out."""
    sums = [[0.0, 0.0, 0] for _ in range(BINS)]
    for row in [row for record in records for row in _last(record)]:
        own = sums[min(BINS - 1, max(0, int((row["confidence"] - 0.5) * 2 * BINS)))]
        for i, value in enumerate((row["confidence"] * row["pairs"], row["accuracy"] * row["pairs"], row["pairs"])):
            own[i] += value
    return [Bin(sure / count, right / count, count) for sure, right, count in sums if count]


def calibration_error(found: Sequence[Bin]) -> float:
    """The mean distance between how sure and how often right, over pairs."""
    return sum(b.pairs * abs(b.confidence - b.accuracy) for b in found) / sum(b.pairs for b in found)


def _last(record: Record) -> list[Mapping[str, Any]]:
    kept = [row["held_out"] for row in record.held_out if isinstance(row.get("held_out"), list)]
    return [
        row
        for row in (kept[-1] if kept else [])
        if isinstance(row, dict) and all(isinstance(row.get(f), int | float) for f in _FIELDS)
    ]


def _figure(group: Group, several: bool) -> Markup | None:
    found = bins(group.records)
    if not found:
        return None
    steps = sorted({row["step"] for record in group.records for row in record.held_out[-1:]})
    count, error = sum(b.pairs for b in found), calibration_error(found)
    name = f"{group.name.split(':')[0]}: " if several else ""
    caption = f"{name}{count:,} held-out pairs after {steps[-1]:,} rows; calibration error {error:.3f}"
    about = "; ".join(f"of {b.pairs:,} pairs at {b.confidence:.1%}, {b.accuracy:.1%} are right" for b in found)
    picture = el(
        "svg",
        el("title", caption),
        el("desc", about),
        _bars(found),
        axes(
            _FRAME,
            {x / 10: f"{x / 10:g}" for x in range(5, 11)},
            {y / 5: f"{y / 5:g}" for y in range(6)},
            "probability of the likelier answer",
        ),
        _path([(0.5, 0.5), (1.0, 1.0)], "level"),
        [_path([(b.confidence, y) for y in b.interval()], "thin c0") for b in found],
        _path([(b.confidence, b.accuracy) for b in found], "line c0"),
        [el("circle", class_="dot c0", cx=x, cy=y, r=3.2) for x, y in map(_at, found)],
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    return el("figure", el("figcaption", caption), picture)


def _bars(found: Sequence[Bin]) -> list[Markup]:
    most, drawn = max(b.pairs for b in found), []
    for b in found:
        place = min(BINS - 1, int((b.confidence - 0.5) * 2 * BINS))
        (left, top), (right, foot) = (
            _at((0.5 + (place + end) / (2 * BINS), height))
            for end, height in ((0.08, _TALLEST * b.pairs / most), (0.92, 0))
        )
        drawn.append(el("rect", class_="band c0", x=left, y=top, width=right - left, height=foot - top))
        drawn.append(el("text", f"{b.pairs:,}", x=(left + right) / 2, y=top - 3, text_anchor="middle"))
    return drawn


def _path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    told = "L".join("{:.1f} {:.1f}".format(*_at(point)) for point in points)
    return el("path", class_=kind, d=f"M{told}")


def _at(point: Sequence[float]) -> tuple[float, float]:
    x, y = _FRAME.at(point[0], point[1])
    return float(x), float(y)
