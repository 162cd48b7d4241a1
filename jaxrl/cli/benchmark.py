"""jaxrl bench: how fast it is here, and how far from what this machine allows."""

import json
import os
import time
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from jaxrl.algorithms import PPO
from jaxrl.benchmarks import CHOICES, Plan, ablate, measure
from jaxrl.benchmarks.arms import ARMS
from jaxrl.cli.experiment import named
from jaxrl.reports.throughput import short, throughput_picture
from jaxrl.runs.header import machine
from jaxrl.settings import EnvConfig, check, replace
from jaxrl.training import takes
from jaxrl.types import InputError


def bench(
    *,
    envs: tuple[str, ...] = ("gymnax/CartPole-v1",),
    num_envs: tuple[int, ...] = (),
    agents: tuple[int, ...] = (1,),
    arms: tuple[str, ...] = ARMS,
    config: str = "",
    backend: str | None = None,
    rounds: int = 7,
    seconds: float = 0.5,
    ablate: bool = False,
    fields: tuple[str, ...] = tuple(CHOICES),
    quick: bool = False,
    out: Path = Path("runs/bench"),
) -> None:
    """Environment steps per second of physics alone, acting, rollouts and training, and "at most": this physics, and
    operations and bytes at the speed at which this machine multiplies and copies. Where a config repeats actions, a
    step is one of the agent's.

    "compile s": wall time of compiling an arm as `run` compiles; "first s": of its first update. Arms are compiled
    ahead and take turns. A size that does not fit into memory is left out, with the reason. Writes bench.json and
    bench.png.

    Args:
        envs: Environments.
        num_envs: Copies side by side; by default 8 and 4096 on CPU, 2^11 to 2^17 on an accelerator.
        agents: Agents trained side by side by vmap.
        arms: Of physics, acting, rollout and training; without physics there is no "at most".
        config: A config whose settings to use, such as ppo/humanoid_cpu; by default PPO's own.
        backend: Physics backend of Brax.
        rounds: Timed calls of each arm, in turns.
        seconds: Aimed at per call.
        ablate: Instead, measure each choice that is made by platform against its alternatives.
        fields: The choices to ablate.
        quick: Small and short, to see that it works: at most 64 environments and 2 rounds.
        out: The folder to write to.
    """
    default = (8, 4096) if jax.default_backend() == "cpu" else tuple(2**n for n in range(11, 18))
    num_envs, plan = num_envs or default, Plan(rounds, seconds, arms)
    if quick:
        num_envs = tuple(dict.fromkeys(min(n, 64) for n in num_envs))
        plan = plan._replace(rounds=min(rounds, 2), seconds=min(seconds, 0.02))
    plan.check()
    if not envs:
        raise InputError("envs = () names no environment; give at least one, as in --envs brax/humanoid")
    if backend and not any(name.startswith("brax/") for name in envs):
        raise InputError(f"backend = {backend!r} is for brax/... and none of envs = {envs} is; leave it out")
    if out.exists() and not out.is_dir():
        raise InputError(f"out = {out} is a file; name a folder")
    settings = [(setting(config, name, n, backend), m) for name in envs for n in num_envs for m in agents]
    console, about = Console(), surroundings()
    if not console.is_terminal:  # a log has room
        console.width = 140
    console.print(", ".join(f"{k} {v}" for k, v in about.items()), style="dim")
    figures = (_ablation if ablate else _throughput)(console, settings, plan, fields, about, out)
    print(json.dumps({"figures": str(figures)}))


def setting(config: str, name: str, num_envs: int, backend: str | None) -> PPO:
    """A config on `num_envs` copies of an environment. Raises InputError for one that cannot be."""
    base = named(config) if config else PPO(env=EnvConfig(name, resets="pool"), num_steps=16)
    if "env" not in takes(base):
        raise InputError(f"config = {config} learns from data; name one that acts, such as ppo/cartpole")
    backend = backend or base.env.backend or "spring"
    backend = backend if name.startswith("brax/") else None
    made = replace(base, env=replace(base.env, name=name, backend=backend, num_envs=num_envs))
    check(made)
    return made


def surroundings() -> dict:
    """What figures depend on: machine and versions, precision of matrix products, load, date."""
    precision = jax.config.jax_default_matmul_precision or "default"
    return {**machine(), "precision": precision, "load": round(os.getloadavg()[0], 2), "date": time.strftime("%F")}


def _throughput(console: Console, settings: list, plan: Plan, _: tuple, about: dict, out: Path) -> Path:
    rows = []
    for config, agents in settings:
        with console.status(f"{config.env.name}, {config.env.num_envs} environments, {agents} agents"):
            rows += measure(config, agents, plan)
    console.print(throughput_table(rows, f"{about['devices']} × {about['device']}"))
    for row in rows:
        if "left_out" in row:
            console.print(f"left out: {row['env']}, {row['num_envs']:,} environments, {row['arm']}: {row['left_out']}")
    figures = _write(console, out, "bench.json", {"machine": about, "rows": rows})
    title = f"{about['device']} × {about['devices']}, JAX {about['jax']}, {about['date']}"
    if any("median" in row for row in rows):
        console.print(f"picture     {throughput_picture(out / 'bench.png', rows, title)}")
    return figures


def throughput_table(rows: list[dict], title: str) -> Table:
    """Rows of `measure` for a person."""
    table = Table(title=title)
    for name in (
        "environment",
        "envs",
        "agents",
        "arm",
        "steps/s (min … max)",
        "compile s",
        "first s",
        "at most",
        "of it",
    ):
        table.add_column(name, justify="left" if name in ("environment", "arm") else "right", no_wrap=True)
    for row in rows:
        env = f"{row['env']} ({row['backend']})" if row["backend"] else row["env"]
        cells = [env, f"{row['num_envs']:,}", str(row["agents"]), row["arm"]]
        if "median" in row:
            cells += [f"{short(row['median'])} ({short(row['min'])} … {short(row['max'])})"]
            cells += [f"{row['compile_seconds']:.1f}", f"{row['first_update_seconds']:.3f}"]
            cells += [short(row["floor"]), f"{row['of_floor']:.0%}"] if "floor" in row else []
        else:
            cells += ["left out"]
        table.add_row(*cells)
    return table


def _ablation(console: Console, settings: list, plan: Plan, fields: tuple, about: dict, out: Path) -> Path:
    rows = []
    for config, agents in settings:
        with console.status(f"{config.env.name}, {config.env.num_envs} environments, {agents} agents"):
            rows += ablate(config, agents, plan, fields)
    console.print(ablation_table(rows, f"{about['devices']} × {about['device']}: training time, alternative / default"))
    return _write(console, out, "ablation.json", {"machine": about, "rows": rows})


def ablation_table(rows: list[dict], title: str) -> Table:
    """Rows of `ablate` for a person."""
    names = ("environment", "envs", "agents", "choice", "default", "alternative", "ratio", "default again", "verdict")
    table = Table(*names, title=title)
    for row in rows:
        cells = [row["env"], f"{row['num_envs']:,}", row["agents"], row["field"], row["default"], row["alternative"]]
        cells += [_ratio(row.get(name)) for name in ("ratio", "repeat")]
        table.add_row(*map(str, cells), row.get("left_out", row["verdict"]))
    return table


def _ratio(found: dict | None) -> str:
    return f"{found['median']:.3f} ({found['min']:.3f} … {found['max']:.3f})" if found else ""


def _write(console: Console, out: Path, name: str, figures: dict) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"figures     {out / name}")
    return out / name
