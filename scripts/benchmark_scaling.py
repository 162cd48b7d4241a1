# needs: lm
"""What more devices are worth: measured, with as much work for each (weak scaling), and on paper for many.

    scripts/run scripts/benchmark_scaling.py                       # 1, 2, 4 and 8 devices; virtual ones on a CPU
    scripts/run scripts/benchmark_scaling.py --counts 1 8 --rounds 9
    scripts/run scripts/benchmark_scaling.py --paper               # humanoid PPO and DPO of a 7B model, up to 256 chips

Each count is measured in a process of its own: PPO on the humanoid with 64 environments a device, and DPO with 4 pairs
a device of a model whose parameters are dealt to all (fsdp). Beside a rate stands its share of what so many devices
could do: of n times one device's. Virtual devices share the cores of one machine, and all together can at best do what
one does: there the share is of that, what it costs to be cut up, and says nothing of accelerators.
"""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

import tyro


def main(counts: tuple[int, ...] = (1, 2, 4, 8), rounds: int = 5, paper: bool = False, one: int | None = None) -> None:
    """Measure, or calculate.

    Args:
        counts: of devices.
        rounds: timed calls, of which the median is told.
        paper: calculate instead.
        one: within the process of one count.
    """
    if paper:
        print("\n".join([*humanoid_on_paper(), "", *dpo_on_paper()]))
        return
    if one is not None:
        print(json.dumps({"ppo": ppo(one, rounds), "dpo": dpo(one, rounds)}))
        return
    found = {count: in_process(count, rounds) for count in counts}
    print(
        "| devices | PPO, steps/s | of what it could be | DPO, pairs/s | of what it could be |\n|---|---|---|---|---|"
    )
    least = min(counts)
    for count, rate in found.items():
        most = {k: found[least][k] * (count / least if accelerated() else 1) for k in rate}
        cells = [f"{rate[k]:,.4g} | {rate[k] / most[k]:.0%}" for k in ("ppo", "dpo")]
        print(f"| {count} | {' | '.join(cells)} |")


def accelerated() -> bool:
    # Not by asking JAX, which would take the device's memory from the processes that measure.
    return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/accel0")


def in_process(count: int, rounds: int) -> dict:
    env = dict(os.environ)
    if not accelerated():
        env["XLA_FLAGS"] = f"{env.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}".strip()
    words = [sys.executable, __file__, "--one", str(count), "--rounds", str(rounds)]
    return json.loads(subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout)


def rate(config, steps: int, rounds: int, **given) -> float:
    """Steps a second of chunks of so many updates, compiled as `run` does: the median."""
    import jax

    from jaxrl.training.compiled import trace
    from jaxrl.training.programs import program

    compiled = trace(config, given, program(config, **given))()
    leaves, seconds = jax.tree.leaves(compiled.init(jax.random.key(0))), []
    for _ in range(rounds + 1):  # the first warms up
        began = time.perf_counter()
        leaves, told = compiled.chunk(leaves, 1)
        jax.block_until_ready(told)
        seconds.append(time.perf_counter() - began)
    return steps / statistics.median(seconds[1:])


def ppo(devices: int, rounds: int) -> float:
    from jaxrl import PPO, EnvConfig, Parallel

    env = EnvConfig("brax/humanoid", num_envs=64 * devices, backend="spring", resets="pool", eval_episodes=2)
    steps = env.num_envs * 10
    shape = {"num_steps": 10, "total_steps": steps * 8, "num_minibatches": 4, "head": "tanh_normal"}
    return rate(PPO(env=env, normalize_obs=True, parallel=Parallel(data=devices), **shape), steps, rounds)


def dpo(devices: int, rounds: int) -> float:
    import jax
    import numpy as np

    from jaxrl import DPO, ModelParallel, replace
    from jaxrl.data import Completions, Data, Pairs
    from jaxrl.lm import ModelConfig, language_model

    model = language_model(ModelConfig(4096, 256, 1024, 4, 8, 8, 32, 128))
    rows, rng = 4 * devices, np.random.default_rng(0)

    def side() -> Completions:
        tokens = rng.integers(0, 4096, (rows, 64)).astype(np.int32)
        return Completions(tokens, *(np.full(rows, n, np.int32) for n in (16, 64)), None, np.arange(rows))

    config = replace(DPO(parallel=ModelParallel(fsdp=devices)), batch_size=rows, epochs=rounds + 1)
    return rate(
        config, rows, rounds, network=model, params=model.init(jax.random.key(0)), data=Data((Pairs(side(), side()),))
    )


# --- on paper. A ring over n chips carries 2 (n - 1)/n of the bytes of an all-reduce, half of that for a gather or a
# scatter; a step around it takes a hop's latency. Nothing is taken to overlap with computing.

TPU = {"name": "TPU v5e, ICI", "link": 90e9, "hop": 1e-6, "flops": 197e12, "torus": True}
GPU = {"name": "H100, NVLink in eight, 400 Gb/s each between", "link": 450e9, "between": 50e9, "hop": 3e-6}


def all_reduce(size: float, chips: int, link: float, hop: float, torus: bool = False) -> float:
    """Seconds. torus: rings along two axes."""
    around = 2 * (round(chips**0.5) - 1) if torus else chips - 1
    return 2 * size * (chips - 1) / chips / link + 2 * around * hop


def humanoid_on_paper() -> list[str]:
    """Of configs/ppo/humanoid.yaml, all of its 2048 environments on every chip."""
    actor = [244, 128, 128, 128, 34]
    critic = [244, 256, 256, 256, 1]
    size = 4 * sum(a * b + b for net in (actor, critic) for a, b in itertools.pairwise(net))
    sums, steps = 4 * 16, 2048 * 40
    lines = [
        f"humanoid PPO: {size / 1e6:.2f} MB of gradients, {sums} times an update of {steps:,} steps a chip",
        "",
        "| chips | all-reduces an update | efficiency at 50k steps/s a chip | at 200k | at 1M |",
        "|---|---|---|---|---|",
    ]
    for chips in (1, 8, 64, 256):
        lost = sums * all_reduce(size, chips, TPU["link"], TPU["hop"], torus=True)
        shares = [1 / (1 + lost * speed / steps) for speed in (50e3, 200e3, 1e6)]
        lines.append(f"| {chips} | {lost * 1e3:.1f} ms | {' | '.join(f'{x:.1%}' for x in shares)} |")
    return lines


def dpo_on_paper() -> list[str]:
    """Of all parameters of a 7B model, 8192 tokens a chip and update (4 pairs of 1024), both answers, bfloat16 products
    at 45 % of 990 TFLOP/s, each layer computed again on the way back."""
    params, tokens = 7e9, 8192
    computing = (2 + 2 + 4 + 2) * params * tokens / (0.45 * 990e12)  # policy, again, its gradient, the reference
    whole = 4 * params  # parameters are kept, and gathered, as float32
    lines = [
        f"DPO of 7B parameters: {computing:.2f} s of computing an update; gathers of {whole / 1e9:.0f} GB (policy, "
        "again on the way back, reference) and one scatter of gradients",
        "",
        "| chips | mesh | exchange an update | efficiency, nothing overlapped |",
        "|---|---|---|---|",
    ]
    for chips, fsdp in ((8, 8), (64, 8), (256, 8), (64, 64), (256, 256)):
        link = GPU["link"] if fsdp <= 8 else GPU["between"]
        lost = 4 * whole * (fsdp - 1) / fsdp / link
        if chips > fsdp:  # gradients of each eighth, between the nodes
            lost += all_reduce(whole / fsdp, chips // fsdp, GPU["between"], GPU["hop"])
        lines.append(
            f"| {chips} | data {chips // fsdp} × fsdp {fsdp} | {lost:.2f} s | {computing / (computing + lost):.0%} |"
        )
    return lines


if __name__ == "__main__":
    tyro.cli(main)
