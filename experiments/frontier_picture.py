"""The picture of frontier.py: reward against KL, and what a learned reward hides."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

MARKS = dict(zip(("dpo", "ipo", "kto", "ppo", "grpo", "rloo", "ppo-learned"), "os^DvP*", strict=True))


def draw(path: Path, found: list[dict[str, Any]]) -> None:
    """found: of each run its method, strength and seed, and the figures of `sentiment_report.measure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic([["gold", "vader", "hidden"], ["gold", "vader", "hidden"], ["gold", "vader", "kl"]])
    gold, vader = axes["gold"], axes["vader"]
    seeds = len({run["seed"] for run in found})
    for axis, name, label in ((gold, "gold", "judge: P(positive)"), (vader, "vader", "VADER compound")):
        start = np.mean([run["before"][name] for run in found])
        axis.axhline(start, color="grey", lw=0.8, ls=":")
        axis.plot(0, start, "k*", ms=11, label="SFT" if axis is gold else None)
        for i, (method, mark) in enumerate(MARKS.items()):
            own = [run for run in found if run["method"] == method]
            if own:
                points(axis, own, name, f"C{i}{mark}", method if axis is gold else None)
        axis.set(xlabel="KL to SFT, nats a review", ylabel=label, title=f"{seeds} seeds" if axis is gold else None)
        axis.grid(alpha=0.3)
    learned = [run for run in found if run["method"] == "ppo-learned"]
    exploited(
        axes["hidden"], axes["kl"], [run for run in learned if run["strength"] == min(r["strength"] for r in learned)]
    )
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)


def points(axis: Any, own: list[dict[str, Any]], name: str, style: str, label: str | None) -> None:
    """Each seed small, and of each strength the mean with its interval: over seeds, or of one seed over films."""
    middle = []
    for strength in sorted({run["strength"] for run in own}):
        some = [run for run in own if run["strength"] == strength]
        x, y = (np.array([value(run, what) for run in some]) for what in ("kl", name))
        axis.plot(x, y, style, ms=3, alpha=0.35)
        middle.append((x.mean(), y.mean(), half(x, some, "kl"), half(y, some, name)))
    x, y, xerr, yerr = np.array(sorted(middle)).T
    axis.errorbar(x, y, yerr, xerr, f"{style}-", ms=5, lw=1, elinewidth=0.6, capsize=2, label=label)


def value(run: dict[str, Any], name: str) -> float:
    """A figure of the model after training."""
    return run["kl"] if name == "kl" else run["after"][name]


def half(values: np.ndarray, runs: list[dict[str, Any]], name: str) -> float:
    """Half of a 95 % interval: Student's over three seeds or more, else the one over films."""
    if len(values) > 2:
        return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(np.mean([run["kl_ci"] if name == "kl" else run["after"][f"{name}_ci"] for run in runs]))


def exploited(axis: Any, below: Any, runs: Iterable[dict[str, Any]]) -> None:
    """Of PPO against a learned reward with the weakest penalty: that reward, the judge's, and the KL, as it goes."""
    twin = axis.twinx()
    for i, run in enumerate(runs):
        x, reward, gold, kl = ([row[name] for row in run["along"]] for name in ("step", "reward", "gold", "kl"))
        axis.plot(x, gold, "o-", color="C0", ms=3, lw=1, alpha=0.8, label=None if i else "judge, along ppo-learned")
        twin.plot(x, reward, "s--", color="C3", ms=3, lw=1, alpha=0.8)
        axis.plot([], [], "s--", color="C3", ms=3, lw=1, label=None if i else "its learned reward")
        below.plot(x, kl, color="grey", lw=1)
    axis.set(ylabel="judge: P(positive)", title="against a learned reward")
    below.set(xlabel="completions learned from", ylabel="KL, nats")
    twin.set_ylabel("learned reward", color="C3")
    axis.tick_params(labelbottom=False)
    for each in (axis, below):
        each.grid(alpha=0.3)
