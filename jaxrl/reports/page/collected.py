"""What the files of a run say, read once, and runs of one config put together."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.config_file import read_sections
from jaxrl.reports.rows import METRICS, TIMING, read_metrics

SAMPLES, HELD_OUT = "samples.jsonl", "held_out.jsonl"
_FIRST = ("algorithm", "env.name", "lm.name")  # of settings that set runs apart


class Record(NamedTuple):
    """One run. config: its settings by their dotted names; yaml: the file. about, header, result: run.json,
    header.json ({} without one) and result.json (None without one). rows, timing, samples, held_out: of the .jsonl
    files. notes: what could not be read. films: what `jaxrl render` has made, the GIF first."""

    run_dir: Path
    algorithm: str
    config: dict[str, Any]
    yaml: str
    about: dict[str, Any]
    header: dict[str, Any]
    result: dict[str, Any] | None
    rows: list[dict[str, Any]]
    timing: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    notes: list[str]
    films: list[Path]

    @property
    def control(self) -> bool:
        """Whether it learned by acting."""
        return "env.name" in self.config

    @property
    def subject(self) -> str:
        """The environment or the model."""
        return str(self.config.get("env.name", self.config.get("lm.name", "")))

    @property
    def seed(self) -> Any:
        """Of everything."""
        return self.about.get("seed")


class Group(NamedTuple):
    """Runs that differ by nothing but the seed. name: what sets them apart from the other groups."""

    name: str
    records: list[Record]


def collect(run_dir: Path, about: dict[str, Any]) -> Record:
    """Read the directory of a run, of whatever algorithm; what is damaged is left out, and `notes` says so.

    about: run.json. Raises InputError for a config.yaml that cannot be read.
    """
    notes: list[str] = []
    rows, timing, samples, held_out = (read_metrics(run_dir / f, notes) for f in (METRICS, TIMING, SAMPLES, HELD_OUT))
    result, header = (_json(run_dir / name, notes) for name in ("result.json", "header.json"))
    films = [path for path in (run_dir / "animation.gif", run_dir / "animation.html") if path.is_file()]
    sections = read_sections(run_dir / "config.yaml")
    yaml = (run_dir / "config.yaml").read_text(encoding="utf-8")
    own = sections.pop("algorithm")
    algorithm = str(own.pop("name", "unnamed"))
    flat = {"algorithm": algorithm, **_flat({**own, **sections})}
    return Record(
        run_dir, algorithm, flat, yaml, about, header or {}, result, rows, timing, samples, held_out, notes, films
    )


def groups(records: Sequence[Record]) -> list[Group]:
    """Runs of one config, given the same things, together; in the order in which they were named, by seed within. A
    seed that is there again is no further seed: it goes into another group.
    """
    found: dict[tuple[str, int], list[Record]] = {}
    times: Counter[tuple[str, str]] = Counter()
    for record in records:
        config = json.dumps([record.config, record.about.get("given")], sort_keys=True)
        found.setdefault((config, times[config, str(record.seed)]), []).append(record)
        times[config, str(record.seed)] += 1
    apart = differing([same[0] for same in found.values()])
    again = Counter(config for config, _ in found)
    return [
        Group(_name(same, apart, i, again[config] > 1), sorted(same, key=lambda r: (str(type(r.seed)), r.seed)))
        for i, ((config, _), same) in enumerate(found.items())
    ]


def differing(records: Sequence[Record]) -> list[str]:
    """The settings in which some of these differ."""
    names = dict.fromkeys([*_FIRST, *(name for record in records for name in record.config)])
    return [name for name in names if len({str(record.config.get(name)) for record in records}) > 1]


def outcome(record: Record) -> tuple[str, str]:
    """How it ended, in a word (finished, diverged, stopped, unfinished) and in a sentence."""
    last = max((row["step"] for row in record.rows), default=0)
    total = record.config.get("total_steps")
    reached = f"{last:,}" + (f" of {total:,}" if total else "") + (" environment steps" if record.control else " rows")
    if record.result is not None and "diverged" in record.result:
        return "diverged", str(record.result["diverged"])
    if record.result is not None and "stopped" in record.result:
        return "stopped", str(record.result["stopped"])
    if record.result is not None:
        return "finished", reached
    if (record.run_dir / "partial.npz").is_file():
        return "stopped", f"asked to stop, and saved, after {reached}; it can be gone on with"
    return (
        "unfinished",
        f"there is no result.json: it is still under way, or was ended, after {reached} that are logged",
    )


def _name(records: Sequence[Record], apart: Sequence[str], number: int, again: bool) -> str:
    config = records[0].config
    told = [f"{name} = {config[name]}" for name in apart[:3] if name in config]
    if again:  # nothing but where they lie sets them apart
        told += [str(record.run_dir) for record in records[:3]] + ["…"] * (len(records) > 3)
    letter = chr(ord("A") + number % 26) + str(number // 26 or "")
    return f"{letter}: {', '.join(told)}" if told else letter


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for name, value in config.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return found


def _json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        notes.append(f"{path} cannot be read: it is empty or damaged, and is left out here")
        return None
    return found
