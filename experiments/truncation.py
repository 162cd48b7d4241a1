"""What a wrong bootstrap costs: PPO told the truth at a time limit, and told what other libraries tell it.

    scripts/run experiments/truncation.py                      # pendulum, cartpole, mountain car
    scripts/run experiments/truncation.py --tasks hopper       # much longer
    NEEDS=playground scripts/run experiments/truncation.py --tasks cartpole_balance

A time limit cuts an episode that would have gone on: its last step is worth r + γ V(what it led to). Each arm is the
same PPO, with the same seeds, and another answer there; the library itself cannot be set to any but the first:

    right        γ V(next_obs), and the trace is cut
    as an end    no bootstrap, as if the task had ended (`done` for both flags)
    left out     the cut step is no sample: advantage 0, target V(obs)
    stale        γ V(obs), of the step before the cut
    leaking      right, but the λ-trace runs on into the next episode

Told for each: the final return, and the error of V: its root mean square distance from discounted returns of the
final policy with the clock taken away, over states of the first `limit` steps. Both with 95 % intervals over seeds.
The arms' differences from `right` are paired by seed. Writes truncation.json and truncation.png.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import tyro
from scipy import stats

from jaxrl import cli, evaluate, program, replace
from jaxrl.algorithms import ppo
from jaxrl.envs.registry import from_config
from jaxrl.networks import network_of
from jaxrl.ops.normalization import normalize
from jaxrl.ops.returns import gae
from jaxrl.training import train
from jaxrl.types import InputError, Key, Learner, TrainState

STATES = 64  # environments that V is judged in


def as_an_end(reward: Any, value: Any, next_value: Any, terminated: Any, truncated: Any, *rest: Any) -> jax.Array:
    return gae(reward, value, next_value, terminated | truncated, jnp.zeros_like(truncated), *rest)


def left_out(reward: Any, value: Any, next_value: Any, terminated: Any, truncated: Any, *rest: Any) -> jax.Array:
    gamma, _ = rest
    # a reward for which δ = 0: the step says nothing, and the trace is cut there as it is in gae
    silent = value - gamma * next_value
    return gae(jnp.where(truncated, silent, reward), value, next_value, terminated, truncated, *rest)


def stale(reward: Any, value: Any, next_value: Any, terminated: Any, truncated: Any, *rest: Any) -> jax.Array:
    return gae(reward, value, jnp.where(truncated, value, next_value), terminated, truncated, *rest)


def leaking(
    reward: Any, value: Any, next_value: Any, terminated: Any, truncated: Any, gamma: Any, lam: Any
) -> jax.Array:
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def back(later: jax.Array, now: tuple) -> tuple[jax.Array, jax.Array]:
        delta, terminated = now
        advantage = delta + gamma * lam * jnp.where(terminated, 0.0, later)
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, terminated), reverse=True)[1]


ARMS: dict[str, Callable] = {
    "right": gae,
    "as an end": as_an_end,
    "left out": left_out,
    "stale": stale,
    "leaking": leaking,
}

# Settings of CartpoleBalance as they were when the table was measured; its preset is another since.
_AS_MEASURED = {"num_minibatches": 8, "ent_coef": 3e-3, "reward_scale": 1.0}
# Preset, and what is changed of its settings and of its environment's. The longest learn for less than their presets.
TASKS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "pendulum": ("ppo/pendulum", {}, {}),
    "cartpole": ("ppo/cartpole", {}, {"time_limit": 200}),
    "mountain_car": ("ppo/mountain_car_continuous", {}, {}),
    "hopper": ("ppo/hopper", {"total_steps": 983_040}, {}),
    "cartpole_balance": ("ppo/cartpole_balance", {"total_steps": 512_000, **_AS_MEASURED}, {}),
}


@dataclass(frozen=True)
class Options:
    """What is compared."""

    tasks: tuple[str, ...] = ("pendulum", "cartpole", "mountain_car")
    """pendulum, cartpole (cut after 200 steps), mountain_car; hopper (Brax, spring), cartpole_balance (Playground)."""
    seeds: int = 10
    """Of every arm, from `first` on."""
    first: int = 100
    """The first seed."""
    out: Path = Path("runs/truncation")
    """Where to write."""


def trained(config: Any, arm: str, seeds: range) -> list[TrainState]:
    """One state for each seed. The arm stands in for `gae` while the update is traced."""
    with mock.patch.object(ppo, "gae", ARMS[arm]):
        learn = jax.jit(lambda key: train(config, key)[0])
        return [learn(jax.random.key(seed)) for seed in seeds]


def value_error(config: Any, learner: Learner, key: Key) -> jax.Array:
    """Root mean square of V(obs) - Σ γ^k r, over STATES environments and the steps up to the time limit, where the
    policy acts on without a clock for as long as a reward counts more than a thousandth.
    """
    p, spaces = program(config), from_config(config.env).spaces
    limit = from_config(config.env).time_limit
    beyond = math.ceil(math.log(1e-3) / math.log(float(config.gamma)))
    endless = from_config(replace(config.env, num_envs=STATES, time_limit=2**30, resets="fresh"))
    network = network_of(config, spaces, critic_hidden=config.critic_hidden)

    def step(carry: tuple, key: Key) -> tuple[tuple, tuple]:
        state, obs = carry
        k_act, k_env = jax.random.split(key)
        memory, first = p.algorithm.memory(STATES), jnp.ones(STATES, bool)
        distribution = p.algorithm.policy(learner, memory, obs, first)[1]
        action = distribution.env_action(distribution.sample(k_act)).astype(endless.action_space.dtype)
        state, shown, said = endless.step(k_env, state, action)
        value = network.apply(learner.params, normalize(learner.obs_stats, obs))[1]
        return (state, shown), (value, said.reward, said.terminated)

    k_reset, k_steps = jax.random.split(key)
    steps = jax.random.split(k_steps, limit + beyond)
    _, (value, reward, terminated) = jax.lax.scan(step, endless.reset(k_reset), steps)
    scale = 1.0
    if learner.return_scale is not None:  # V is in units of scaled rewards
        scale = jnp.sqrt(learner.return_scale.stats.var + 1e-8)
    reward = config.reward_scale * reward / scale

    def back(later: jax.Array, now: tuple) -> tuple[jax.Array, jax.Array]:
        reward, terminated = now
        total = reward + config.gamma * jnp.where(terminated, 0.0, later)
        return total, total

    total = jax.lax.scan(back, jnp.zeros(STATES), (reward, terminated), reverse=True)[1]
    # In units of rewards as the task pays them.
    return scale / config.reward_scale * jnp.sqrt(jnp.mean(jnp.square(value - total)[:limit]))


def measured(config: Any, arm: str, seeds: range) -> dict[str, list[float]]:
    """Final return and value error of an arm, for each seed."""
    p = program(config)
    judge = jax.jit(partial(value_error, config))
    play = jax.jit(lambda learner, key: evaluate(config.env, p.algorithm, learner, key).episode_return.mean())
    found = {"return": [], "value_error": []}
    for seed, state in zip(seeds, trained(config, arm, seeds), strict=True):
        key = jax.random.fold_in(jax.random.key(seed), 1)
        found["return"].append(float(play(state.learner, key)))
        found["value_error"].append(float(judge(state.learner, key)))
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half-width of Student's 95 % interval."""
    x = np.asarray(values)
    return float(x.mean()), float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5)


def told(task: str, found: dict[str, dict[str, list[float]]]) -> None:
    """A table of one task."""
    print(f"\n{task}\n| arm | return | its difference from right | error of V | its difference from right |")
    print("|---|---|---|---|---|")
    for arm, figures in found.items():
        cells = []
        for name in ("return", "value_error"):
            mean, half = interval(figures[name])
            cells.append(f"{mean:.4g} ± {half:.2g}")
            paired = np.subtract(figures[name], found["right"][name]).tolist()
            mean, half = interval(paired)
            cells.append("" if arm == "right" else f"{mean:+.3g} ± {half:.2g}")
        print(f"| {arm} | {' | '.join(cells)} |", flush=True)


def draw(path: Path, found: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """Seeds as dots, means with their intervals beside them: a column a task, a row a figure."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(found), figsize=(3.4 * len(found), 6), squeeze=False, layout="constrained")
    for column, (task, arms) in enumerate(found.items()):
        for row, name in enumerate(("return", "value_error")):
            ax = axes[row, column]
            for i, figures in enumerate(arms.values()):
                mean, half = interval(figures[name])
                ax.plot([i - 0.12] * len(figures[name]), figures[name], ".", color="0.6", ms=4)
                ax.errorbar([i + 0.12], [mean], [half], fmt="o", ms=5, capsize=3, color=f"C{i}")
            ax.set_xticks(range(len(arms)), arms, rotation=30, ha="right", fontsize=8)
            ax.set_ylabel({"return": "final return", "value_error": "error of V (rms)"}[name], fontsize=9)
            ax.ticklabel_format(axis="y", useOffset=False)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0, column].set_title(task.replace("_", " "), fontsize=10)
    figure.savefig(path, dpi=130)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    cli.enable_compilation_cache()
    with cli.sentences():
        unknown = set(options.tasks) - set(TASKS)
        if unknown:
            raise InputError(f"tasks = {sorted(unknown)} are none of {', '.join(TASKS)}")
        found, seeds = {}, range(options.first, options.first + options.seeds)
        options.out.mkdir(parents=True, exist_ok=True)
        for task in options.tasks:
            preset, settings, env = TASKS[task]
            config = cli.named(preset)
            config = replace(config, env=replace(config.env, **env), **settings)
            began, found[task] = time.perf_counter(), {}
            for arm in ARMS:
                found[task][arm] = measured(config, arm, seeds)
                print(f"{task}, {arm}: {time.perf_counter() - began:.0f} s", flush=True)
            told(task, found[task])
            (options.out / "truncation.json").write_text(json.dumps(found, indent=1) + "\n")
            draw(options.out / "truncation.png", found)
    print(json.dumps({"written": str(options.out), "seeds": options.seeds}))


if __name__ == "__main__":
    main()
