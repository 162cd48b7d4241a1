"""Timing on a machine that is not quite quiet, and memory before it runs out."""

import contextlib
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np


def timed(call: Callable[[], Any]) -> float:
    """Seconds until everything that `call` returns is there."""
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def repeats(call: Callable[[int], Any], seconds: float) -> int:
    """n such that call(n) takes about `seconds`, at least 1: doubled until a tenth of that is reached, then scaled."""
    n, took = 1, timed(lambda: call(1))
    while took < seconds / 10 and n < 2**20:
        n *= 2
        took = timed(lambda n=n: call(n))
    return max(1, round(n * seconds / max(took, 1e-9)))


class Spread(NamedTuple):
    """Median, least and largest of some numbers."""

    median: float
    min: float
    max: float


def spread(numbers: Sequence[float]) -> Spread:
    """Of a few numbers."""
    return Spread(float(np.median(numbers)), float(min(numbers)), float(max(numbers)))


def memory_of(compiled: Any) -> tuple[int, int]:
    """(bytes held between calls, bytes needed beside them during one) of a compiled program that donates its carry."""
    m = compiled.memory_analysis()
    held = m.argument_size_in_bytes
    return held, m.temp_size_in_bytes + max(0, m.output_size_in_bytes - m.alias_size_in_bytes)


def free_memory() -> int:
    """Bytes that this process may still take: of the device, or of the host for a CPU."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return 2**33  # nobody tells: eight GiB, and a program that takes more fails and is recorded


def reason(error: Exception) -> str:
    """The first line of an error, short enough for a table. Frees what the failure left behind."""
    gc.collect()
    text = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{type(error).__name__}: {text}"[:200]
