"""The rows that a run has written."""

import json
import warnings
from pathlib import Path
from typing import Any

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


def read_metrics(path: Path, notes: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none if there is no file. A last line cut short by a crash is left out; so is a line
    that is no row, with a sentence in `notes`, or as a warning where there are none.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except ValueError:  # of which UnicodeDecodeError is one
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        elif line.endswith(b"\n"):
            sentence = f"line {number} of {path} cannot be read, and is left out"
            warnings.warn(sentence, stacklevel=2) if notes is None else notes.append(sentence)
    return rows
