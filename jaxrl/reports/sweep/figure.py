"""A picture of a sweep, for a README."""

from pathlib import Path
from typing import Any

from jaxrl.reports.sweep.charts import aggregate, drawn
from jaxrl.reports.sweep.marginals import Level, axis, influence, level, marginal
from jaxrl.reports.sweep.ranking import Sweep, read_sweep
from jaxrl.reports.sweep.table import shown
from jaxrl.reports.throughput import short
from jaxrl.types import InputError

_MOST_FIELDS = 3


def sensitivity_figure(sweep_dir: str | Path, path: str | Path) -> Path:
    """Draw a sweep into a PNG, and return its path: on the left the score over steps, in colour the best configurations
    with their bands; on the right the last score against each swept field, of more than three those that matter most.

    Raises InputError as `read_sweep` does, and where no member was evaluated yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sweep = read_sweep(sweep_dir)
    if not sweep.ranked:
        raise InputError(f"no member of {sweep_dir} has been evaluated yet; draw it later")
    at = level(sweep)
    fields = sorted(sweep.fields, key=lambda name: -influence(axis(sweep, name, at.configurations), at.scores))
    rows = max(1, min(len(fields), _MOST_FIELDS))
    figure = Figure(figsize=(10, 2.6 + 1.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 2, width_ratios=(3, 2))
    _curves(figure.add_subplot(grid[:, 0]), sweep)
    for row, field in enumerate(fields[:_MOST_FIELDS]):
        _sensitivity(figure.add_subplot(grid[row, 1]), sweep, field, at)
    seeds = max(len(c.members) for c in sweep.ranked)
    count = f"{len(sweep.ranked)} configuration{'s' * (len(sweep.ranked) != 1)} × {seeds} seed{'s' * (seeds != 1)}"
    figure.suptitle(f"{str(sweep.about['algorithm']).upper()} on {sweep.about['subject']}: {count}", fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _curves(axes: Any, sweep: Sweep) -> None:
    top, others = drawn(sweep)
    for c in others:
        found = aggregate(sweep, c.members, "score", banded=False)
        axes.plot(found.steps, found.value, color="0.75", linewidth=0.8)
    for i, c in enumerate(top):
        found = aggregate(sweep, c.members, "score")
        label = ", ".join(f"{name} {shown(value, 2)}" for name, value in c.values.items()) or "all seeds"
        axes.plot(found.steps, found.value, color=f"C{i}", marker="o", markersize=3, label=label)
        if found.band is not None:
            axes.fill_between(found.steps, *found.band, color=f"C{i}", alpha=0.15, linewidth=0)
    axes.set_xlabel(sweep.unit)
    axes.xaxis.set_major_formatter(lambda x, _: short(x))
    axes.set_ylabel(sweep.about.get("score") or "score")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.12))  # within, it would lie on some line


def _sensitivity(axes: Any, sweep: Sweep, field: str, at: Level) -> None:
    own = axis(sweep, field, at.configurations)
    found = marginal(own, at.scores)
    axes.scatter(own.at, at.scores, s=10, color="0.6")
    axes.plot(own.centres, found.median, color="C0", marker="o", markersize=3)
    axes.fill_between(own.centres, found.low, found.high, color="C0", alpha=0.15, linewidth=0)
    axes.set_xticks(list(own.marks), list(own.marks.values()))
    axes.set_xlabel(field, labelpad=1)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
