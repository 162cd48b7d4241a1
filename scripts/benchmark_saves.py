"""How long a checkpoint keeps training waiting: the copy of the state, not its way to the disk.

    scripts/run scripts/benchmark_saves.py

For a state of CartPole's and of the humanoid's PPO, and for one of 1.6 GB (parameters and moments of a language model
of 135M), each saved six times: milliseconds until `save` returns, and until the checkpoint counts. Pin it to a core.
"""

import json
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp

from jaxrl import cli, program
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.header import machine


def control(name: str):
    return jax.jit(program(cli.named(name)).init)(jax.random.key(0))


def large():
    return {f"layer{i}": jnp.full((1024, 1024, 10), float(i)) for i in range(40)}  # 40 MiB each


def measure(state, times: int = 6) -> dict[str, float]:
    state = jax.block_until_ready(state)
    blocked, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        saves = Checkpoints(folder, keep=1)
        for step in range(times):
            began = time.perf_counter()
            saves.save(step, state)
            blocked.append(1000 * (time.perf_counter() - began))
            saves.wait()
            whole.append(1000 * (time.perf_counter() - began))
        saves.close()
    size = sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20
    later = blocked[1:]  # the first also compiles how keys are taken apart
    return {
        "MiB": round(size, 2),
        "first_ms": round(blocked[0], 1),
        "median_ms": round(statistics.median(later), 1),
        "most_ms": round(max(later), 1),
        "counts_after_ms": round(statistics.median(whole[1:])),
    }


def main() -> None:
    figures = {"cartpole": measure(control("ppo/cartpole")), "humanoid": measure(control("ppo/humanoid_cpu"))}
    figures["1.6 GB"] = measure(large())
    for name, found in figures.items():
        print(name, found, flush=True)
    about = {name: machine()[name] for name in ("model", "cores", "jax")}
    print(json.dumps({**figures, "machine": about}))


if __name__ == "__main__":
    main()
