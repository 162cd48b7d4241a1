"""Learning rates × seeds of PPO on CartPole, all in one compiled program, and a plot with bands.

    scripts/run experiments/cartpole_sweep.py
    scripts/run experiments/cartpole_sweep.py --num-seeds 16 --learning-rates 1e-4 1e-3 1e-2

A sweep is a stacked config and running it is `vmap`: the seeds are mapped inside, the learning rates outside. On a CPU
this saves compiling, not time; on an accelerator it saves both.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import axes, cli, replace, stack, train


@dataclass(frozen=True)
class Sweep:
    """What to sweep."""

    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3)
    """One curve each."""
    num_seeds: int = 8
    """Seeds per learning rate; the band is the middle half of them."""
    seed: int = 0
    """The first seed."""
    run_dir: Path = Path("runs/cartpole_sweep")
    """Where the plot goes."""


def main() -> None:
    base, options = cli.parse(replace(cli.named("ppo/cartpole"), total_steps=245_760), __doc__, options=Sweep())
    sweep = Sweep(**options)
    configs = stack([replace(base, learning_rate=rate) for rate in sweep.learning_rates])
    keys = jax.vmap(jax.random.key)(jnp.arange(sweep.seed, sweep.seed + sweep.num_seeds))

    seeds = jax.vmap(lambda config, key: train(config, key)[1]["episode_return"], (None, 0))
    program = jax.jit(jax.vmap(seeds, (axes(configs), None)))
    began = time.perf_counter()
    compiled = program.lower(configs, keys).compile()
    compile_seconds, began = time.perf_counter() - began, time.perf_counter()
    returns = jax.block_until_ready(compiled(configs, keys))
    train_seconds = time.perf_counter() - began

    curves = np.asarray(smooth(returns.total) / smooth(returns.count))  # [rates, seeds, points]
    steps = np.linspace(0, base.total_steps, curves.shape[-1] + 1)[1:]
    sweep.run_dir.mkdir(parents=True, exist_ok=True)
    path = plot(sweep, steps, curves)
    last = {f"{rate:g}": round(float(c[:, -1].mean()), 1) for rate, c in zip(sweep.learning_rates, curves, strict=True)}
    env_steps = base.total_steps * curves.shape[0] * curves.shape[1]
    figures = {
        "return": max(last.values()),
        "return_by_learning_rate": last,
        "env_steps": env_steps,
        "train_seconds": round(train_seconds, 2),
        "compile_seconds": round(compile_seconds, 2),
        "steps_per_second": round(env_steps / train_seconds),
        "run_dir": str(sweep.run_dir),
    }
    print(f"plot        {path}")
    print(json.dumps(figures))


def smooth(x: jax.Array, points: int = 40) -> jax.Array:
    """Sums over equal stretches of the updates."""
    width = x.shape[-1] // points
    return x[..., : width * points].reshape(*x.shape[:-1], points, width).sum(-1)


def plot(sweep: Sweep, steps: np.ndarray, curves: np.ndarray) -> Path:
    """Median over seeds with the middle half as a band, one colour per learning rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for rate, curve in zip(sweep.learning_rates, curves, strict=True):
        low, middle, high = np.nanpercentile(curve, (25, 50, 75), axis=0)
        axis.plot(steps, middle, label=f"learning rate {rate:g}")
        axis.fill_between(steps, low, high, alpha=0.2)
    title = f"PPO on CartPole: median and middle half of {sweep.num_seeds} seeds"
    axis.set(xlabel="environment steps", ylabel="episode return", title=title)
    axis.legend()
    axis.grid(alpha=0.3)
    path = sweep.run_dir / "sweep.png"
    figure.savefig(path, dpi=120)
    return path


if __name__ == "__main__":
    main()
