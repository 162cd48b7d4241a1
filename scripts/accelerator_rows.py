"""What scripts/on_accelerator.sh measures: for each part, name of a row -> function that returns its figures.

Every row gives a dict with a `headline`, one line for a person, or raises what went wrong.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
from accelerator_lm import dpo_step, sampling

from jaxrl import PPO, EnvConfig, cli, replace, train
from jaxrl.benchmarks import CHOICES, Plan, ablate, measure
from jaxrl.benchmarks.timing import memory_of
from jaxrl.reports.rows import METRICS, TIMING, read_metrics
from jaxrl.reports.throughput import short

ROOT = Path(__file__).parent.parent
RETURNS = (2000, 5000, 8000)  # of the humanoid
Rows = dict[str, Callable[[], dict]]


@dataclasses.dataclass
class Asked:
    """How the part was called. state: the folder that is kept. minutes: of the whole part."""

    smoke: bool
    state: Path
    minutes: float
    began: float = dataclasses.field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds."""
        return self.minutes * 60 - (time.monotonic() - self.began)

    @property
    def plan(self) -> Plan:
        """How often and how long each arm is timed."""
        return Plan(2, 0.01) if self.smoke else Plan(5, 0.5)


def part_1(asked: Asked) -> Rows:
    """CartPole, small and large, and many agents; the ends of the range first."""
    sizes = (3,) if asked.smoke else (11, 17, 14, 12, 13, 15, 16)
    rows = {f"CartPole, {2**n} environments": partial(cartpole, asked, 2**n) for n in sizes}
    count, steps = (2, 1024) if asked.smoke else (2048, 500_000)
    many = {f"CartPole, {count} agents of {steps} steps": partial(agents, asked, count, steps)}
    first = next(iter(rows))
    return {first: rows.pop(first), **many, **rows}


def part_2(asked: Asked) -> Rows:
    """Physics backends, and language models."""
    backends = ("spring",) if asked.smoke else ("spring", "mjx", "positional")
    rows = {f"humanoid, {backend}": partial(humanoid, asked, backend) for backend in backends[:1]}
    for dtype in ("float32",) if asked.smoke else ("bfloat16", "float32"):
        rows[f"DPO step, {dtype}"] = partial(dpo_step, dtype, asked.smoke)
        rows[f"sampling, {dtype}"] = partial(sampling, dtype, asked.smoke)
    return rows | {f"humanoid, {backend}": partial(humanoid, asked, backend) for backend in backends[1:]}


def part_3(asked: Asked) -> Rows:
    """A whole training run."""
    return {"humanoid learns to walk": partial(walk, asked)}


def part_4(asked: Asked) -> Rows:
    """The invariants on the device, and the choices of ops/platform.py."""
    rows: Rows = {"invariants": partial(invariants, asked)}
    for n in (8,) if asked.smoke else (2048, 2**15):
        rows[f"choices, CartPole, {n} environments"] = partial(choices, asked, _cartpole(asked, n))
    if not asked.smoke:
        rows["choices, humanoid, spring"] = partial(choices, asked, _humanoid(asked, "spring"))
    return rows


PARTS = {1: part_1, 2: part_2, 3: part_3, 4: part_4}


def _cartpole(asked: Asked, num_envs: int) -> PPO:
    """PureJaxRL's settings, which its published figures are of."""
    return PPO(
        env=EnvConfig("gymnax/CartPole-v1", num_envs=num_envs),
        num_steps=128,
        learning_rate=2.5e-4,
        ent_coef=0.01,
        value_clip=0.2,
        hidden=(8,) if asked.smoke else (64, 64),
    )


def _humanoid(asked: Asked, backend: str) -> PPO:
    config = cli.named("ppo/humanoid")
    if not asked.smoke:
        return replace(config, backend=backend)
    small = replace(config, name="brax/inverted_pendulum", backend=backend, num_envs=8)
    return replace(small, num_steps=8, num_minibatches=2, num_epochs=1, hidden=(8,), critic_hidden=(8,))


def cartpole(asked: Asked, num_envs: int) -> dict:
    """Environment alone, and whole training."""
    return _rates(measure(_cartpole(asked, num_envs), plan=asked.plan._replace(names=("physics", "training"))))


def humanoid(asked: Asked, backend: str) -> dict:
    """Physics alone, and training with Brax's network sizes."""
    names = ("physics",) if asked.smoke else ("physics", "training")
    return _rates(measure(_humanoid(asked, backend), plan=asked.plan._replace(names=names)))


def _rates(rows: list[dict]) -> dict:
    if all("left_out" in row for row in rows):
        raise RuntimeError(rows[0]["left_out"])
    return {"headline": "; ".join(map(_told, rows)), "arms": rows}


def _told(row: dict) -> str:
    if "left_out" in row:
        return f"{row['arm']} left out: {row['left_out']}"
    rate = f"{short(row['median'])} steps/s ({short(row['min'])} … {short(row['max'])})"
    cost = f"compile {row['compile_seconds']:.0f} s, first update {row['first_update_seconds']:.2f} s"
    of_floor = f"{row['of_floor']:.0%} of what its floor allows, " if "floor" in row else ""
    return f"{row['arm']} {rate}, {of_floor}{cost}"


def agents(asked: Asked, count: int, steps: int) -> dict:
    """Seeds trained side by side by vmap, the whole of it timed: PureJaxRL needs 98 s for 2048 × 500,000 steps on an
    A100."""
    config = _cartpole(asked, 4)
    config = replace(config, total_steps=steps // 512 * 512)
    keys = jax.random.split(jax.random.key(0), count)
    began = time.perf_counter()
    program = jax.jit(jax.vmap(train, (None, 0))).lower(config, keys).compile()
    compiled = time.perf_counter()
    returns = jax.block_until_ready(program(config, keys))[1]["episode_return"]
    seconds = time.perf_counter() - compiled
    last = jnp.sum(returns.total[:, -10:], 1) / jnp.maximum(jnp.sum(returns.count[:, -10:], 1), 1)
    figures = {
        "train_seconds": seconds,
        "compile_seconds": compiled - began,
        "steps_per_second": count * config.total_steps / seconds,
        "memory_bytes": sum(memory_of(program)),
        "final_return": float(jnp.mean(last)),
    }
    told = f"{seconds:.1f} s, {short(figures['steps_per_second'])} steps/s, mean return {figures['final_return']:.0f}"
    return {"headline": f"{told}, compile {compiled - began:.0f} s", **figures}


def walk(asked: Asked) -> dict:
    """experiments/humanoid_ppo.py until it ends or the time is up; called again it goes on from its last checkpoint."""
    folder, began = asked.state / "humanoid", time.perf_counter()
    small = "--preset ppo/humanoid_cpu --name brax/inverted_pendulum --total-steps 512 --num-envs 8 --num-steps 16"
    small += " --num-minibatches 2 --hidden 8 --eval-episodes 2 --time-limit 20 --evals 2 --logs 2 --saves 2"
    command = [sys.executable, str(ROOT / "experiments/humanoid_ppo.py")]
    command += small.split() if asked.smoke else ["--evals", "25", "--logs", "100", "--saves", "50"]
    command += ["--run-dir", str(folder)]
    command += ["--resume"] if (folder / "run.json").is_file() else []
    log = asked.state / "humanoid.log"
    with log.open("a") as file:
        status = _status(command, file, asked.left() - 20)
    figures = curve(folder) | {"session_seconds": time.perf_counter() - began}
    if status == "failed":
        end = log.read_text().strip().splitlines()[-1:] or ["nothing said"]
        reason = f"{end[0][:200]} (humanoid.log); {figures.pop('headline')}"
        return {"status": "failed", "reason": reason, **figures}
    return {"status": status, **figures}


def _status(command: list[str], file, seconds: float) -> str:
    """done, failed, or unfinished: stopped because the time was up."""
    try:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, timeout=max(30, seconds))
    except subprocess.TimeoutExpired:
        return "unfinished"
    return "failed" if done.returncode else "done"


def curve(folder: Path) -> dict:
    """Seconds of training until each return was first evaluated, and how far the run has come."""
    seconds = {row["step"]: row["train_seconds"] for row in read_metrics(folder / TIMING)}
    seen = [row for row in read_metrics(folder / METRICS) if row.get("eval_return") is not None]
    points = [(row["step"], seconds.get(row["step"]), row["eval_return"]) for row in seen]
    reached = {}
    for wanted in RETURNS:
        first = next((point for point in points if point[2] >= wanted), None)
        reached[str(wanted)] = None if first is None else {"step": first[0], "train_seconds": first[1]}
    told = [f"{name} after {at['train_seconds']:.0f} s" for name, at in reached.items() if at] or ["still low"]
    best = f"best {max(p[2] for p in points):.0f}, at step {points[-1][0]:,}" if points else "no evaluation yet"
    return {"headline": f"return {', '.join(told)}; {best}", "reached": reached, "curve": points}


def invariants(asked: Asked) -> dict:
    """The tests that are marked `device`, in full precision: the properties that must hold on any hardware."""
    files = [str(p) for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.device" in p.read_text()]
    chosen = ["-k", "gae_by_hand"] if asked.smoke else []
    report = asked.state / "invariants.log"
    command = [sys.executable, "-m", "pytest", "-m", "device", "-p", "no:cacheprovider", "--tb=short", *chosen, *files]
    env = {"XLA_FLAGS": "", **os.environ, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # compiled as users compile
    with report.open("w") as file:
        seconds = max(60, asked.left() - 20)
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=env, timeout=seconds)
    lines = report.read_text().strip().splitlines()
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if done.returncode:
        return {"status": "failed", "reason": f"{lines[-1]} (invariants.log)", "failures": failures}
    return {"headline": lines[-1]}


def choices(asked: Asked, config: PPO) -> dict:
    """Each choice against its alternative."""
    fields = ("shuffle",) if asked.smoke else tuple(CHOICES)
    rows = ablate(config, plan=asked.plan, fields=fields)
    told = []
    for row in rows:
        ratio = f" {row['ratio']['median']:.3f} (again {row['repeat']['median']:.3f})" if "ratio" in row else ""
        told.append(f"{row['field']} {row['alternative']} / {row['default']}:{ratio} {row['verdict']}")
    return {"headline": "; ".join(told), "choices": json.loads(json.dumps(rows))}
