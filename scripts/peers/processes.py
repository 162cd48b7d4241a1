"""An arm's process, kept alive between its calls, and a process of jaxrl's whose metrics are read as they appear."""

import contextlib
import json
import os
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
        command = [python, str(ROOT / f"scripts/peers/arms/{file}_arm.py"), json.dumps({**question, "library": arm})]
        log.parent.mkdir(parents=True, exist_ok=True)
        self.arm, self.log, self.began = arm, log, time.perf_counter()
        env = {**os.environ, "PYTHONPATH": str(ROOT) if arm == "jaxrl" else "", "CUDA_VISIBLE_DEVICES": ""}
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, bufsize=0
            )
        self._read = b""
        try:
            self.ready = self._answer(limit)
        except NotMeasured:
            self.close()
            raise

    def ask(self, number: int, limit: float | None = None) -> dict:
        """The figures of one call. Raises NotMeasured where the process ends or takes longer than `limit` seconds."""
        with contextlib.suppress(BrokenPipeError):  # its end is told by what it said last
            self.process.stdin.write(f"{number}\n".encode())
        return self._answer(limit)

    def _answer(self, limit: float | None) -> dict:
        end = None if limit is None else time.perf_counter() + limit
        while b"\n" not in self._read:
            left = None if end is None else max(0.0, end - time.perf_counter())
            if not select.select([self.process.stdout], [], [], left)[0]:
                raise NotMeasured(f"no answer within {limit:.0f} s")
            if not (more := os.read(self.process.stdout.fileno(), 1 << 16)):
                raise NotMeasured(self._last_words())
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return json.loads(line)

    def _last_words(self) -> str:
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its process ended: {said[-1][:200] if said else 'nothing was said'}"

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


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
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise NotMeasured(f"its process ended: {said[-1][:200] if said else f'with status {status}'}")
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
