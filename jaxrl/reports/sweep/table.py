"""The table of a sweep, read back: a row for each member and step."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.types import InputError

TABLE, PARTS = "table.csv", "parts"
WHOLE = ("member", "config", "seed", "step", "diverged")


class Table(NamedTuple):
    """Columns [R] by their names. The first five are whole numbers, others float64 where all their cells are numbers
    (NaN also where a cell is empty), bool where all are true or false, and else text. measured: the same names -> [R]
    whether the cell is not empty, which sets what was not finite apart from what was not measured."""

    columns: dict[str, np.ndarray]
    measured: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """How many rows."""
        return len(self.columns["member"])


def read_table(sweep_dir: str | Path) -> Table:
    """table.csv of a sweep that has ended; while it is under way, its parts/*.csv in the order of their names.

    A last line that was cut short is left out. Columns that a part does not have are empty there. Raises InputError for
    a column that is missing or there twice, for a row of another length, and for a cell that is no whole number where
    one has to be.
    """
    whole, parts = Path(sweep_dir) / TABLE, Path(sweep_dir) / PARTS
    paths = [whole] if whole.is_file() else sorted(parts.glob("*.csv"))
    names: dict[str, None] = dict.fromkeys(WHOLE)
    read = []
    for path in paths:
        rows = _rows(path)
        head = next(rows, None)
        if head is not None:
            _check(path, head)
            names |= dict.fromkeys(head)
            read.append((path, head, list(rows)))
    cells: dict[str, list[str]] = {name: [] for name in names}
    for path, head, rows in read:
        for number, row in enumerate(rows, 2):
            if len(row) != len(head):
                raise InputError(
                    f"line {number} of {path} has {len(row)} cells, and its header {len(head)}; delete that line"
                )
        own = dict(zip(head, zip(*rows, strict=True), strict=True)) if rows else {}
        for name, column in cells.items():
            column += own.get(name, [""] * len(rows))
    return Table(
        {name: _typed(name, column) for name, column in cells.items()},
        {name: np.array([cell != "" for cell in column], bool) for name, column in cells.items()},
    )


def _rows(path: Path) -> Iterator[list[str]]:
    text = path.read_bytes().rpartition(b"\n")[0].decode("utf-8")
    return csv.reader(io.StringIO(text, newline=""))


def _check(path: Path, head: Sequence[str]) -> None:
    missing = [name for name in WHOLE if name not in head]
    twice = [name for name in head if list(head).count(name) > 1]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it is no table of a sweep")
    if twice:
        raise InputError(f"{path} has two columns {twice[0]!r}; rename one of them")


def _typed(name: str, cells: list[str]) -> np.ndarray:
    if name in WHOLE:
        try:
            return np.array([int(cell) for cell in cells], np.int64)
        except ValueError:
            wrong = next(cell for cell in cells if not cell.lstrip("-").isdigit())
            raise InputError(f"{name} = {wrong!r} in the table of the sweep is no whole number") from None
    filled = set(cells) - {""}
    if filled and filled <= {"true", "false"}:
        return np.array([cell == "true" for cell in cells], bool)
    try:
        return np.array([float(cell or "nan") for cell in cells], np.float64)
    except ValueError:
        return np.array(cells, str)


def shown(value: Any, digits: int = 4) -> str:
    """A value of a swept field for people: whole numbers in full, of others a few digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
