"""What a run writes while it goes: rows to metrics.jsonl and timing.jsonl, TensorBoard and, if asked for, Weights &
Biases; at its end metrics.csv. Everywhere x is `step`.

metrics.jsonl holds only what the seed determines, so that two runs can be compared byte by byte; wall-clock numbers
go to timing.jsonl, row for row; metrics.csv has both. A row is one JSON object on a line; it holds means over all
updates since the row before, each over what it counts (steps, episodes, tokens, rows). null, in the table an empty
cell, is a mean that is not finite, or of nothing: no episode had ended. Columns of metrics.jsonl:

step: environment steps, or rows of data, that have been learned from since the run began

Of those that learn by acting:
episode_return: sum of an episode's rewards, as the environment gives them; episodes that ended, actions sampled
episode_length: steps of an episode that ended
invalid_steps: share of environment steps that gave numbers which are not finite
policy_loss: of a step; minus the advantage, normalized where the config says so, times log-prob or ratio
value_loss: of a step; half the squared error, in units of (scaled) returns squared
entropy: of the policy, nats a step
explained_variance: share of the variance of the value's targets that the value explains; 1 is all, 0 none
approx_kl: from the policy that acted to the one that learns, nats a step
clip_fraction: share of ratios that were clipped
gradient_steps: in one update; fewer where target_kl ended it early

Of those that learn from rows:
loss: what is minimized; nats a token for SFT, and of a row for others
preference_loss: the part of a row's loss that compares, without nll_coef's and wpo's
entropy: of the model, nats a token of completions
tokens: learned from, in a row
rewards/chosen, rewards/rejected: implicit rewards of a completion, beta times nats above the reference; good and bad
rewards/margin: chosen less rejected
rewards/accuracy: share of pairs with a margin above 0; of KTO's rows, on the right side of z0
logps/chosen, logps/rejected: log-prob of a completion, nats
length/chosen, length/rejected: tokens of a completion
desirable: share of KTO's rows that are good
z0: KTO's point of reference, nats a completion
z0_raw: the same before it is clamped at 0

Of all:
grad_norm: global norm of a gradient before it is clipped
learning_rate: of the optimizer, as scheduled
skipped_updates: share of gradient steps that were not taken, because the gradient was not finite

Where the run was evaluated just then, and once before it if it learns from rows (step 0), eval_X is X as above: over
whole episodes of the policy's mode, or over held-out rows. Where none are held out it is called first_rows_X, and is
over the first batch of the training rows. Beside these:
eval_return: sum of an episode's rewards
eval_return_std: standard deviation over the episodes
eval_forward_speed: of a body that has one, metres a second
eval_sample_kl, eval_sample_kl_k3: from the model to the one before training, nats a completion; two estimates
eval_sample_length: tokens of a completion
eval_sample_ended: share of completions that came to an end

Columns of timing.jsonl:

step: as above
train_seconds: since the run began, in all its sessions, without compiling and evaluating
steps_per_second: over the updates of the row
num_compilations: by XLA in this session so far
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxrl.reports.rows import METRICS, TIMING, read_metrics
from jaxrl.runs.logs.tensorboard import Events

CSV, EVENTS = "metrics.csv", "tensorboard"


class Logger:
    """Appends rows to the files of a run directory, each flushed as it is written.

    `last_step`: rows after this step are cut: a resumed run writes them again. more: others who are told each row.
    """

    def __init__(self, run_dir: Path, last_step: int = 0, more: Sequence[Callable[[int, dict[str, float]], None]] = ()):
        for path in run_dir.glob("*.jsonl"):  # what evaluators keep, too
            keep_until(path, last_step)
        self._run_dir = run_dir
        self._files = {name: (run_dir / name).open("a") for name in (METRICS, TIMING)}
        self._events = Events(run_dir / EVENTS, last_step + 1)
        self._naming = {name: _naming(run_dir / name) for name in (METRICS, TIMING, EVENTS)}
        self._more = more

    def row(self, step: int, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """One row after `step` steps. Numbers that are not finite are written as null."""
        for name, values in ((METRICS, metrics), (TIMING, timing)):
            plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
            with self._naming[name]:
                self._files[name].write(json.dumps({"step": step, **plain}) + "\n")
                self._files[name].flush()
        finite = {k: v for k, v in {**metrics, **timing}.items() if math.isfinite(v)}
        with self._naming[EVENTS]:
            self._events.row(step, finite)
        for told in self._more:
            told(step, finite)

    def again(self, last_step: int) -> "Logger":
        """This one closed, and another one in its place."""
        self.close()
        return Logger(self._run_dir, last_step, self._more)

    def keep(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """One line {step, NAME: rows} at the end of NAME.jsonl."""
        path = self._run_dir / f"{name}.jsonl"
        with _naming(path), path.open("a") as file:
            file.write(json.dumps({"step": step, name: rows}) + "\n")

    def flush(self) -> None:
        """What was logged is on disk: a checkpoint after it is never ahead of it."""
        with self._naming[EVENTS]:
            self._events.flush()

    def close(self) -> None:
        """Flush and close all, and write metrics.csv."""
        with contextlib.ExitStack() as stack:  # all of them, whichever a full disk refuses
            stack.callback(write_csv, self._run_dir)
            for name, close in (EVENTS, self._events.close), *((n, file.close) for n, file in self._files.items()):
                stack.enter_context(self._naming[name])
                stack.callback(close)


def write_csv(run_dir: Path) -> Path:
    """metrics.csv: the rows of metrics.jsonl and timing.jsonl side by side, a column for every name that any has."""
    timing = {row["step"]: row for row in read_metrics(run_dir / TIMING)}
    rows = [{**row, **timing.get(row["step"], {})} for row in read_metrics(run_dir / METRICS)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns or ["step"], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return _written(run_dir / CSV, text.getvalue())


def keep_until(path: Path, step: int) -> None:
    """Cut the rows of a .jsonl file that lie after `step`."""
    kept = [json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= step]
    _written(path, "".join(kept))


def _written(path: Path, text: str) -> Path:
    """The file in the place of the one that is there, whole or not at all."""
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with _naming(path):
            draft.write_text(text)
        return draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class _naming:
    """What a disk says of a file that is open names no file: within it does."""

    def __init__(self, path: Path):
        self._path = str(path)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, OSError):
            error.filename = error.filename or self._path
