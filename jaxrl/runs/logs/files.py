"""What a run writes while it goes: rows to metrics.jsonl and timing.jsonl, TensorBoard and, if asked for, Weights &
Biases; at its end metrics.csv. Everywhere x is `step`: environment steps, or rows of data, since the run began.

metrics.jsonl holds only what the seed determines, so that two runs can be compared byte by byte; wall-clock numbers
go to timing.jsonl, row for row. A row is one JSON object on a line. Beside `step` it holds means over everything since
the row before, of what the algorithm tells, and eval_* where the run was evaluated just then. null is a number that is
not finite, or of which there was nothing to count (no episode ended). Columns of metrics.jsonl:

episode_return, episode_length: of the episodes that ended, sampled actions; in rewards, in steps of the agent
invalid_steps: share of environment steps that gave numbers which are not finite
policy_loss, value_loss, entropy (nats), explained_variance, approx_kl (nats), clip_fraction: of control's updates
gradient_steps: taken per update (PPO with target_kl takes fewer)
grad_norm: global norm before clipping; learning_rate; skipped_updates: share of gradient steps not taken, because the
    gradient was not finite
loss, preference_loss, nll: nats; accuracy: share of tokens predicted; perplexity
rewards/chosen, rewards/rejected, rewards/margin, rewards/accuracy: implicit rewards, in units of beta times nats
logps/*: summed log-probabilities, nats; length/*: tokens
desirable: share of rows with a thumb up; z0, z0_raw: KTO's reference point, nats, and as it is before it is clamped

Columns of timing.jsonl: train_seconds, since the run began, over all its sessions, without evaluating and compiling;
steps_per_second, over the row; num_compilations, by XLA in this session.
"""

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxrl.reports.rows import METRICS, TIMING, read_metrics
from jaxrl.runs.logs.tensorboard import Events

CSV = "metrics.csv"


class Logger:
    """Appends rows to the files of a run directory, each flushed as it is written.

    `last_step`: rows after this step are cut: a resumed run writes them again. more: others who are told each row.
    """

    def __init__(self, run_dir: Path, last_step: int = 0, more: Sequence[Callable[[int, dict[str, float]], None]] = ()):
        for path in run_dir.glob("*.jsonl"):  # what evaluators keep, too
            keep_until(path, last_step)
        self._run_dir = run_dir
        self._files = {name: (run_dir / name).open("a") for name in (METRICS, TIMING)}
        self._events = Events(run_dir / "tensorboard", last_step + 1)
        self._more = more

    def row(self, step: int, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """One row after `step` steps. Numbers that are not finite are written as null."""
        for name, values in ((METRICS, metrics), (TIMING, timing)):
            plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
            self._files[name].write(json.dumps({"step": step, **plain}) + "\n")
            self._files[name].flush()
        finite = {k: v for k, v in {**metrics, **timing}.items() if math.isfinite(v)}
        for told in (self._events.row, *self._more):
            told(step, finite)

    def again(self, last_step: int) -> "Logger":
        """This one closed, and another one in its place."""
        self.close()
        return Logger(self._run_dir, last_step, self._more)

    def keep(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """One line {step, NAME: rows} at the end of NAME.jsonl."""
        with (self._run_dir / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, name: rows}) + "\n")

    def flush(self) -> None:
        """What was logged is on disk: a checkpoint after it is never ahead of it."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close all, and write metrics.csv."""
        for file in self._files.values():
            file.close()
        self._events.close()
        write_csv(self._run_dir)


def write_csv(run_dir: Path) -> Path:
    """metrics.csv: the rows of metrics.jsonl and timing.jsonl side by side, a column for every name that any has."""
    timing = {row["step"]: row for row in read_metrics(run_dir / TIMING)}
    rows = [{**row, **timing.get(row["step"], {})} for row in read_metrics(run_dir / METRICS)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path = run_dir / CSV
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, columns or ["step"])
        table.writeheader()
        table.writerows(rows)
    return path


def keep_until(path: Path, step: int) -> None:
    """Cut the rows of a .jsonl file that lie after `step`."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= step]
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept))
    os.replace(draft, path)
