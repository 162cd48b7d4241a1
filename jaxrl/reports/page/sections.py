"""The sections of a report, from the header to the command that makes the runs again."""

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from jaxrl.reports.page import tables
from jaxrl.reports.page.collected import Group, Record, outcome
from jaxrl.reports.page.commands import resumed, typed
from jaxrl.reports.page.figures import charts, other_charts
from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.reliability import diagrams

MOST_BYTES = 8 * 2**20  # of an animation that is put into the page
_COPIES = ("env.num_envs", "env.eval_episodes", "env.resets")  # which leave an episode what it is
PACKAGES = ("jaxrl", "python", "jax", "jaxlib", "flax", "optax", "brax", "gymnax")


def title(groups: Sequence[Group]) -> str:
    """What was learned, on what."""
    told = dict.fromkeys(f"{r.algorithm.upper()} on {r.subject}" for group in groups for r in group.records)
    return " · ".join([*list(told)[:3], *["…"] * (len(told) > 3)])


def body(groups: Sequence[Group]) -> Markup:
    """All of the page's <body>."""
    parts = [
        ("Results", results(groups)),
        ("Animation", animations(groups)),
        ("Curves", curves(groups)),
        ("Reliability", diagrams(groups)),
        ("What it says", samples(groups)),
        ("Bad numbers", damage(groups)),
        ("Settings", settings(groups)),
        ("Run it again", again(groups)),
    ]
    return whole(title(groups), facts(groups), parts)


def whole(heading: str, about: Markup, parts: Sequence[tuple[str, Markup | None]]) -> Markup:
    """A <body>: what it is about, links to its sections by name, and those that have something."""
    shown = [(name, part) for name, part in parts if part]
    links = el("nav", [el("a", name, href=f"#{_id(name)}") for name, _ in shown], aria_label="Sections")
    made = [el("section", el("h2", name, id=_id(name)), part, aria_labelledby=_id(name)) for name, part in shown]
    return join(el("header", el("h1", heading), about, links), el("main", made))


def facts(groups: Sequence[Group]) -> Markup:
    """What it is, where and when it ran, and how it ended."""
    runs = [record for group in groups for record in group.records]
    ends = [outcome(record)[0] for record in runs]
    told = ", ".join(f"{ends.count(word)} {word}" for word in dict.fromkeys(ends)) if len(runs) > 1 else ends[0]
    one = f"{told}: {outcome(runs[0])[1]}" if len(runs) == 1 else told
    about = {
        "algorithm": _each(r.algorithm.upper() for r in runs),
        "environment" if runs[0].control else "model": _each(r.subject for r in runs),
        "runs": f"{len(runs)}" + (f", in {len(groups)} groups" if len(groups) > 1 else ""),
        "seeds": _each(r.seed for r in runs),
        "outcome": el("span", one, class_="fine" if set(ends) == {"finished"} else "warn"),
        "begun": _each(r.about.get("begun", "not told") for r in runs),
        "machine": _each(machine(r.about) for r in runs),
        "versions": _each(", ".join(f"{p} {v}" for p in PACKAGES if (v := _version(r, p))) for r in runs),
        "git": _each(r.about.get("git") or "not known" for r in runs),
    }
    return described(about)


def described(about: Mapping[str, Any]) -> Markup:
    """A <dl> of names and what stands beside them."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in about.items()])


def results(groups: Sequence[Group]) -> Markup:
    """The table of final figures; a sentence for each run that did not finish, or went back to an earlier step."""
    runs = [record for group in groups for record in group.records]
    apart = [el("li", el("b", group.name)) for group in groups] if len(groups) > 1 else []
    ends = [el("p", f"{r.run_dir.name}: {outcome(r)[1]}", class_="warn") for r in runs if outcome(r)[0] != "finished"]
    back = [(r, r.about["went_back"]) for r in runs if isinstance(r.about.get("went_back"), dict)]
    ends += [
        el("p", f"{r.run_dir.name} went back, once, to step {b.get('to')}: {b.get('why')}", class_="warn")
        for r, b in back
    ]
    return join(el("ul", apart) if apart else "", ends, tables.results(groups))


def animations(groups: Sequence[Group]) -> Markup | None:
    """The first animation of each group."""
    found = [next((r for r in group.records if r.films), None) for group in groups]
    drawn = [_animation(record) for record in found if record is not None]
    return el("div", drawn, class_="films") if drawn else None


def _animation(record: Record) -> Markup:
    caption = f"{record.run_dir.name}, seed {record.seed}"
    film = next((film for film in record.films if film.stat().st_size <= MOST_BYTES), None)
    if film is None:
        megabytes = record.films[0].stat().st_size / 2**20
        return el("p", f"{record.films[0]} is too large to be put into this page ({megabytes:.0f} MiB).")
    if film.suffix == ".html":
        page = film.read_text(encoding="utf-8")
        shown = el("iframe", srcdoc=page, sandbox="allow-scripts", title=f"Animation of {caption}")
    else:
        data = base64.b64encode(film.read_bytes()).decode()
        shown = el("img", src=f"data:image/gif;base64,{data}", alt=f"Animation of {caption}")
    return el("figure", shown, el("figcaption", caption))


def curves(groups: Sequence[Group]) -> Markup:
    """All metrics over steps."""
    runs = [record for group in groups for record in group.records]
    if not any(record.rows for record in runs):
        return el("p", "No metrics have been logged: the run ended before its first row, or its metrics.jsonl is gone.")
    levels = _levels(runs)
    told = ""
    if any(len(group.records) > 1 for group in groups):
        told = "Thick: the mean over seeds. Band: from the least to the greatest seed. Thin: each seed."
    if len(groups) > 1:
        told += " Letters are the groups under Results."
    others = other_charts(groups)
    fold = el("details", el("summary", f"Other metrics ({len(others)})"), el("div", others, class_="charts"))
    return join(el("p", told.strip()) if told else "", charts(groups, levels), fold if others else "")


def samples(groups: Sequence[Group]) -> Markup | None:
    """What language models said at their first and their last evaluation, prompt by prompt."""
    runs = [record for group in groups for record in group.records if record.samples]
    return join([_said(record, open_=i == 0) for i, record in enumerate(runs)]) if runs else None


def _said(record: Record, open_: bool) -> Markup:
    first, last = record.samples[0], record.samples[-1]
    pairs = []
    for one, other in zip_longest(first.get("samples") or [], last.get("samples") or [], fillvalue={}):
        before = el("div", el("h4", f"step {first['step']:,}"), el("p", one.get("completion", "")))
        after = el("div", el("h4", f"step {last['step']:,}"), el("p", other.get("completion", "")))
        prompt = el("p", one.get("prompt", other.get("prompt", "")), class_="prompt")
        pairs.append(el("article", prompt, el("div", before, after, class_="pair")))
    summary = el("summary", f"{record.run_dir.name}, seed {record.seed}: before and after")
    return el("details", summary, pairs, open="" if open_ else None)


def damage(groups: Sequence[Group]) -> Markup:
    """Counts of what was not finite, and what of the files could not be read."""
    notes = [el("li", note) for group in groups for record in group.records for note in record.notes]
    return join(tables.counts(groups), el("ul", notes, class_="warn") if notes else "")


def settings(groups: Sequence[Group]) -> Markup:
    """The config of each group, and what sets them apart."""
    made = [
        el(
            "details",
            el("summary", f"config.yaml{f' of {group.name}' if len(groups) > 1 else ''}"),
            pre(group.records[0].yaml),
        )
        for group in groups
    ]
    apart = tables.settings(groups) if len(groups) > 1 else None
    return join(apart or "", made)


def again(groups: Sequence[Group]) -> Markup:
    """The commands that make these runs again and go on with them."""
    made = []
    for record in [record for group in groups for record in group.records]:
        command, given = typed(record.about), record.about.get("given") or {}
        own = [name for name in given if record.control or name not in _made_by_itself(record)]
        parts = [typed_out(command) if command else el("p", "What began this run is not known.")]
        parts += _changed(record.about.get("changes") or [])
        if own:
            parts.append(el("p", f"It was also given, in Python: {', '.join(own)}. The command alone does not say so."))
        if str(record.about.get("git")).endswith("-dirty"):
            parts.append(el("p", "Its checkout had changes that were not committed."))
        going_on = [el("p", "To go on with it:"), typed_out(resumed(record.run_dir))]
        made.append(el("article", el("h3", f"{record.run_dir.name}, seed {record.seed}"), parts, going_on))
    return made[0] if len(made) == 1 else join(made[0], el("details", el("summary", "The other runs"), made[1:]))


def _made_by_itself(record: Record) -> set[str]:
    """What of the things that a run from rows was given its command makes again."""
    named = {"reward"} & set(record.about.get("finetune") or {})
    return {"network", "params", "data", "samples", "tokenizer"} | named


def _changed(changes: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """What was changed midway, each time, and the commands that did so: what began the run says none of it."""
    parts = []
    for i, change in enumerate(changes):
        what = "; ".join(change.get("changes", []))
        parts.append(el("p", f"It was then gone on with as something else: {what} (config-{i + 1}.yaml is it before)."))
        command = typed(change, whole=True)
        parts += [typed_out(command)] if command else []
    return parts


def pre(text: str) -> Markup:
    """Text as it is."""
    return el("pre", el("code", text), tabindex=0)


def typed_out(command: str) -> Markup:
    """A command, which wraps between its words alone: --seed may not become - and -seed."""
    words = [join(" " * bool(i), el("span", word)) for i, word in enumerate(command.split(" "))]
    return el("pre", el("code", words), class_="typed")


def _levels(runs: Sequence[Record]) -> dict[str, float]:
    """What the zero and random actions return, over runs in one and the same environment; else nothing."""
    apart = {json.dumps({n: x for n, x in r.config.items() if n.startswith("env.") and n not in _COPIES}) for r in runs}
    names = {"zero action": "zero_action_return", "random actions": "random_return"} if len(apart) == 1 else {}
    found = {label: [(r.result or {}).get(name) for r in runs] for label, name in names.items()}
    known = {label: [x for x in values if isinstance(x, int | float)] for label, values in found.items()}
    return {label: sum(values) / len(values) for label, values in known.items() if values}


def machine(a: Mapping[str, Any]) -> str:
    """Of a run.json or sweep.json: devices and processor."""
    count = a.get("cores")
    cores = f", {count} core{'s' * (count != 1)}" if a.get("platform") == "cpu" else ""
    return f"{a.get('devices', '?')} × {a.get('device', '?')} ({a.get('model', a.get('processor', '?'))}{cores})"


def _version(record: Record, package: str) -> Any:
    return record.about.get(package, record.header.get(package))


def _each(values: Any) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values))


def _id(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "-")
