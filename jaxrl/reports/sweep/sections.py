"""The sections of a sweep's page."""

from jaxrl.reports.page.commands import resumed, typed
from jaxrl.reports.page.markup import Markup, el, join
from jaxrl.reports.page.sections import PACKAGES, described, machine, pre, typed_out, whole
from jaxrl.reports.page.tables import number, table
from jaxrl.reports.statistics import FEWEST_RUNS, probability_of_improvement
from jaxrl.reports.sweep.charts import LINES, TOP, curves, schedules, sensitivity
from jaxrl.reports.sweep.heat import MOST_FIELDS, heat_maps
from jaxrl.reports.sweep.marginals import Level, axis, level
from jaxrl.reports.sweep.ranking import Configuration, Sweep
from jaxrl.reports.sweep.table import shown
from jaxrl.reports.sweep.verdict import sentences

_ROWS = 20  # of the table that are seen without opening the rest
_NAMED = 30  # configurations in one cell


def title(sweep: Sweep) -> str:
    """What was swept, on what."""
    return f"Sweep of {str(sweep.about.get('algorithm', '?')).upper()} on {sweep.about.get('subject', '?')}"


def body(sweep: Sweep) -> Markup:
    """All of the page's <body>."""
    at = level(sweep) if sweep.ranked else None
    pbt = sweep.method == "pbt"
    parts = [
        ("What it says", says(sweep)),
        ("Ranking", ranking(sweep)),
        ("Schedules of the population", population(sweep) if pbt and at else None),
        ("Who was dropped", dropped(sweep) if sweep.method == "halving" and at else None),
        ("Sensitivity", sensitivities(sweep, at) if at else None),
        ("Pairs of settings", pairs(sweep, at) if at else None),
        ("Curves", shown_curves(sweep) if at else None),
        ("Settings", settings(sweep)),
        ("Run it again", again(sweep)),
    ]
    return whole(title(sweep), facts(sweep), parts)


def facts(sweep: Sweep) -> Markup:
    """What it is, where and when it ran, and how it ended."""
    a = sweep.about
    seeds = a.get("seeds", [])
    return described(
        {
            "algorithm": str(a.get("algorithm", "?")).upper(),
            "environment or model": a.get("subject", "?"),
            "swept": "; ".join(f"{name} {spec}" for name, spec in a.get("fields", {}).items()) or "nothing but seeds",
            "method": sweep.method,
            "members": f"{a.get('num_members', '?')}: {a.get('num_configs', '?')} configurations × {len(seeds)} seed"
            + "s" * (len(seeds) != 1),
            "seeds": _seeds(seeds) + ", and on: one for each member" * (sweep.method == "pbt"),
            "steps of each": _steps(sweep),
            "outcome": outcome(sweep),
            "begun": a.get("begun", "not told"),
            "machine": machine(a),
            "versions": ", ".join(f"{p} {a[p]}" for p in PACKAGES if a.get(p)),
            "git": a.get("git") or "not known",
        }
    )


def outcome(sweep: Sweep) -> Markup:
    """Ended or under way, and how many diverged."""
    lost = sum(member.diverged for member in sweep.members)
    seconds = (sweep.about.get("result") or {}).get("train_seconds")
    took = f", {number(seconds)} s of training" if seconds is not None else ""
    if sweep.ended:
        told = f"ended{took}"
    else:
        count = f"{len(sweep.members)} of {sweep.about.get('num_members', '?')} members"
        told = f"under way, or was ended: {count} have rows"
    diverged = f"; {lost} member{'s' * (lost != 1)} diverged" if lost else "; none diverged" if sweep.members else ""
    return el("span", told + diverged, class_="fine" if sweep.ended and not lost else "warn")


def says(sweep: Sweep) -> Markup:
    """The verdict."""
    first, *others = sentences(sweep)
    return join(
        el("p", first[:1].upper() + first[1:], class_="verdict"), [el("p", other, class_="note") for other in others]
    )


def ranking(sweep: Sweep) -> Markup | None:
    """The table of configurations, best first."""
    if not sweep.ranked:
        return None
    several = len(sweep.about.get("seeds", [])) > 1
    head = [sweep.noun]
    head += ["IQM", "95 % interval", "worst seed", "best above it"] if several else ["score"]
    head += ["diverged", *sweep.fields]
    alike = len({c.reached for c in sweep.ranked}) == 1 and sweep.ended
    head += [] if alike else ["evaluated after"]
    rows = [_row(sweep, c, several, alike) for c in sweep.ranked]
    told = "Best first, by the last score, not by the best on the way"
    told += ", those that were evaluated further first" if not alike else ""
    if several:
        told += (
            "; IQM: its interquartile mean over seeds; best above it: how probably a seed of the best scores higher, "
            "with its 95 % interval"
        )
    parts = [table(head, rows[:_ROWS], told)]
    if len(rows) > _ROWS:
        rest = table(head, rows[_ROWS:], "")
        parts.append(el("details", el("summary", f"The other {len(rows) - _ROWS} configurations"), rest))
    return el("div", parts, class_="ranked")


def _row(sweep: Sweep, c: Configuration, several: bool, alike: bool) -> list:
    cells = [c.index, number(c.iqm)]
    if several:
        best = sweep.ranked[0]
        cells.append("–" if c.low is None else f"{number(c.low)} to {number(c.high)}")
        cells.append(number(float(c.scores.min())))
        cells.append(_wins(best, c) if c is not best and c.reached == best.reached else "–")
    cells.append(el("span", f"{c.diverged} of {len(c.members)}", class_="warn") if c.diverged else "0")
    cells += [shown(c.values[name]) for name in sweep.fields]
    if not alike:
        missing = int(sweep.about.get("num_seeds", 1)) - len(c.members)
        steps = min(int(member.steps[-1]) for member in c.members)
        cells.append(f"{steps:,}" + (f", {missing} seed{'s' * (missing != 1)} missing" if missing > 0 else ""))
    return cells


def _wins(best: Configuration, other: Configuration) -> str:
    found = probability_of_improvement(best.scores, other.scores)
    between = "" if found.low is None else f" ({found.low:.0%} to {found.high:.0%})"
    return f"{found.value:.0%}{between}"


def population(sweep: Sweep) -> Markup:
    """What became of each swept field."""
    told = (
        "A line for each member, stepping where it copied a better one or was perturbed; in five shades by its rank at "
        "the end, the best standing out most from the page."
    )
    charts = [schedules(sweep, field) for field in sweep.fields]
    return join(el("p", told, class_="note"), el("div", charts, class_="charts"))


def dropped(sweep: Sweep) -> Markup:
    """Who went how far."""
    ends: dict[int, list[int]] = {}
    for c in sweep.ranked:
        ends.setdefault(max(member.last for member in c.members), []).append(c.index)
    left, rows = len(sweep.ranked), []
    for step in sorted(ends):
        going = left - len(ends[step])
        last = step == max(ends)
        rows.append([f"{step:,}", left, *([0, left] if last else [len(ends[step]), going]), _named(ends[step])])
        left = going
    head = ["step", "there", "dropped", "went on", "configs that got no further"]
    told = "Successive halving: a dropped configuration is ranked after all that went further, whatever it scored."
    return el("div", table(head, rows, told), class_="ranked")


def sensitivities(sweep: Sweep, at: Level) -> Markup | None:
    """A chart for each field that has several values."""
    fields = [field for field in sweep.fields if len(axis(sweep, field, at.configurations).labels) > 1]
    if not fields or len(at.configurations) < 2:
        return None
    told = (
        f"A dot is a configuration: the {at.told}, interquartile mean over its seeds. Line and band: median and "
        "quartiles of the dots at each value, whatever the other settings are; of values drawn from a range, "
        "in bins of equal width."
    )
    if sweep.method == "pbt":
        told += " The values are those at the end; the score was earned with all that came before them."
    return join(el("p", told, class_="note"), el("div", [sensitivity(sweep, f, at) for f in fields], class_="charts"))


def pairs(sweep: Sweep, at: Level) -> Markup | None:
    """Heat maps."""
    maps = heat_maps(sweep, at)
    if not maps:
        return None
    told = f"Median {at.told} of the configurations in a cell; an empty cell has none."
    if len(sweep.fields) > MOST_FIELDS:
        told += f" Of the {len(sweep.fields)} fields, the {MOST_FIELDS} whose medians lie furthest apart."
    return join(el("p", told, class_="note"), maps)


def shown_curves(sweep: Sweep) -> Markup:
    """Scores and returns over steps."""
    count = min(len(sweep.ranked), TOP)
    seeds = len(sweep.ranked[0].members)
    band = "its 95 % interval at each step" if seeds >= FEWEST_RUNS else "a band from the lowest to the highest"
    line = "one seed each" if seeds == 1 else f"the interquartile mean over seeds, with {band}"
    told = f"In colour the {count} best: {line}."
    more = len(sweep.ranked) - TOP
    if more > 0:
        told += (
            " Grey: the others."
            if more <= LINES - TOP
            else f" Grey: {LINES - TOP} of the other {more}, across the ranks."
        )
    return join(el("p", told, class_="note"), el("div", curves(sweep), class_="charts"))


def settings(sweep: Sweep) -> Markup | None:
    """What all configurations have in common."""
    return el("details", el("summary", "config.yaml"), pre(sweep.yaml)) if sweep.yaml else None


def again(sweep: Sweep) -> Markup:
    """The command that makes the sweep again, and the one that goes on with it."""
    command = typed(sweep.about)
    parts = [typed_out(command) if command else el("p", "What began this sweep is not known.")]
    if str(sweep.about.get("git")).endswith("-dirty"):
        parts.append(el("p", "Its checkout had changes that were not committed."))
    if not sweep.ended:
        parts += [el("p", "To go on with it:"), typed_out(resumed(sweep.sweep_dir))]
    return join(parts)


def _seeds(seeds: list) -> str:
    run = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]} to {seeds[-1]}" if run else ", ".join(map(str, seeds))


def _steps(sweep: Sweep) -> str:
    own = {c.values["total_steps"] for c in sweep.ranked if "total_steps" in c.values}
    low, high = (min(own), max(own)) if own else (sweep.about.get("total_steps", 0),) * 2
    return f"{low:,} {sweep.unit}" if low == high else f"{low:,} to {high:,} {sweep.unit}"


def _named(indices: list[int]) -> str:
    more = len(indices) - _NAMED
    return ", ".join(map(str, sorted(indices)[:_NAMED])) + (f" and {more} more" if more > 0 else "")
