"""Pictures of a run."""

from pathlib import Path
from typing import Any

from jaxrl.logs import METRICS, read_rows


def learning_curve(run_dir: str | Path, references: dict[str, float] | None = None) -> Path:
    """Draw return and episode length against environment steps from metrics.jsonl into curve.png; returns its path.

    references: horizontal lines to compare with, such as the return of the zero action.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run_dir = Path(run_dir)
    rows = read_rows(run_dir / METRICS)
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    _line(top, rows, "episode_return", "while training, actions sampled", alpha=0.6)
    _line(top, rows, "eval_return", "evaluation, deterministic", marker="o", markersize=3)
    for i, (name, value) in enumerate((references or {}).items()):
        top.axhline(value, color="0.6", linestyle=(":", "--")[i % 2], linewidth=1, label=f"{name}: {value:.0f}")
    _line(bottom, rows, "episode_length", "while training", alpha=0.6)
    _line(bottom, rows, "eval_episode_length", "evaluation", marker="o", markersize=3)
    top.set(ylabel="episode return", title=run_dir.name)
    bottom.set(xlabel="environment steps", ylabel="episode length")
    top.legend(fontsize=8)
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    path = run_dir / "curve.png"
    figure.savefig(path, dpi=120)
    return path


def _line(axis: Any, rows: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), label=label, **style)
