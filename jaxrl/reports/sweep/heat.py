"""Heat maps: the score over a pair of swept fields, as tables whose cells are coloured."""

import itertools
import math

import numpy as np

from jaxrl.reports.page.markup import Markup, el
from jaxrl.reports.sweep.marginals import Axis, Level, axis, cells, influence
from jaxrl.reports.sweep.ranking import Sweep
from jaxrl.reports.throughput import short

MOST_FIELDS = 3
# Dark blue to yellow, ever lighter: in one order for all colour vision (after cividis, Nuñez et al. 2018).
_SCALE = np.array([[0, 34, 78], [67, 78, 108], [125, 124, 120], [188, 175, 111], [254, 232, 56]], float)


def heat_maps(sweep: Sweep, at: Level) -> list[Markup]:
    """One for each pair of fields that take several values; of more than three, of the three that matter most."""
    axes = [axis(sweep, field, at.configurations) for field in sweep.fields]
    axes = [one for one in axes if len(one.labels) > 1]
    if len(axes) > MOST_FIELDS:
        kept = sorted(axes, key=lambda one: -influence(one, at.scores))[:MOST_FIELDS]
        axes = [one for one in axes if one in kept]
    found = [(down, across, *cells(down, across, at.scores)) for down, across in itertools.combinations(axes, 2)]
    if not found:
        return []
    low = min(np.nanmin(median) for *_, median, _ in found)
    high = max(np.nanmax(median) for *_, median, _ in found)
    legend = _legend(low, high)
    return [legend, el("div", [_map(*one, low, high) for one in found], class_="charts maps")]


def colour(share: float) -> tuple[str, str]:
    """Of a score so far between the lowest and the highest: what a cell is filled with, and what is written on it."""
    at = share * (len(_SCALE) - 1)
    filled = [np.interp(at, range(len(_SCALE)), channel) for channel in _SCALE.T]
    light = 0.299 * filled[0] + 0.587 * filled[1] + 0.114 * filled[2]
    return "#" + "".join(f"{round(x):02x}" for x in filled), "#000" if light > 118 else "#fff"


def _map(down: Axis, across: Axis, median: np.ndarray, count: np.ndarray, low: float, high: float) -> Markup:
    head = el("tr", el("th", ""), [el("th", label, scope="col") for label in across.labels])
    rows = []
    for label, scores, counts in zip(down.labels, median.tolist(), count.tolist(), strict=True):
        made = [_cell(x, n, low, high) for x, n in zip(scores, counts, strict=True)]
        rows.append(el("tr", el("th", label, scope="row"), made))
    name = f"{down.field} (down) and {across.field} (across)"
    table = el("table", el("thead", head), el("tbody", rows), class_="heat", aria_label=name)
    return el("figure", el("figcaption", name), el("div", table, class_="wide", tabindex=0))


def _cell(score: float, count: int, low: float, high: float) -> Markup:
    if math.isnan(score):
        return el("td", "", title="no configuration")
    filled, ink = colour((score - low) / (high - low) if high > low else 0.5)
    named = f"{count} configuration{'s' * (count != 1)}"
    return el("td", short(score), style=f"background:{filled};color:{ink}", title=named)


def _legend(low: float, high: float) -> Markup:
    stops = ",".join(colour(share)[0] for share in (0, 0.25, 0.5, 0.75, 1))
    bar = el("span", "", class_="scale", style=f"background:linear-gradient(90deg,{stops})")
    return el("p", short(low), bar, short(high), class_="note")
