"""Environment steps per second: of physics alone, of acting, of rollouts, and of full PPO training.

    scripts/run scripts/benchmark.py
    scripts/run scripts/benchmark.py --envs gymnax/CartPole-v1 --num-envs 4096 --agents 1 8
    scripts/run scripts/benchmark.py --envs brax/humanoid --backend spring --num-envs 256 --config ppo/humanoid_cpu

physics   random actions, resets included
acting    the policy network samples actions in the same environments
rollout   acting, and every transition stored as the learner wants it
training  whole updates: rollout, advantages, epochs of gradient steps
Each arm is compiled ahead and timed apart from that; arms are interleaved, and every output depends on every step, so
that nothing can be left out. The median over rounds is reported with the spread.
"""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jaxrl import PPO, EnvConfig, cli, replace
from jaxrl.envs.registry import from_config
from jaxrl.runs.directory import machine
from jaxrl.training.programs import program


@dataclass
class Options:
    """What to measure."""

    envs: tuple[str, ...] = ("gymnax/CartPole-v1",)
    """Environments."""
    num_envs: tuple[int, ...] = (8, 4096)
    """Numbers of environments side by side."""
    agents: tuple[int, ...] = (1,)
    """Numbers of agents trained side by side by vmap."""
    config: str = ""
    """A PPO config whose settings to use, such as ppo/humanoid_cpu; by default PPO's own."""
    backend: str | None = None
    """Physics backend of Brax."""
    rounds: int = 7
    """Timed rounds of each arm."""
    seconds: float = 0.5
    """Aimed at per timed call; its number of updates is chosen once to fit."""
    out: Path = Path("runs/benchmark.json")
    """Where the figures go."""


def arms(config: PPO) -> dict[str, Callable]:
    """name -> (config, key, updates) -> a scalar that depends on every step of `updates` rollouts' worth of work."""
    p, env = program(config), from_config(config.env)

    def loop(init, body):
        def work(config, key, updates):
            k_init, key = jax.random.split(key)
            final = jax.lax.fori_loop(0, updates, lambda i, c: body(jax.random.fold_in(key, i), c), init(k_init))
            return sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(final) if jnp.issubdtype(x.dtype, jnp.floating))

        return work

    def steps(key, carry, act):
        def step(carry, key):
            (state, obs, paid), (k_act, k_env) = carry, jax.random.split(key)
            state, obs, result = env.step(k_env, state, act(k_act, obs))
            return (state, obs, paid + jnp.sum(result.reward) + jnp.sum(result.terminated)), None

        state, obs, paid = carry
        state = env.refresh(key, state)
        return jax.lax.scan(step, (state, obs, paid), jax.random.split(key, config.num_steps))[0]

    def random_action(key, obs):
        return jax.vmap(env.action_space.sample)(jax.random.split(key, env.num_envs))

    def start(key):
        return (*env.reset(key), jnp.zeros(()))

    def physics(key, carry):
        return steps(key, carry, random_action)

    def acting(key, carry):
        learner, rest = carry

        def act(key, obs):
            distribution = p.algorithm.policy(learner, (), obs, jnp.zeros(env.num_envs, bool))[1]
            return distribution.env_action(distribution.sample(key))

        return learner, steps(key, rest, act)

    def rollout(key, carry):
        learner, source_carry, paid = carry
        source_carry, batch = p.source.collect(key, learner, source_carry)
        stored = sum(jnp.sum(x) for x in jax.tree.leaves(batch._replace(info={})) if x.dtype == jnp.float32)
        return learner, source_carry, paid + stored

    def training(key, carry):
        return p.step(carry)[0]

    return {
        "physics": loop(start, physics),
        "acting": loop(lambda key: (p.algorithm.init(key), start(key)), acting),
        "rollout": loop(lambda key: (p.algorithm.init(key), p.source.init(key), jnp.zeros(())), rollout),
        "training": loop(p.init, training),
    }


def measure(config: PPO, agents: int, options: Options) -> list[dict]:
    """Figures of every arm for one setting."""
    keys = jax.random.split(jax.random.key(0), agents)
    per_update = config.env.num_envs * config.num_steps * agents
    found, compiled = {}, {}
    for name in arms(config):
        work = jax.jit(jax.vmap(lambda c, k, n, name=name: arms(c)[name](c, k, n), (None, 0, None)))
        began = time.perf_counter()
        compiled[name] = work.lower(config, keys, jnp.int32(1)).compile()
        found[name] = {"arm": name, "compile_seconds": time.perf_counter() - began, "times": []}
    counts = {name: updates_for(lambda n, f=f: f(config, keys, n), options.seconds) for name, f in compiled.items()}
    for _ in range(options.rounds):
        for name, f in compiled.items():
            found[name]["times"].append(timed(lambda f=f, name=name: f(config, keys, jnp.int32(counts[name]))))
    rows = []
    for name, row in found.items():
        rates = per_update * counts[name] / np.asarray(row.pop("times"))
        setting = {"env": config.env.name, "num_envs": config.env.num_envs, "agents": agents, **row}
        rows.append(
            {**setting, "median": float(np.median(rates)), "min": rates.min().item(), "max": rates.max().item()}
        )
    return rows


def timed(call: Callable) -> float:
    began = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - began


def updates_for(call: Callable, seconds: float) -> int:
    """Updates that take about `seconds`, from a first call that also warms up."""
    timed(lambda: call(jnp.int32(1)))
    return max(1, round(seconds / max(timed(lambda: call(jnp.int32(1))), 1e-6)))


def setting(options: Options, name: str, num_envs: int) -> PPO:
    """PPO on `num_envs` copies of an environment, long enough that annealing does not end while it is timed."""
    base = cli.named(options.config) if options.config else PPO(env=EnvConfig(name, resets="pool"), num_steps=16)
    backend = options.backend or base.env.backend or ("spring" if name.startswith("brax/") else None)
    config = replace(base, env=replace(base.env, name=name, backend=backend, num_envs=num_envs))
    rollout = num_envs * config.num_steps
    return replace(config, total_steps=(2**31 - 1) // rollout * rollout)


def main(options: Options) -> None:
    """Measure, show the table, write the JSON."""
    console = Console()
    about = {**machine(), "load": os.getloadavg()[0], "python": platform.python_version(), "date": time.strftime("%F")}
    console.print(", ".join(f"{k} {v}" for k, v in about.items()))
    table = Table("environment", "envs", "agents", "arm", "steps/s", "spread", "compile s")
    rows = []
    for name in options.envs:
        for num_envs in options.num_envs:
            for agents in options.agents:
                rows += measure(setting(options, name, num_envs), agents, options)
    for row in rows:
        spread = f"{row['min']:,.0f} … {row['max']:,.0f}"
        cells = (row["env"], row["num_envs"], row["agents"], row["arm"], f"{row['median']:,.0f}", spread)
        table.add_row(*map(str, cells), f"{row['compile_seconds']:.1f}")
    console.print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")
    console.print(f"figures     {options.out}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
