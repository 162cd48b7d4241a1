"""The table of a sweep: a row per member and step, written as it goes, a part a batch, and joined at the end; and which
columns it will have.
"""

import contextlib
import csv
import io
import math
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.reports.sweep.table import PARTS, TABLE, WHOLE
from jaxrl.runs.logs.tensorboard import Events
from jaxrl.sweeps.space import shown
from jaxrl.types import InputError, Program

PARQUET, EVENTS = "table.parquet", "tensorboard"
_OF_MEMBER = ("member", "config", "seed", "step")


class Evaluated(NamedTuple):
    """names: of the columns that evaluations fill. score: the one that is the score, or "-" and the one that is it with
    the other sign; None where no column is."""

    names: list[str]
    score: str | None


def evaluated(p: Program, asked: str | None = None) -> Evaluated:
    """By reading an evaluation that measured nothing but made-up numbers. asked: the score, where it is not to be the
    evaluators' own. Raises InputError where no column is called that. Nothing is compiled."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = jax.eval_shape(p.init, key).learner
    rng, names, score = np.random.default_rng(0), [], None

    def made_up(x: Any) -> np.ndarray:
        return np.asarray(rng.uniform(1, 2, x.shape)).astype(x.dtype)

    for e in p.evaluators:
        shapes = jax.eval_shape(e.measure, key, learner, jnp.int32(0))
        found = e.read(e.cases[0], jax.tree.map(made_up, shapes))
        names += [f"{e.prefix}{name}" for name in found]
        if e.score is not None and score is None:
            told = e.score(found)
            signs = {sign + e.prefix + name: x for name, x in found.items() for sign, x in (("", x), ("-", -x))}
            score = next((name for name, x in signs.items() if x == told), None)
    if asked is not None and asked.removeprefix("-") not in names:
        there = ", ".join(names) or "none"
        raise InputError(
            f"score = {asked!r} is no figure of an evaluation; there are {there}, with - where less is better"
        )
    return Evaluated(names, asked or score)


class Part:
    """The rows of one batch, in parts/NUMBER.csv."""

    def __init__(self, sweep_dir: Path, number: int, columns: Sequence[str], last: int):
        """last: the step after which rows of an earlier session are cut, to be written again; -1 for all."""
        self.path = sweep_dir / PARTS / f"{number:04d}.csv"
        self._columns = list(columns)
        kept = [row for row in read(self.path) if int(row["step"]) <= last] if last >= 0 else []
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", newline="") as file:
            writer = _writer(file, self._columns)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(draft, self.path)
        self._file = self.path.open("a", newline="")
        self._write = _writer(self._file, self._columns)

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows. A number is written with all its digits, and what is missing left empty."""
        for row in rows:
            self._write.writerow({name: "" if value is None else shown(value) for name, value in row.items()})

    def flush(self) -> None:
        """Until they are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more rows."""
        self._file.close()


def _writer(file: Any, columns: list[str]) -> csv.DictWriter:
    return csv.DictWriter(file, columns, restval="", lineterminator="\n")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a .csv file, as text; a last line that was cut short is left out, and none if there is no file."""
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0].decode()
    return list(csv.DictReader(io.StringIO(whole)))


def write_events(sweep_dir: Path, number: int, fields: Sequence[str]) -> None:
    """The curve of each member of a part as a file of TensorBoard, in tensorboard/NAME, such as "0037
    learning_rate=0.001 seed=5". A field that changes while a member learns is a curve itself."""
    by_member: dict[str, list[dict[str, str]]] = {}
    for row in read(sweep_dir / PARTS / f"{number:04d}.csv"):
        by_member.setdefault(row["member"], []).append(row)
    for member, rows in by_member.items():
        fixed = [name for name in fields if len({row[name] for row in rows}) == 1]
        told = [f"{int(member):04d}", *[f"{name}={rows[0][name]}" for name in fixed], f"seed={rows[0]['seed']}"]
        directory = sweep_dir / EVENTS / re.sub(r"[^\w.,=+ -]", "_", " ".join(told))[:200]
        shutil.rmtree(directory, ignore_errors=True)  # of a session that was killed before the part was done with
        directory.mkdir(parents=True)
        with contextlib.closing(Events(directory, 0)) as events:
            for row in rows:
                events.row(int(row["step"]), _curves(row, {*_OF_MEMBER, *fixed}))


def _curves(row: Mapping[str, str], but: Collection[str]) -> dict[str, float]:
    values = {name: float(cell) for name, cell in row.items() if cell and name not in but}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def join(sweep_dir: Path) -> Path:
    """All parts as table.csv, in order, and the same as table.parquet. Returns the first."""
    paths = sorted((sweep_dir / PARTS).glob("*.csv"))
    columns: dict[str, None] = {}
    for path in paths:
        with path.open(newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file)))
    tail = [name for name in ("score", "diverged") if name in columns]  # whatever a later part brings stands before
    names = [*[name for name in columns if name not in tail], *tail]
    draft = sweep_dir / f"{TABLE}.tmp"
    with draft.open("w", newline="") as file:
        writer = _writer(file, names)
        writer.writeheader()
        for path in paths:
            writer.writerows(read(path))
    os.replace(draft, sweep_dir / TABLE)
    _parquet(sweep_dir)
    return sweep_dir / TABLE


def _parquet(sweep_dir: Path) -> None:
    """Numbers as numbers: whole ones, and float64 where a cell is empty or has a point; all else as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = read(sweep_dir / TABLE)
    names = list(rows[0]) if rows else []
    columns = {name: _typed([row[name] for row in rows], name in WHOLE) for name in names}
    draft = sweep_dir / f"{PARQUET}.tmp"
    pq.write_table(pa.table(columns), draft)
    os.replace(draft, sweep_dir / PARQUET)


def _typed(cells: list[str], whole: bool) -> list[Any]:
    if whole:
        return [int(cell) for cell in cells]
    if set(cells) <= {"true", "false"}:
        return [cell == "true" for cell in cells]
    try:
        return [float(cell) if cell else None for cell in cells]
    except ValueError:
        return [cell or None for cell in cells]
