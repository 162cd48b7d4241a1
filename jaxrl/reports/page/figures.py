"""The curves of a report: which metrics share a pair of axes, and how runs of several configs are told apart."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxrl.reports.page.collected import Group, Record
from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.statistics import WITHOUT_EPISODES, Curve, band, curve
from jaxrl.reports.page.svg import COLOURS, Series, plot


class Chart(NamedTuple):
    """One pair of axes. metrics: name -> what the legend calls it; the first is drawn in full, the others dashed."""

    title: str
    metrics: dict[str, str]
    timed: bool = False  # from timing.jsonl


_HELD = {"eval_": "held-out rows", "first_rows_": "first training rows"}


def _both(name: str) -> dict[str, str]:
    return {**{f"{prefix}{name}": label for prefix, label in _HELD.items()}, name: "training batches"}


CHARTS = (
    Chart("Episode return", {"eval_return": "evaluation", "episode_return": "training, actions sampled"}),
    Chart("Episode length", {"eval_episode_length": "evaluation", "episode_length": "training"}),
    Chart("Forward speed, m/s", {"eval_forward_speed": "evaluation"}),
    Chart("Loss", _both("loss")),
    Chart("Reward margin", _both("rewards/margin")),
    Chart(
        "Rewards of both answers, held-out rows", {"eval_rewards/chosen": "chosen", "eval_rewards/rejected": "rejected"}
    ),
    Chart("Rewards of both answers, training batches", {"rewards/chosen": "chosen", "rewards/rejected": "rejected"}),
    Chart("Reward accuracy", _both("rewards/accuracy")),
    Chart("Margin of the preferred answer", _both("margin")),
    Chart("Accuracy", _both("accuracy")),
    Chart("Calibration error", {"eval_ece": "held-out rows"}),
    Chart("Reward", {"eval_reward": "held-out prompts", "reward": "training batches"}),
    Chart("KL to the reference, nats a text", {"eval_kl": "held-out prompts", "kl": "training batches"}),
    Chart("Tokens of a completion", {"eval_length": "held-out prompts", "length": "training batches"}),
    Chart("Share of completions that ended", {"eval_finished": "held-out prompts", "finished": "training batches"}),
    Chart("KL to the model before, nats a text", {"eval_sample_kl": "k1", "eval_sample_kl_k3": "k3"}),
    Chart("Policy loss", {"policy_loss": ""}),
    Chart("Value loss", {"value_loss": ""}),
    Chart("KL of an update, nats", {"approx_kl": ""}),
    Chart("Entropy, nats", {"entropy": "training", "eval_entropy": "held-out rows"}),
    Chart("Explained variance", {"explained_variance": ""}),
    Chart("Share of ratios clipped", {"clip_fraction": ""}),
    Chart("Gradient norm, before clipping", {"grad_norm": ""}),
    Chart("Learning rate", {"learning_rate": ""}),
    Chart("Share of steps invalid", {"invalid_steps": "training", "eval_invalid_steps": "evaluation"}),
    Chart("Share of gradient steps skipped", {"skipped_updates": ""}),
    Chart("Throughput, steps a second", {"steps_per_second": ""}, timed=True),
)
_MARKED = ("eval_", "first_rows_")


def charts(groups: Sequence[Group], levels: dict[str, float]) -> Markup:
    """The known charts that have data. levels: horizontal lines of the first, for comparison."""
    drawn = [chart(known, groups, levels if known is CHARTS[0] else {}) for known in CHARTS]
    return el("div", [figure for figure in drawn if figure], class_="charts")


def other_charts(groups: Sequence[Group]) -> list[Markup]:
    """A chart for each metric that no known chart shows, by name."""
    shown = {name for known in CHARTS for name in known.metrics}
    names = {name for group in groups for r in group.records for row in r.rows for name in row} - shown - {"step"}
    return [figure for name in sorted(names) if (figure := chart(Chart(name, {name: ""}), groups, {}))]


def chart(known: Chart, groups: Sequence[Group], levels: dict[str, float]) -> Markup | None:
    """One <figure>: lines of every group and metric, a band and thin lines where a group has several runs."""
    found = [
        (group, name, curves)
        for group in groups
        for name in known.metrics
        if (curves := [c for r in group.records if np.isfinite((c := _curve(known, r, name)).value).any()])
    ]
    if not found:
        return None
    series: list[Series] = []
    for group, name, curves in found:
        names = list(dict.fromkeys(n for _, n, _ in found))
        colour = groups.index(group) if len(groups) > 1 else names.index(name)
        label = ", ".join(filter(None, [group.name.split(":")[0] if len(groups) > 1 else "", known.metrics[name]]))
        style = {"colour": colour, "dashed": name != names[0] and len(groups) > 1, "marks": name.startswith(_MARKED)}
        series += _lines(curves, label or known.title, style)
    unit = "environment steps" if groups[0].records[0].control else "rows"
    counted = [c for _, name, curves in found if name not in WITHOUT_EPISODES for c in curves]
    lost = sum(int(np.isnan(c.value).sum()) for c in counted)
    about = f"{known.title} against {unit}. " + "; ".join(_told(s) for s in series if s.name)
    legend = [entry(s) for s in series if s.name] if len([s for s in series if s.name]) > 1 else []
    return el(
        "figure",
        el(
            "figcaption",
            known.title,
            el("span", f" {lost} value{'s' * (lost != 1)} not finite", class_="warn") if lost else "",
        ),
        plot(known.title, about, series, unit, levels),
        el("p", legend, class_="legend") if legend else "",
        el("output", ""),
    )


def _curve(known: Chart, record: Record, name: str) -> Curve:
    return curve(record.timing if known.timed else record.rows, name)


def _lines(curves: Sequence[Curve], label: str, style: dict) -> list[Series]:
    if len(curves) == 1:
        return [Series(*curves[0], name=label, **style)]
    over = band(curves)
    thin = [Series(*c, **{**style, "marks": False}) for c in curves]
    return [*thin, Series(over.step, over.mean, name=label, band=(over.low, over.high), **style)]


def _told(s: Series) -> str:
    last = s.y[np.isfinite(s.y)][-1]
    return f"{s.name} ends at {last:.4g}"


def entry(s: Series) -> Markup:
    """What the legend says of a line."""
    line = el("path", class_=f"line c{s.colour % COLOURS}" + " dashed" * s.dashed, d="M0 5H22")
    return join(el("span", el("svg", line, viewBox="0 0 22 10", width=22, height=10, aria_hidden="true"), s.name), " ")
