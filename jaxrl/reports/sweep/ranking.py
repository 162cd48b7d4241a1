"""A sweep as its directory tells it: members, the configurations they are seeds of, and how those rank."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.reports.statistics import interquartile_mean, interval
from jaxrl.reports.sweep.table import Table, read_table, shown
from jaxrl.types import InputError

SWEEP = "sweep.json"


class Member(NamedTuple):
    """One agent. rows [R]: where it stands in the table, by step. steps, scores [P]: its evaluations; where it had
    diverged, the floor of the sweep. last: the step of its last row. values: of the swept fields, in that row."""

    number: int
    config: int
    seed: int
    rows: np.ndarray
    steps: np.ndarray
    scores: np.ndarray
    last: int
    diverged: bool
    values: dict[str, Any]


class Configuration(NamedTuple):
    """Members that differ by nothing but the seed. scores [n]: the last of each. reached: the share of training after
    which the least far of them was last evaluated; 0 while seeds are missing. low, high: of the 95 % interval of the
    interquartile mean; None where there are too few seeds for one."""

    index: int
    values: dict[str, Any]
    members: list[Member]
    scores: np.ndarray
    reached: float
    iqm: float
    low: float | None
    high: float | None

    @property
    def diverged(self) -> int:
        """How many of its members."""
        return sum(member.diverged for member in self.members)

    @property
    def name(self) -> str:
        """Its number and its settings."""
        told = ", ".join(f"{name} = {shown(value)}" for name, value in self.values.items())
        return f"config {self.index}" + f" ({told})" * bool(told)


class Sweep(NamedTuple):
    """about: sweep.json. yaml: config.yaml. ranked: configurations that were evaluated, best first. members: all that
    have rows. floor: the lowest score measured anywhere, which a member that diverged counts as; None before any."""

    sweep_dir: Path
    about: dict[str, Any]
    yaml: str
    table: Table
    members: list[Member]
    ranked: list[Configuration]
    floor: float | None

    @property
    def fields(self) -> list[str]:
        """Names of what is swept."""
        return [name for name in self.about.get("fields", {}) if name in self.table.columns]

    @property
    def method(self) -> str:
        """How it searches."""
        return str(self.about.get("method", "grid"))

    @property
    def noun(self) -> str:
        """What the configurations are called."""
        return "member" if self.method == "pbt" else "config"

    @property
    def unit(self) -> str:
        """What a step is."""
        return str(self.about.get("unit", {}).get("label", "steps"))

    @property
    def compared(self) -> list[Configuration]:
        """Those that were evaluated as far as the best; the best first."""
        return [c for c in self.ranked if c.reached == self.ranked[0].reached]

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.about.get("result") is not None


def read_sweep(sweep_dir: str | Path) -> Sweep:
    """Read a sweep, also one that is under way. Raises InputError where there is none, or it cannot be read."""
    sweep_dir = Path(sweep_dir)
    about = _about(sweep_dir / SWEEP)
    table = read_table(sweep_dir)
    if table.size and table.columns.get("score", np.array("")).dtype != np.float64:
        raise InputError(
            f"the table of {sweep_dir} has no column 'score' of numbers, which configurations are ranked by"
        )
    config = sweep_dir / "config.yaml"
    yaml = config.read_text(encoding="utf-8") if config.is_file() else ""
    floor = _floor(table) if table.size else None
    fields = [name for name in about.get("fields", {}) if name in table.columns]
    members = _members(table, fields, floor) if table.size else []
    return Sweep(sweep_dir, about, yaml, table, members, _ranked(members, about), floor)


def _about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path.parent} holds no sweep: there is no {SWEEP}; name a directory that `jaxrl sweep` made")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise InputError(f"{path} cannot be read: it is damaged; begin the sweep again in another directory")
    return about


def _floor(table: Table) -> float | None:
    fine = np.isfinite(table.columns["score"]) & (table.columns["diverged"] == 0)
    return float(table.columns["score"][fine].min()) if fine.any() else None


def _members(table: Table, fields: Sequence[str], floor: float | None) -> list[Member]:
    c = table.columns
    order = np.lexsort((c["step"], c["member"]))
    made = []
    for rows in np.split(order, np.flatnonzero(np.diff(c["member"][order])) + 1):
        scored = rows[table.measured["score"][rows]]
        fine = np.isfinite(c["score"][scored]) & (c["diverged"][scored] == 0)
        scores = np.where(fine, c["score"][scored], math.nan if floor is None else floor)
        end = rows[-1]
        diverged = bool(c["diverged"][end]) or (len(scored) > 0 and not np.isfinite(c["score"][scored[-1]]))
        if diverged and len(scores):
            scores[-1] = math.nan if floor is None else floor
        values = {name: c[name][end].item() for name in fields}
        about = (int(c[name][end]) for name in ("member", "config", "seed"))
        made.append(Member(*about, rows, c["step"][scored], scores, int(c["step"][end]), diverged, values))
    return made


def _ranked(members: Sequence[Member], about: dict[str, Any]) -> list[Configuration]:
    """Those that were evaluated further first, then by the interquartile mean of the last scores; where that is the
    same, by how many diverged and by the mean."""
    found: dict[int, list[Member]] = {}
    for member in members:
        if len(member.scores) and np.isfinite(member.scores[-1]):
            found.setdefault(member.config, []).append(member)
    made = [_configuration(index, own, about) for index, own in found.items()]
    return sorted(made, key=lambda c: (-c.reached, -c.iqm, c.diverged, -c.scores.mean(), c.index))


def _configuration(index: int, members: list[Member], about: dict[str, Any]) -> Configuration:
    scores = np.array([member.scores[-1] for member in members])
    values = members[0].values
    total = float(values.get("total_steps", about.get("total_steps", 0)) or max(m.last for m in members) or 1)
    alive = [member for member in members if not member.diverged] or members
    missing = len(members) < int(about.get("num_seeds", 1))
    reached = 0.0 if missing else min(1.0, min(int(member.steps[-1]) for member in alive) / total)
    _, low, high = interval(scores, statistic=interquartile_mean, confidence=0.95)
    return Configuration(index, values, members, scores, reached, float(interquartile_mean(scores)), low, high)
