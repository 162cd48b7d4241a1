"""What a sweep will take, before it runs: memory, by XLA's own account of the compiled programs, and time, by a short
chunk of each.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrl.runs.preemption import awaited
from jaxrl.sweeps.plan import Batch, needs, stacked

_LONG_ENOUGH = 1.0  # seconds: of a shorter chunk the clock and the first touch of memory would be a part


class Forecast(NamedTuple):
    """Of one batch. memory_mib: at its widest, all devices together. update_seconds, eval_seconds: of all its members
    at once. seconds: of the whole."""

    memory_mib: float
    update_seconds: float
    eval_seconds: float
    seconds: float


def forecast(batch: Batch, updates: float, evals: int, pause: Callable[[], None]) -> Forecast:
    """Run a chunk of the batch's program from a start that is thrown away, longer ones until the clock can be trusted,
    and one evaluation. updates, evals: how many of each the batch has. pause: called in between.
    """
    together = batch.group.together(batch.size)
    configs, seeds = stacked(together, batch.members)
    states, told = together.init(configs, seeds), together.nothing()
    count, seconds, most = 1, 0.0, max(1, int(updates))
    while True:
        began = time.perf_counter()
        states, told = together.chunk(configs, states, told, count)
        awaited(told, pause)
        seconds, before = time.perf_counter() - began, seconds
        # The first chunk of all touches its memory for the first time.
        if (seconds >= _LONG_ENOUGH and before) or count >= most:
            break
        count = min(most, max(count + 1, int(2 * count * _LONG_ENOUGH / max(seconds, 1e-6)) if before else 2 * count))
    for _ in range(2 if evals else 0):
        began = time.perf_counter()
        for measure in together.measures:
            awaited(measure(configs, seeds, states), pause)
        evaluation = time.perf_counter() - began
    update, evaluation = seconds / count, evaluation if evals else 0.0
    return Forecast(needs(together), update, evaluation, update * updates + evaluation * evals)


def said(foreseen: dict[str, Any]) -> str:
    """A sentence on it."""
    f = foreseen

    def many(count: int, one: str, more: str) -> str:
        return f"{count:,} {one if count == 1 else more}"

    return (
        f"{many(f['members'], 'member', 'members')} in {many(f['batches'], 'batch', 'batches')}, "
        f"{many(f['compilations'], 'program', 'programs')} compiled: about "
        f"{duration(f['forecast_seconds'])} from here, and {f['forecast_mib']:,.0f} MiB of memory"
    )


def duration(seconds: float) -> str:
    """As people say it."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
