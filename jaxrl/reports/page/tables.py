"""The tables of a report."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from jaxrl.reports.page.collected import Group, Record, differing, outcome
from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.statistics import WITHOUT_EPISODES, interval, not_finite, share

# What is shown first, and how it is called. All other numbers of result.json follow under their own names.
FIGURES = {
    "return": "return",
    "zero_action_return": "return of the zero action",
    "random_return": "return of random actions",
    "return_std": "standard deviation between episodes",
    "episode_length": "episode length, steps",
    "forward_speed": "forward speed, m/s",
    "loss": "loss",
    "loss_before": "loss before",
    "first_rows_loss": "loss on the first training rows",
    "first_rows_loss_before": "loss on the first training rows, before",
    "rewards/accuracy": "reward accuracy",
    "rewards/margin": "reward margin",
    "rewards/chosen": "reward, chosen",
    "rewards/rejected": "reward, rejected",
    "sample_kl": "KL to the model before, k1, nats a text",
    "sample_kl_k3": "the same, k3",
    "invalid_steps": "share of steps invalid, in evaluation",
    "invalid_steps_in_training": "invalid steps, in training",
    "skipped_gradient_steps": "gradient steps skipped",
    "env_steps": "environment steps",
    "rows_seen": "rows seen",
    "train_seconds": "seconds of training",
    "compile_seconds": "seconds of compiling",
    "steps_per_second": "steps a second",
}

SHARES = {
    "invalid_steps": "environment steps that were not finite, in training",
    "eval_invalid_steps": "the same, in evaluation",
    "skipped_updates": "gradient steps skipped, as they were not finite",
}
_TOTALS = {"invalid_steps": "invalid_steps_in_training", "skipped_updates": "skipped_gradient_steps"}  # of result.json


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str) -> Markup:
    """A table in a box that scrolls sideways; the first cell of each row is its header."""
    top = el("thead", el("tr", [el("th", cell, scope="col") for cell in head]))
    body = [el("tr", el("th", first, scope="row"), [el("td", cell) for cell in rest]) for first, *rest in rows]
    whole = el("table", top, el("tbody", body), aria_label=caption)
    return join(el("p", caption, class_="note"), el("div", whole, class_="wide", tabindex=0))


def results(groups: Sequence[Group]) -> Markup:
    """Final figures: of each group its mean ± 95 % interval, then each run."""
    runs = [record for group in groups for record in group.records]
    several = [group for group in groups if len(group.records) > 1]
    head = ["", *[el("span", _short_name(g, groups), f", n = {len(_ended(g))}") for g in several]]
    head += [_run_name(record, groups) for record in runs]
    rows = [["outcome", *["" for _ in several], *[_word(record) for record in runs]]]
    for name in _figure_names(runs):
        means = [_interval([r.result[name] for r in _ended(g) if _is_number(r.result.get(name))]) for g in several]
        rows.append([FIGURES.get(name, name), *means, *[_figure(r, name) for r in runs]])
    caption = "Final figures"
    if several:
        caption += " (mean ± 95 % interval over the n seeds that finished, by Student's t; then each run)"
    return table(head, rows, caption)


def counts(groups: Sequence[Group]) -> Markup:
    """What was not as it should be, of each run: invalid steps, skipped updates, numbers that are not finite."""
    runs = [record for group in groups for record in group.records]
    rows = [[label, *[_share(r, metric) for r in runs]] for metric, label in SHARES.items() if _has(runs, metric)]
    lost = [not_finite(record.rows) for record in runs]
    empty = [max((found.pop(name, 0) for name in WITHOUT_EPISODES), default=0) for found in lost]
    rows.append(["logged numbers that are not finite", *map(_lost, runs, lost)])
    if _has(runs, WITHOUT_EPISODES[0]):
        told = [f"{count:,} of {len(r.rows):,}" for r, count in zip(runs, empty, strict=True)]
        rows.append(["rows during which no episode ended", *told])
    return table(["", *[_run_name(record, groups) for record in runs]], rows, "Counted in metrics.jsonl")


def settings(groups: Sequence[Group]) -> Markup | None:
    """The settings in which the groups differ."""
    names = differing([group.records[0] for group in groups])
    if not names:
        return None
    rows = [[name, *[_setting(group.records[0], name) for group in groups]] for name in names]
    return table(["setting", *[group.name.split(":")[0] for group in groups]], rows, "Settings that differ")


def number(value: Any) -> str:
    """Four digits, thousands apart; a dash for none."""
    if value is None or not _is_number(value):
        return "–" if value is None else str(value)
    if isinstance(value, int) or (abs(value) >= 1000 and math.isfinite(value)):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _has(runs: Sequence[Record], metric: str) -> bool:
    return any(metric in row for record in runs for row in record.rows)


def _share(record: Record, metric: str) -> str:
    found = share(record.rows, metric)
    if found is None:
        return "not logged"
    if not found.above:
        return f"0 of {found.rows:,} rows"
    count = (record.result or {}).get(_TOTALS.get(metric))
    total = f"{count:,}: " if _is_number(count) else ""
    return f"{total}{found.mean:.3%}, in {found.above:,} of {found.rows:,} rows"


def _lost(record: Record, lost: Counter[str]) -> str:
    names = f" ({', '.join(f'{name} {count}' for name, count in sorted(lost.items()))})" if lost else ""
    return f"{lost.total():,} of {sum(len(row) - 1 for row in record.rows):,}{names}"


def _figure_names(runs: Sequence[Record]) -> list[str]:
    found = dict.fromkeys(name for record in runs for name in _figures(record))
    return [*[name for name in FIGURES if name in found], *[name for name in found if name not in FIGURES]]


def _figures(record: Record) -> dict[str, Any]:
    """Those of result.json; of a run that did not finish, those of its last evaluation."""
    if outcome(record)[0] == "finished":
        return {n: x for n, x in record.result.items() if n not in ("run_dir", "num_compilations") and _is_number(x)}
    last = {n: x for row in record.rows for n, x in row.items() if n.startswith("eval_") and _is_number(x)}
    return {name.removeprefix("eval_"): value for name, value in last.items()}


def _figure(record: Record, name: str) -> str:
    so_far = "" if outcome(record)[0] == "finished" or name not in _figures(record) else " so far"
    return number(_figures(record).get(name)) + so_far


def _ended(group: Group) -> list[Record]:
    return [record for record in group.records if outcome(record)[0] == "finished"]


def _interval(values: Sequence[float]) -> str:
    if not values:
        return "–"
    found = interval(values)
    return number(found.mean) + ("" if found.half is None else f" ± {number(float(f'{found.half:.3g}'))}")


def _word(record: Record) -> Markup:
    word = outcome(record)[0]
    return el("span", word, class_="fine" if word == "finished" else "warn")


def _run_name(record: Record, groups: Sequence[Group]) -> Markup:
    own = next(group for group in groups if record in group.records)
    letter = f"{_short_name(own, groups)}, " if len(groups) > 1 else ""
    return join(f"{letter}seed {record.seed}")


def _short_name(group: Group, groups: Sequence[Group]) -> str:
    return group.name.split(":")[0] if len(groups) > 1 else "all seeds"


def _setting(record: Record, name: str) -> str:
    return str(record.config[name]) if name in record.config else "–"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
