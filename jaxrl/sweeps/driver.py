"""The driver of a sweep: many configs times many seeds, as few programs as they have shapes, in one table."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.config_file import to_dict
from jaxrl.envs.custom import refuse_within_import
from jaxrl.reports.statistics import interquartile_mean
from jaxrl.runs.directory import alone, as_path, on_disk
from jaxrl.runs.logs import Bar
from jaxrl.runs.preemption import Interrupted, Interrupts, Stopped
from jaxrl.sweeps.directory import begin_sweep, check_sweep_dir, described, end, ended, read_sweep, update_sweep
from jaxrl.sweeps.forecasting import Forecast, said
from jaxrl.sweeps.learning import Learning
from jaxrl.sweeps.loading import best_of
from jaxrl.sweeps.plan import Batch, Group
from jaxrl.sweeps.searches import ASKED
from jaxrl.sweeps.table import evaluated, join, write_events
from jaxrl.sweeps.tasks import Plan, Task, task
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.training.given import describe
from jaxrl.types import InputError


class SweepResult(NamedTuple):
    """figures: what a command line ends with. run_dir, table: where all is kept; None after a dry run."""

    figures: dict[str, Any]
    run_dir: Path | None
    table: Path | None


def sweep(
    config: Any,
    fields: Mapping[str, Any],
    plan: Plan = Plan(),
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    progress: bool = True,
    load: Callable[[Any], tuple[Any, dict[str, Any]]] | None = None,
    more: Mapping[str, Any] = {},
    **given: Any,
) -> SweepResult:
    """Train every configuration with every seed; members that differ by floats and seeds alone are one program.

    Main arguments:
    config: what they have in common. fields: what they differ by, {"learning_rate": "log:1e-4:1e-2:8", "hidden":
    [[64, 64], [256]]}, as `jaxrl.sweeps.swept` reads it; an empty one sweeps seeds. plan: seeds, method and sizes.
    given: as for `train`.
    Other arguments:
    run_dir: by default a new directory under runs/. resume: go on with the sweep that it holds, exactly. dry_run:
    compile, forecast memory and time, and end. load(config) -> (config, given): instead of `given`, for each program.
    more: further entries of sweep.json.
    Raises InputError, before anything is compiled or written, for a field, a value or a directory that cannot be, and
    before anything runs for members that have no room in memory. Raises Stopped and NotSaved as `run` does.
    """
    own = [name for name in given if hasattr(Plan, name)]
    if own:
        raise InputError(f"{own[0]} is part of the plan: sweep(config, fields, Plan({own[0]}={given[own[0]]!r}))")
    if (count := jax.process_count()) > 1:
        raise InputError(
            f"a sweep is one process's, and here are {count}; start each alone, with its part and run_dir "
            f"(--shard 1/{count})"
        )
    refuse_within_import()
    enable_compilation_cache()
    run_dir = None if run_dir is None else as_path(run_dir)
    asked = task(config, fields, plan, load or (lambda config: (config, given)))
    formed = asked.form([])
    score = evaluated(formed[0].p, plan.score).score
    same = {**asked.asked(describe(given)), **({} if load is None else {"loaded": _loaded(formed)})}
    check_sweep_dir(run_dir, same, resume)
    home = run_dir if resume else None
    with on_disk(run_dir), contextlib.ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        stack.enter_context(_stopping(interrupts, lambda: home))
        # What does not fit is said before anything is written.
        began = time.perf_counter()
        fresh = [] if resume and not dry_run else asked.cut(formed, 0, [], interrupts.heed)
        if dry_run:
            compiling = round(time.perf_counter() - began, 2)
            figures = _foreseen(asked, fresh, asked.foresee(fresh, interrupts.heed))
            return SweepResult({**figures, "compile_seconds": compiling}, None, None)
        if not resume:
            about = {**_about(asked, formed), "score": score, "asked": same, **more}
            home = run_dir = begin_sweep(run_dir, formed[0].p.label, config, about)
        stack.enter_context(alone(run_dir))
        stored, told, batches = read_sweep(run_dir)["batches"], [], []
        report = stack.enter_context(contextlib.closing(_Progress(asked, formed, progress)))
        while formed:
            numbers = {member.number for group in formed for member in group.members}
            own = [cut for cut in stored if cut["members"][0] in numbers]
            fresh = fresh or asked.cut(formed, len(batches), own, interrupts.heed)
            batches += fresh
            update_sweep(run_dir, batches=described(batches))
            ahead = [batch for batch in fresh if ended(run_dir, batch.number) is None]
            report.begin(asked, ahead, interrupts.heed)
            scores = {}
            for batch in fresh:
                scores |= _learned(asked, run_dir, batch, interrupts, report)
            told += _by_config(fresh, scores)
            formed, fresh = asked.form(told), []
        table = join(run_dir)
        count = sum(len(batch.members) for batch in batches)
        seconds = sum(ended(run_dir, batch.number)["seconds"] for batch in batches)
        config = None if asked.search.moves else asked.config  # settings that change on the way are in no config
        best = best_of(run_dir, config, [one.field for one in asked.fields])
        figures = {"members": count, **best, "train_seconds": round(seconds, 2)}
        figures["run_dir"] = str(run_dir)
        update_sweep(run_dir, result=figures)
    return SweepResult(figures, run_dir, table)


@contextlib.contextmanager
def _stopping(interrupts: Interrupts, home: Callable[[], Path | None]) -> Iterator[None]:
    """Turns Interrupted into Stopped, which says what is kept. home: the directory of the sweep once it is begun."""
    try:
        yield
    except Interrupted:
        kept = "nothing was written" if home() is None else f"all is saved: jaxrl resume {home()} goes on with it"
        raise Stopped(f"stopped by {interrupts.asked}; {kept}", busy=True) from None


def _loaded(formed: Sequence[Group]) -> list[str]:
    """Of what was loaded for some groups, each once: what it is, and a hash of all that it is."""
    each = {id(group.given): group.given for group in formed}
    return [f"{name} {told['sha256'][:16]}" for given in each.values() for name, told in describe(given).items()]


def _learned(asked: Task, run_dir: Path, batch: Batch, interrupts: Interrupts, report: "_Progress") -> dict[int, float]:
    """The last score of every member of a batch, which has ended then."""
    found = ended(run_dir, batch.number)
    if found is None:
        found = Learning(run_dir, batch, asked, interrupts, report.tell, report.passed).run()
        if asked.plan.tensorboard:
            write_events(run_dir, batch.number, [one.field for one in asked.fields])
        end(run_dir, batch.number, found)
    else:
        report.passed(asked.steps(batch))
    return dict(found["scores"])


def _by_config(batches: Sequence[Batch], scores: Mapping[int, float]) -> list[list[float]]:
    """Scores of the seeds of each configuration, in their order; NaN for a member that was left behind."""
    found: dict[int, list[float]] = {}
    for member in sorted((m for batch in batches for m in batch.members), key=lambda m: m.number):
        found.setdefault(member.index, []).append(scores.get(member.number, math.nan))
    return list(found.values())


def _about(asked: Task, formed: Sequence[Group]) -> dict[str, Any]:
    """What sweep.json says beside the machine and the batches."""
    p, plan, plain = formed[0].p, asked.plan, to_dict(asked.config)
    count = len({member.index for group in formed for member in group.members})
    count = plan.samples or count
    name = next((plain[home]["name"] for home in ("env", "lm") if home in plain), "")
    return {
        "algorithm": type(asked.config).__name__.lower(),
        "subject": p.overrides.get("env.name", name),
        "fields": {one.field: one.spec for one in asked.fields},
        "method": plan.method,
        "num_configs": count,
        "num_seeds": len(asked.seeds),
        "num_members": count * len(asked.seeds) if plan.shard is None else sum(len(g.members) for g in formed),
        "seeds": list(asked.seeds),
        "total_steps": p.total_steps,
        "unit": p.unit._asdict(),
    }


def _foreseen(asked: Task, batches: Sequence[Batch], forecasts: Sequence[Forecast]) -> dict[str, Any]:
    return {
        "members": sum(len(batch.members) for batch in batches),
        "batches": len(batches),
        "compilations": asked.compilations(batches),
        "forecast_seconds": float(f"{sum(f.seconds for f in forecasts):.4g}"),
        "forecast_mib": float(f"{max(f.memory_mib for f in forecasts):.4g}"),
    }


def _middle(scores: Sequence[float]) -> float:
    """As configurations are ranked; NaN where a member diverged, or has no score yet."""
    return float(interquartile_mean(np.array(scores))) if np.isfinite(scores).all() else math.nan


class _Progress:
    """Over the whole sweep: a bar, or a plain line at every twentieth."""

    def __init__(self, asked: Task, formed: Sequence[Group], shown: bool):
        count = sum(len(group.members) for group in formed)
        steps = sum(asked.steps(Batch(0, group.members, len(group.members), group)) for group in formed)
        self._total = round(steps * (asked.plan.samples or count) / count) if asked.plan.method in ASKED else steps
        unit = formed[0].p.unit.label.split()[-1]
        self._bar = Bar(self._total, 0, shown, unit)
        self._done, self._before, self._said, self._began, self._scores = 0, 0, 0, time.perf_counter(), {}

    def begin(self, asked: Task, batches: Sequence[Batch], pause: Callable[[], None]) -> None:
        """Say what is ahead."""
        if batches:
            self._bar.say(said(_foreseen(asked, batches, asked.foresee(batches, pause))))
        self._began, self._before = time.perf_counter(), self._done

    def passed(self, steps: int) -> None:
        """Steps that an earlier session has done."""
        self._done += steps
        self._before += steps

    def tell(self, steps: int, scores: Mapping[int, list[float]]) -> None:
        """Steps that were done, and the newest scores by configuration."""
        self._done += steps
        self._scores |= {index: _middle(own) for index, own in scores.items()}
        known = {index: score for index, score in self._scores.items() if math.isfinite(score)}
        best = max(known, key=known.get, default=None)
        says = "" if best is None else f"best score {known[best]:.4g}, of config {best}"
        rate = (self._done - self._before) / max(1e-9, time.perf_counter() - self._began)
        twentieth = 20 * self._done // max(1, self._total)
        line = twentieth > self._said and bool(twentieth < 20 or scores)  # the last one has the last scores
        self._bar.update(self._done, says, rate, line)
        self._said = twentieth if line else self._said

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
