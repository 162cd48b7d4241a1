"""What a sweep forecasts of itself against what it takes: seconds, and memory by the process's peak (Linux).

    scripts/run scripts/benchmark_sweep.py
    scripts/run scripts/benchmark_sweep.py --shapes small wide

Sweeps of different shape, each in a process of its own. Memory is what the process grows by from when all is compiled,
with what compiling has left behind given back, to its peak. What the forecast adds to XLA's account of it was chosen by
small, wide, physics and returns; deep and single took no part in that.
"""

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import replace as changed
from pathlib import Path

import tyro

SHAPES = ("small", "wide", "physics", "returns", "deep", "single")


def sweep_of(shape: str) -> tuple:
    """(config, fields, seeds) of a shape."""
    from jaxrl import A2C, PPO, EnvConfig, Reinforce

    if shape == "small":
        return (
            PPO(env=EnvConfig(num_envs=64), total_steps=262_144, num_steps=128),
            {"learning_rate": "log:1e-4:1e-2:8"},
            16,
        )
    if shape == "wide":
        env = EnvConfig("gymnax/Pendulum-v1", num_envs=64)
        return PPO(env=env, hidden=(512, 512), num_steps=64, total_steps=16_384), {"gae_lambda": "lin:.8:1:8"}, 2
    if shape == "returns":
        env = EnvConfig("gymnax/Acrobot-v1", num_envs=32)
        return Reinforce(env=env, num_steps=500, total_steps=160_000), {"learning_rate": "log:1e-3:1e-1:4"}, 4
    if shape == "deep":
        env = EnvConfig("gymnax/Breakout-MinAtar", num_envs=32)
        fields = {"learning_rate": "1e-3,3e-3", "gamma": ".99,.999"}
        return PPO(env=env, hidden=(128, 128, 128), num_steps=64, total_steps=102_400), fields, 2
    if shape == "single":
        return A2C(env=EnvConfig("gymnax/Pendulum-v1", num_envs=512), num_steps=64, total_steps=3_276_800), {}, 2
    env = EnvConfig("brax/inverted_pendulum", num_envs=4096, backend="spring", resets="pool", eval_episodes=32)
    return PPO(env=env, num_steps=16, total_steps=393_216, num_minibatches=32), {"gamma": ".95,.97,.99"}, 2


def main(shapes: tuple[str, ...] = SHAPES, one: str | None = None) -> None:
    """Measure.

    Args:
        shapes: which sweeps.
        one: within the process of one of them.
    """
    if one is not None:
        print(json.dumps(measured(one)))
        return
    found = []
    for shape in shapes:
        done = subprocess.run([sys.executable, __file__, "--one", shape], stdout=subprocess.PIPE, text=True, check=True)
        found.append({"shape": shape, **json.loads(done.stdout.splitlines()[-1])})
        told = found[-1]
        print(
            f"{shape:8} {told['members']:4} members  {told['forecast_seconds']:7.1f} s forecast, "
            f"{told['seconds']:7.1f} taken  {told['forecast_mib']:8.1f} MiB forecast, {told['mib']:8.1f} taken",
            flush=True,
        )
    print(json.dumps(found))


def measured(shape: str) -> dict[str, float]:
    """Forecast and truth of one sweep."""
    import orbax.checkpoint  # noqa: F401  # their modules are not what is forecast
    import pyarrow.parquet  # noqa: F401
    import scipy.stats  # noqa: F401

    from jaxrl import Plan, sweep
    from jaxrl.sweeps import driver
    from jaxrl.sweeps.tasks import Task

    config, fields, seeds = sweep_of(shape)
    seen, foresee, foreseen = {}, Task.foresee, driver._foreseen

    def measured_from_here(self, batches):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        seen["before"] = status("VmRSS")
        return foresee(self, batches)

    def told(*args):
        seen["forecast"] = foreseen(*args)
        return seen["forecast"]

    Task.foresee, driver._foreseen = measured_from_here, told
    with tempfile.TemporaryDirectory() as scratch:
        result = sweep(config, fields, changed(Plan(), seeds=seeds, devices=1), Path(scratch) / "sweep", progress=False)
    taken = {"seconds": result.figures["train_seconds"], "mib": round(status("VmHWM") - seen["before"], 1)}
    return {**seen["forecast"], **taken}


def status(name: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    tyro.cli(main)
