"""Pictures of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl.reports.rows import METRICS, read_metrics
from jaxrl.types import Line, Panel


def learning_curve(
    run_dir: str | Path, panels: Sequence[Panel], unit: str, references: dict[str, float] | None = None
) -> Path:
    """Draw metrics.jsonl into curve.png, panels that have data above each other, and return its path.

    unit: what a step is, for the x axis. references: horizontal lines of the first panel.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run_dir = Path(run_dir)
    rows = read_metrics(run_dir / METRICS)
    panels = [p for p in panels if any(line.metric in row for line in p.lines for row in rows)] or panels[:1]
    width, height = 7, 3 + 1.5 * len(panels)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    # Margins in inches. To fit them to what is written there draws everything twice, at the end of each run.
    margins = {"left": 1.1 / width, "right": 1 - 0.15 / width, "bottom": 0.55 / height, "top": 1 - 0.35 / height}
    ratios = (2, *[1] * (len(panels) - 1))
    axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={**margins, "hspace": 0.12}, height_ratios=ratios
    )
    for axis, panel in zip(axes[:, 0], panels, strict=True):
        for line in panel.lines:
            _draw(axis, rows, line)
        axis.set_ylabel(panel.ylabel)
        axis.grid(alpha=0.3)
    top, bottom = axes[0, 0], axes[-1, 0]
    for i, (name, value) in enumerate((references or {}).items()):
        label = f"{name}: {value:.4g}"
        top.axhline(value, color="0.6", linestyle=(":", "--")[i % 2], linewidth=1, label=label)
    top.set_title(run_dir.name)
    for axis in axes[:, 0]:
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    bottom.set_xlabel(unit)
    path = run_dir / "curve.png"
    figure.savefig(path, dpi=120)
    return path


def _draw(axis: Any, rows: list[dict[str, Any]], line: Line) -> None:
    points = [(row["step"], row[line.metric]) for row in rows if row.get(line.metric) is not None]
    style = {"marker": "o", "markersize": 3} if line.metric.startswith(("eval_", "first_rows_")) else {"alpha": 0.6}
    if points:
        axis.plot(*zip(*points, strict=True), label=line.label, **style)
