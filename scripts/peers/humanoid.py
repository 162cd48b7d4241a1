"""Brax's humanoid on this machine: jaxrl's preset for CPU beside Brax's PPO with the settings of its notebook.

The two trainings differ in their settings: the ratio of their steps per second says what a person who takes each as it
comes will see. The physics alone are the same work in both.
"""

import sys
import tempfile
import time
from pathlib import Path

from peers.arms.worker import about
from peers.bench import COLUMNS, Bench, cells, told
from peers.environments import NotMeasured
from peers.processes import watch
from peers.settings import BRAX_HUMANOID

PRESET, PRESET_UPDATE, PRESET_STEPS = "ppo/humanoid_cpu", 4096, 5_120_000


def physics(bench: Bench, backend: str, num_envs: int, length: int, rounds: int):
    """Random actions in both, resets included. Returns rows of the table and the calls behind them."""
    question = {"measure": "physics", "backend": backend, "num_envs": num_envs, "length": length}
    found = bench.rounds(("brax",), question, rounds)
    return [("physics", str(num_envs), arm, *cells(found, arm)) for arm in ("jaxrl", "brax")], found


def training(bench: Bench, backend: str, steps: int, rounds: int):
    """Whole trainings: jaxrl of about `steps` steps from scratch, Brax one update more of the same training, in turns.
    Returns rows of the table and the calls behind them.
    """
    question = {"measure": "speed", "backend": backend, "preset": PRESET, "agents": 1, "seed": 0}
    question |= {"updates": max(1, round(steps / PRESET_UPDATE))}
    question |= {"settings": BRAX_HUMANOID, "epoch": 1, "epochs": rounds + 3}
    found = bench.rounds(("brax",), question, rounds)
    envs = {"jaxrl": "256", "brax": str(BRAX_HUMANOID["num_envs"])}
    return [("training", envs[arm], arm, *cells(found, arm)) for arm in ("jaxrl", "brax")], found


def until(bench: Bench, backend: str, threshold: float, limit: float, seed: int):
    """Seconds from the start of the process until an evaluation of 128 episodes reaches the threshold.
    Returns rows and figures.
    """
    found, bench.about["jaxrl"] = {}, about()  # its command line runs under this Python
    for arm, run in {"jaxrl": jaxrl_until, "brax": brax_until}.items():
        try:
            found[arm] = run(bench, backend, threshold, limit, seed)
        except NotMeasured as reason:
            bench.miss(arm, reason)
    rows = []
    for arm in ("jaxrl", "brax"):
        reached = found.get(arm, {"seconds": None, "said": "not measured"})
        if reached["seconds"] is None:
            rows.append((arm, reached["said"], "", ""))
        else:
            rows.append((arm, f"{reached['seconds']:.0f}", f"{reached['steps']:,}", f"{reached['return']:.0f}"))
    return rows, found


def jaxrl_until(bench: Bench, backend: str, threshold: float, limit: float, seed: int) -> dict:
    """`experiments/train.py ppo/humanoid_cpu` with an empty compilation cache, evaluated every 20th of its length."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        command = [sys.executable, "experiments/train.py", PRESET, "--backend", backend, "--seed", str(seed)]
        command += ["--evals", "20", "--run-dir", str(run_dir)]
        reached = watch(command, run_dir, "eval_return", threshold, limit, {"JAXRL_CACHE": f"{scratch}/cache"})
    if reached is None:
        return {"seconds": None, "said": f"not within {limit:.0f} s or {PRESET_STEPS:,} steps"}
    return {"seconds": reached["seconds"], "steps": reached["step"], "return": reached["value"]}


def brax_until(bench: Bench, backend: str, threshold: float, limit: float, seed: int) -> dict:
    """Brax's training, evaluated after every update of 327,680 steps."""
    question = {"measure": "return", "backend": backend, "settings": BRAX_HUMANOID}
    worker = bench.start("brax", {**question, "epoch": 1, "epochs": 150, "seed": seed})
    if worker is None:
        raise NotMeasured(bench.missing["brax"])
    try:
        while True:
            found = worker.ask(0, max(0.0, worker.began + limit - time.perf_counter()))
            seconds = time.perf_counter() - worker.began
            told(f"brax after {found['total_steps']:,} steps, {seconds:.0f} s: {found['return']:.0f}")
            if found["return"] >= threshold:
                return {"seconds": seconds, "steps": found["total_steps"], "return": found["return"]}
    except NotMeasured:
        if time.perf_counter() - worker.began < limit:
            raise
        return {"seconds": None, "said": f"not within {limit:.0f} s"}
    finally:
        worker.close()


SPEED = ("what", "envs", "arm", *COLUMNS)
