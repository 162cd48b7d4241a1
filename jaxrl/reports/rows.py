"""The rows that a run has written."""

import json
from pathlib import Path
from typing import Any

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none if there is no file. A last line cut short by a crash is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_whole_rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The rows of a .jsonl file that can be read; a line in `notes` for each that cannot, with its number."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.is_file() else [], 1):
        try:
            row = json.loads(line)
        except ValueError:  # UnicodeDecodeError is one
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            notes.append(f"{path}, line {number}, cannot be read, and is left out here")
    return rows
