"""The rows that a run has written."""

import json
from pathlib import Path
from typing import Any

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file; none if there is no file. A last line cut short by a crash is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
