"""The charts of a sweep: sensitivity, curves, and the schedules that a population found."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl.reports.page.figures import entry
from jaxrl.reports.page.markup import Markup, el
from jaxrl.reports.page.svg import Series, plot
from jaxrl.reports.page.tables import number
from jaxrl.reports.statistics import FEWEST_RUNS, interquartile_mean, sample_efficiency
from jaxrl.reports.sweep.marginals import Axis, Level, axis, marginal, marks
from jaxrl.reports.sweep.ranking import Configuration, Member, Sweep

TOP, LINES = 5, 20
_GREY = 7
_SHADES = 5


class Aggregate(NamedTuple):
    """Interquartile mean [S] over the seeds of a configuration at the steps [S] that all have, with a band: its 95 %
    interval, or from the lowest to the highest seed where they are too few for one; none for one seed."""

    steps: np.ndarray
    value: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None


def sensitivity(sweep: Sweep, field: str, at: Level) -> Markup:
    """Score against a field: a dot for each configuration, the median at each value, or in each bin, and quartiles."""
    own = axis(sweep, field, at.configurations)
    found = marginal(own, at.scores)
    some = ~np.isnan(found.median)
    middle = Series(own.centres[some], found.median[some], 0, "median", marks=True)
    middle = middle._replace(band=(found.low[some], found.high[some]))
    dots = Series(own.at, at.scores, _GREY, scattered=True)
    name = field + (", log scale" if own.log else "")
    return el(
        "figure", el("figcaption", field), plot(field, _told(own, found.median), [dots, middle], name, {}, own.marks)
    )


def _told(own: Axis, median: np.ndarray) -> str:
    each = [f"{label}: {number(float(x))}" for label, x in zip(own.labels, median, strict=True) if not np.isnan(x)]
    return f"Median score at each value of {own.field}. " + "; ".join(each)


def drawn(sweep: Sweep) -> tuple[list[Configuration], list[Configuration]]:
    """The configurations whose curves are drawn in colour, and those in grey: every so manieth of the others."""
    top, others = sweep.ranked[:TOP], sweep.ranked[TOP:]
    if len(others) > LINES - TOP:
        others = [others[i] for i in np.linspace(0, len(others) - 1, LINES - TOP).round().astype(int)]
    return top, others


def curves(sweep: Sweep) -> list[Markup]:
    """Scores over steps; beside them the returns of training, where they were logged."""
    made = [_curves(sweep, "score", f"Score ({sweep.about['score']})" if sweep.about.get("score") else "Score")]
    if "episode_return" in sweep.table.columns:
        made.append(_curves(sweep, "episode_return", "Episode return in training, actions sampled"))
    return [figure for figure in made if figure]


def _curves(sweep: Sweep, metric: str, title: str) -> Markup | None:
    top, others = drawn(sweep)
    told = [(c, aggregate(sweep, c.members, metric, banded=c in top)) for c in [*others, *top]]
    series = []
    for c, found in told:
        style = {"name": f"{sweep.noun} {c.index}", "marks": metric == "score", "band": found.band} if c in top else {}
        colour = top.index(c) if c in top else _GREY
        if len(found.steps):
            series.append(Series(found.steps, found.value, colour, **style))
    named = [s for s in series if s.name][::-1] or None
    if named is None:
        return None
    about = f"{title} against {sweep.unit}. " + "; ".join(f"{s.name} ends at {s.y[-1]:.4g}" for s in named)
    legend = el("p", [entry(s) for s in sorted(named, key=lambda s: s.colour)], class_="legend")
    figure = plot(title, about, sorted(series, key=lambda s: s.colour), sweep.unit, {})
    return el("figure", el("figcaption", title), figure, legend, el("output", ""))


def aggregate(sweep: Sweep, members: Sequence[Member], metric: str, banded: bool = True) -> Aggregate:
    """A metric of the seeds of a configuration. In `score` those that diverged count as in the ranking; of any other
    metric they have no number that could stand for them, and are left out while there are others."""
    if metric != "score":
        members = [member for member in members if not member.diverged] or members
    each = [_measured(sweep, member, metric) for member in members]
    steps = sorted(set.intersection(*[set(own) for own in each]))
    values = np.array([[own[step] for step in steps] for own in each], float).reshape(len(members), len(steps))
    x = np.array(steps, float)
    if not steps or len(members) == 1:
        return Aggregate(x, values[0], None)
    if not banded:
        return Aggregate(x, interquartile_mean(values.T), None)
    if len(members) < FEWEST_RUNS:
        return Aggregate(x, interquartile_mean(values.T), (values.min(axis=0), values.max(axis=0)))
    found = sample_efficiency(values)
    return Aggregate(x, found.value, (found.low, found.high))


def _measured(sweep: Sweep, member: Member, metric: str) -> dict[int, float]:
    if metric == "score":
        return dict(zip(member.steps.tolist(), member.scores.tolist(), strict=True))
    values = sweep.table.columns[metric][member.rows]
    steps = sweep.table.columns["step"][member.rows]
    return {int(s): float(x) for s, x in zip(steps, values, strict=True) if np.isfinite(x)}


def schedules(sweep: Sweep, field: str) -> Markup:
    """A swept field over steps, a line for each member of the population, in five shades by its rank at the end."""
    order = sweep.ranked[::-1]
    if len(order) > LINES:
        order = [order[i] for i in np.linspace(0, len(order) - 1, LINES).round().astype(int)]
    log = axis(sweep, field, sweep.ranked).log
    series, values = [], []
    for place, c in enumerate(order):
        (member,) = c.members
        x, y = (sweep.table.columns[name][member.rows].astype(float) for name in ("step", field))
        y = np.log10(y) if log else y
        shade = place * _SHADES // len(order)
        # a row says what its member learned with since the row before
        series.append(Series(np.repeat([0, *x], 2)[1:-1], np.repeat(y, 2), shade))
        values += y.tolist()
    about = f"{field} of each member against {sweep.unit}; the darker or brighter, the better it ends."
    name = field + (", log scale" if log else "")
    figure = plot(field, about, series, sweep.unit, {}, None, marks(np.array(values), log) if log else None)
    return el("figure", el("figcaption", name), figure, class_="shades")
