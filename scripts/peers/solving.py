"""Seconds from the start of a process until an evaluation on CartPole reaches a return of 475.

jaxrl is asked as a person asks it, `experiments/train.py ppo/cartpole`, with its own preset and with rl-zoo's settings,
each with an empty compilation cache and with the one which that run filled. Stable-Baselines3 and SBX have rl-zoo's
settings, EvalCallback and StopTrainingOnRewardThreshold. All evaluate as often, on as many whole episodes.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peers.arithmetic import median_or_unsolved
from peers.arms.worker import about
from peers.bench import Bench, told
from peers.environments import NotMeasured
from peers.processes import watch
from peers.settings import ZOO, ZOO_STEPS, options

from jaxrl.cli import named


def solve(bench: Bench, arms: tuple[str, ...], seeds: int, threshold: float, every: int, episodes: int, limit: float):
    """Arms in turns, seed by seed. every: steps between evaluations. episodes: of each. limit: seconds of a run.

    Returns the columns and rows of the table, and the figures behind it.
    """
    found, bench.about["jaxrl"] = {}, about()  # its command line runs under this Python
    arms = tuple(arm for arm in arms if bench.python(arm) or found.setdefault(arm, []))  # made before anything is timed
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as scratch:
            for arm, run in runs(bench, arms, seed, threshold, every, episodes, limit, Path(scratch)).items():
                try:
                    used = cpu_of_children()
                    found.setdefault(arm, []).append(run() | {"cpu_seconds": cpu_of_children() - used})
                    told(f"{arm}, seed {seed}: {found[arm][-1]['seconds'] or 'not reached'}")
                except NotMeasured as reason:
                    bench.miss(arm, reason)
                    found.setdefault(arm, [])
    rows = [row(arm, tries) for arm, tries in found.items()]
    columns = ("arm", "solved", "seconds, median", "least … most", "CPU seconds", "training alone", "steps, median")
    return columns, rows, {"runs": found, "threshold": threshold, "every": every, "episodes": episodes}


def cpu_of_children() -> float:
    """CPU seconds of all processes that were started here and have ended; a loaded machine changes them little."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def runs(
    bench: Bench, arms: tuple[str, ...], seed: int, threshold: float, every: int, episodes: int, limit: float, at: Path
) -> dict[str, Callable[[], dict]]:
    """Name of an arm -> what runs it once. A filled cache comes after the run that fills it. at: an empty folder."""
    bench_runs = {}
    for name, more, total in (
        ("jaxrl, its preset", [], named("ppo/cartpole").total_steps),
        ("jaxrl, rl-zoo's settings", options(ZOO, ZOO_STEPS), ZOO_STEPS),
    ):
        for state in ("empty", "filled"):
            folder = at / name.split()[1].strip("'s")
            command = [sys.executable, "experiments/train.py", "ppo/cartpole", *more, "--seed", str(seed)]
            command += ["--evals", str(total // every), "--eval-episodes", str(episodes)]
            command += ["--run-dir", str(folder / state)]
            environment = {"JAXRL_CACHE": str(folder / "cache")}
            asked = (command, folder / state, "eval_return", threshold, limit, environment)
            bench_runs[f"{name}, {state} cache"] = lambda asked=asked: watched(*asked)
    question = {"measure": "solve", "settings": ZOO, "num_envs": 8, "updates": ZOO_STEPS // 256}
    question |= {"threshold": threshold, "eval_every": every, "eval_episodes": episodes}
    for arm in arms:
        bench_runs[arm] = lambda arm=arm: peer(bench, arm, question, seed, limit)
    return bench_runs


def watched(command: list[str], run_dir: Path, *more) -> dict:
    """One run of jaxrl's command line."""
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    reached = watch(command, run_dir, *more)
    if reached is None:
        return {"solved": False, "seconds": None}
    return {"solved": True, **{name: reached[name] for name in ("seconds", "train_seconds", "value")}} | {
        "steps": reached["step"]
    }


def peer(bench: Bench, arm: str, question: dict, seed: int, limit: float) -> dict:
    """One run of a peer, in a process of its own."""
    began = time.perf_counter()
    worker = bench.start(arm, question)
    if worker is None:
        raise NotMeasured(bench.missing[arm])
    began = max(began, worker.began)  # making its environment does not count
    try:
        found = worker.ask(seed, limit)
    finally:
        worker.close()
    return {**found, "seconds": time.perf_counter() - began if found["solved"] else None}


def row(arm: str, tries: list[dict]) -> tuple[str, ...]:
    """An arm's row: the median counts a run that did not get there as the longest."""
    if not tries:
        return (arm, "not measured", "", "", "", "", "")
    done = [run for run in tries if run["solved"]]
    middle = median_or_unsolved([run["seconds"] for run in tries])
    shown = f"{len(done)} of {len(tries)}"
    if not done:
        return (arm, shown, "not reached", "", "", "", "")
    seconds = [run["seconds"] for run in done]
    cpu, training, steps = (np.median([run[k] for run in done]) for k in ("cpu_seconds", "train_seconds", "steps"))
    spread = f"{min(seconds):.1f} … {max(seconds):.1f}"
    return (
        arm,
        shown,
        f"{middle:.1f}" if middle else "not reached",
        spread,
        f"{cpu:.1f}",
        f"{training:.1f}",
        f"{steps:,.0f}",
    )
