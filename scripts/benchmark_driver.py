"""What the host driver costs: `run` with a hundred rows of metrics beside `train`, and its memory by length.

    taskset -c 0 scripts/run scripts/benchmark_driver.py
    taskset -c 0 scripts/run scripts/benchmark_driver.py --memory 10

CartPole PPO in 4 environments with PureJaxRL's settings, 1000 updates, a row for every ten. Both are compiled before
and take turns; ratios are taken within a round. `--memory N`: instead, peak memory of this process after a run of N
times that length, with N times the rows and the checkpoints.
"""

import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro

from jaxrl import PPO, EnvConfig, Schedule, run, train
from jaxrl.cli.benchmark import surroundings
from jaxrl.ops.platform import compiler_options
from jaxrl.reports.rows import TIMING, read_metrics
from jaxrl.runs import session
from jaxrl.settings import float32

UPDATE, UPDATES = 4 * 128, 1000


@dataclass
class Options:
    """What to measure."""

    rounds: int = 7
    """Of `train` and `run` in turns."""
    memory: int | None = None
    """Lengths of a run after which its memory is read; without it, time is measured."""


def config(length: int = 1) -> PPO:
    """PureJaxRL's settings."""
    return PPO(
        env=EnvConfig("gymnax/CartPole-v1", num_envs=4),
        total_steps=UPDATE * UPDATES * length,
        num_steps=128,
        learning_rate=2.5e-4,
        value_clip=0.2,
        ent_coef=0.01,
    )


def driven() -> tuple[float, float]:
    """Wall and CPU seconds of the driver's loop: what is before and after it every run has once."""
    found, loop = [], session.Session.train

    def timed(self, state):
        ended = []
        found.append(seconds(lambda: ended.append(jax.block_until_ready(loop(self, state)))))
        return ended[0]

    session.Session.train = timed
    try:
        with tempfile.TemporaryDirectory() as scratch:
            run(config(), 0, f"{scratch}/run", schedule=Schedule(100, 0, 0), progress=False)
    finally:
        session.Session.train = loop
    return found[0]


def seconds(call) -> tuple[float, float]:
    """Wall and CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(options: Options) -> None:
    """Measure, print."""
    print(json.dumps(surroundings()), file=sys.stderr)
    if options.memory:
        with tempfile.TemporaryDirectory() as scratch:
            schedule = Schedule(100 * options.memory, 0, 10 * options.memory)
            done = run(config(options.memory), 0, f"{scratch}/run", schedule=schedule, progress=False)
            rates = [row["steps_per_second"] for row in read_metrics(Path(done.run_dir) / TIMING)]
        quarter = len(rates) // 4
        means = [round(sum(rates[i : i + quarter]) / quarter) for i in range(0, 4 * quarter, quarter)]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{options.memory} x: peak {peak:.0f} MiB; steps per second by quarter of the run {means}")
        return
    alike = compiler_options(0, brief=False)  # as `run` compiles what is as small as this
    whole = jax.jit(train, compiler_options=alike).lower(float32(config()), jax.random.key(0)).compile()
    ratios = []
    for i in range(options.rounds + 1):
        bare = seconds(lambda: jax.block_until_ready(whole(float32(config()), jax.random.key(0))))
        with_rows = driven()
        if i:  # the first is warming up
            ratios.append([a / b for a, b in zip(with_rows, bare, strict=True)])
            print(f"round {i}: run / train {ratios[-1][0]:.3f} of wall, {ratios[-1][1]:.3f} of CPU seconds")
    for name, values in zip(("wall", "CPU"), zip(*ratios, strict=True), strict=True):
        middle = sorted(values)[len(values) // 2]
        print(f"{name}: {middle:.3f} ({min(values):.3f} ... {max(values):.3f})")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
