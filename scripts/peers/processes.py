"""An arm's process, kept alive between its calls, and a process of jaxrl's whose metrics are read as they appear."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from peers.environments import NotMeasured

ROOT = Path(__file__).parents[2]


class Worker:
    """An arm's process, prepared for one question."""

    def __init__(self, arm: str, python: str, question: dict, log: Path, limit: float | None = None):
        """limit: seconds to prepare in. Raises NotMeasured where the arm cannot."""
        file = {"sbx": "sb3"}.get(arm, arm)
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.began, self._read = log, time.perf_counter(), b""
        self._answers, theirs = os.pipe()
        path = str(ROOT / f"scripts/peers/arms/{file}_arm.py")
        command = [python, path, json.dumps({**question, "library": arm}), str(theirs)]
        env = {**os.environ, "PYTHONPATH": str(ROOT) if arm == "jaxrl" else "", "CUDA_VISIBLE_DEVICES": ""}
        with log.open("w") as said:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=env, pass_fds=(theirs,)
            )
        os.close(theirs)
        try:
            self.ready = self._answer(limit)
        except NotMeasured:
            self.close()
            raise

    def ask(self, number: int, limit: float | None = None) -> dict:
        """The figures of one call. Raises NotMeasured where the process ends or takes longer than `limit` seconds."""
        with contextlib.suppress(BrokenPipeError):  # its end is told by what it said last
            self.process.stdin.write(f"{number}\n".encode())
            self.process.stdin.flush()
        return self._answer(limit)

    def _answer(self, limit: float | None) -> dict:
        end = None if limit is None else time.perf_counter() + limit
        while b"\n" not in self._read:
            left = None if end is None else max(0.0, end - time.perf_counter())
            if not select.select([self._answers], [], [], left)[0]:
                raise NotMeasured(f"no answer within {limit:.0f} s")
            if not (more := os.read(self._answers, 1 << 16)):
                raise NotMeasured(f"its process ended: {last_words(self.log)}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self._answers)


def watch(
    command: list[str], run_dir: Path, column: str, threshold: float, limit: float, env: dict[str, str]
) -> dict | None:
    """Run a command of jaxrl's until a row of its metrics reaches the threshold: seconds from the start of the process,
    steps, seconds of training alone and the value. None if it ends, or the limit passes, before that.
    """
    began, log = time.perf_counter(), run_dir.with_suffix(".log")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **env}
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=errors, stderr=errors, env=env)
    try:
        for row in _rows(process, run_dir, began + limit):
            if (row.get(column) or float("-inf")) >= threshold:
                return {**row, "seconds": time.perf_counter() - began, "value": row[column]}
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
    if status not in (0, -signal.SIGKILL):
        raise NotMeasured(f"its process ended: {last_words(log)}")
    return None


def _rows(process: subprocess.Popen, run_dir: Path, end: float) -> Iterator[dict]:
    """Rows of metrics.jsonl as they are written, each with its row of timing.jsonl."""
    seen = 0
    while time.perf_counter() < end:
        over = process.poll() is not None
        metrics, timing = (_lines(run_dir / name) for name in ("metrics.jsonl", "timing.jsonl"))
        for row, times in list(zip(metrics, timing, strict=False))[seen:]:
            seen += 1
            yield {**times, **row}
        if over:
            return
        time.sleep(0.02)


def _lines(path: Path) -> list[dict]:
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def last_words(log: Path) -> str:
    """What went wrong, in a line: the last that names an error, or else the last."""
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing was said"]
    errors = [line for line in said if re.match(r"(error:|[\w.]*(Error|Exception|Exit)\b)", line)]
    return (errors or said)[-1][:200]
