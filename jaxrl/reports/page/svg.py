"""Curves as SVG: lines, bands and marks on axes with round numbers."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.statistics import thinned
from jaxrl.reports.throughput import short

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 8, 34
COLOURS = 8


class Series(NamedTuple):
    """One line: points (x, y), NaN where it breaks. colour: its number. name: for the legend and the read-out; none
    draws it thin and without either. dashed, marks: how it is drawn; scattered: as dots without a line. band: y below
    and above."""

    x: np.ndarray
    y: np.ndarray
    colour: int
    name: str = ""
    dashed: bool = False
    marks: bool = False
    scattered: bool = False
    band: tuple[np.ndarray, np.ndarray] | None = None


def plot(
    title: str,
    about: str,
    series: Sequence[Series],
    xlabel: str,
    levels: dict[str, float],
    x_named: dict[float, str] | None = None,
    y_named: dict[float, str] | None = None,
) -> Markup:
    """An <svg> with its title and a description for those who cannot see it. levels: horizontal lines. x_named,
    y_named: where an axis is to have marks, and what they are called, in place of round numbers; an x axis that has
    such does not start at 0, and has no read-out."""
    xs = np.concatenate([s.x for s in series])
    ys = np.concatenate([y for s in series for y in (s.y, *(s.band or ()))] + [np.array(list(levels.values()))])
    ys = ys[np.isfinite(ys)]
    low, high = (min(0, xs.min()), max(xs.max(), 1e-9)) if x_named is None else _padded([*xs, *x_named])
    x_told = _named(ticks(low, high, 5)) if x_named is None else x_named
    y_told = _named(ticks(*_room(ys), 5)) if y_named is None else y_named
    frame = Frame((low, high), (min(y_told), max(y_told)) if y_named is None else _padded([*ys, *y_named]))
    drawn = [axes(frame, x_told, y_told, xlabel)]
    drawn += [_band(frame, s) for s in series if s.band is not None]
    drawn += [_line(frame, s) for s in sorted(series, key=lambda s: bool(s.name))]
    drawn += [_level(frame, name, value, i) for i, (name, value) in enumerate(levels.items())]
    cross = el("line", class_="cross", y1=TOP, y2=HEIGHT - BOTTOM, x1=-9, x2=-9)
    return el(
        "svg",
        el("title", title),
        el("desc", about),
        drawn,
        cross,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        data_plot=_data(frame, series) if x_named is None else None,
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, from at or below `low` to at or above `high`."""
    rough = max(high - low, 1e-30) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


class Frame(NamedTuple):
    """What stretch of each axis a plot shows."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Pixels [P, 2]."""
        across = LEFT + (WIDTH - LEFT - RIGHT) * (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0])
        down = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (np.asarray(y) - self.y[0]) / (self.y[1] - self.y[0])
        return np.stack(np.broadcast_arrays(across, down), axis=-1)


def _room(ys: np.ndarray) -> tuple[float, float]:
    low, high = (ys.min(), ys.max()) if len(ys) else (0.0, 1.0)
    if high - low > 1e-9 * max(abs(high), abs(low)):
        return low, high
    return (0.0, 1.0) if low == 0 else (low - abs(low) * 0.05, high + abs(high) * 0.05)  # a level line


def _padded(values: Sequence[float]) -> tuple[float, float]:
    """Their range and a twentieth of it on either side."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _named(numbers: Sequence[float]) -> dict[float, str]:
    return dict(zip(numbers, labels(numbers), strict=True))


def axes(frame: Frame, x_told: dict[float, str], y_told: dict[float, str], xlabel: str) -> Markup:
    """Horizontal lines, and what the marks of both axes are called."""
    drawn = []
    for y, label in y_told.items():
        at = float(frame.at(frame.x[0], y)[1])
        drawn.append(el("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at))
        drawn.append(el("text", label, x=LEFT - 5, y=at + 4, text_anchor="end"))
    for x, label in x_told.items():
        if x <= frame.x[1] * (1 + 1e-9):
            at = float(frame.at(x, frame.y[0])[0])
            anchor = "end" if at > WIDTH - 30 else "middle"
            drawn.append(el("text", label, x=min(at, WIDTH - RIGHT + 0.0), y=HEIGHT - 20, text_anchor=anchor))
    middle = (LEFT + WIDTH - RIGHT) / 2
    return join(drawn, el("text", xlabel, class_="label", x=middle, y=HEIGHT - 5, text_anchor="middle"))


def labels(numbers: Sequence[float]) -> list[str]:
    """As short as tells them apart."""
    for digits in range(3, 9):
        told = [short(number, digits) for number in numbers]
        if len(set(told)) == len(told):
            break
    return told


def _level(frame: Frame, name: str, value: float, number: int) -> Markup:
    """A dotted line with its name; the names of two that lie close stand at different ends."""
    if not math.isfinite(value):
        return join()
    at = float(frame.at(0, value)[1])
    line = el("line", class_="level", x1=LEFT, x2=WIDTH - RIGHT, y1=at, y2=at)
    above = at - 3 if at > TOP + 14 else at + 11
    x, anchor = (WIDTH - RIGHT, "end") if number % 2 == 0 else ((LEFT + WIDTH - RIGHT) / 2, "middle")
    return join(line, el("text", name, class_="label", x=x, y=above, text_anchor=anchor))


def _band(frame: Frame, s: Series) -> Markup:
    low, high = (thinned(frame.at(s.x, edge)) for edge in s.band)
    return el("path", class_=f"band c{s.colour % COLOURS}", d=_path(np.concatenate([low, high[::-1]])) + "Z")


def _line(frame: Frame, s: Series) -> Markup:
    at = frame.at(s.x, s.y)
    if s.scattered:
        return join([el("circle", class_=f"dot faint c{s.colour}", cx=float(x), cy=float(y), r=2.2) for x, y in at])
    at = thinned(at)
    kind = "line" if s.name else "thin"
    name = f"{kind} c{s.colour % COLOURS}" + " dashed" * s.dashed
    whole = at[~np.isnan(at[:, 1])]
    # A point between two that are not finite has no line through it, and would not be seen.
    marks = whole if s.marks and s.name and len(whole) <= 40 else whole[:1] if len(whole) == 1 else []
    dots = [el("circle", class_=f"dot c{s.colour % COLOURS}", cx=float(x), cy=float(y), r=2.2) for x, y in marks]
    return join(el("path", class_=name, d=_path(at)), dots)


def _path(at: np.ndarray) -> str:
    told, pen = [], "M"
    for x, y in at:
        if math.isnan(y):
            pen = "M"
            continue
        told.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(told)


def _data(frame: Frame, series: Sequence[Series]) -> str:
    """What the read-out under a finger or a mouse needs of the named lines."""
    told = []
    for s in [s for s in series if s.name]:
        rows = thinned(np.stack([s.x, s.y], axis=1))
        told.append(
            [s.name, [int(x) for x in rows[:, 0]], [None if math.isnan(y) else float(f"{y:.4g}") for y in rows[:, 1]]]
        )
    return json.dumps({"from": frame.x[0], "to": frame.x[1], "left": LEFT, "right": WIDTH - RIGHT, "lines": told})
