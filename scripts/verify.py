"""Long checks of what jaxrl claims, by name: each trains with the shipped config and holds the result to its threshold.

    scripts/run scripts/verify.py cartpole-reinforce humanoid
    scripts/run scripts/verify.py all --seeds 0 1 2

Prints a line of figures per seed and a JSON summary; ends non-zero where any seed falls short.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import tyro

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Check:
    """An experiment, the seeds it must hold for, and the least each figure may be (`most` for upper limits)."""

    command: tuple[str, ...]
    least: dict[str, float]
    most: dict[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)


def config(name: str, least: dict[str, float], **more) -> Check:
    return Check(("experiments/train.py", name), least, **more)


def sentiment(algorithm: str, direction: str) -> Check:
    least = {"gain": 0.1, "gain_low": 0.0, "vader_gain_low": 0.0}
    return Check((f"experiments/sentiment_{algorithm}.py", "--direction", direction), least, {"kl": 15})


def rewarded(preset: str, kl_target: float | None = None) -> Check:
    least, most = {"gain": 0.15, "gain_low": 0.0, "vader_gain": 0.0}, {"kl": 15}
    if kl_target:
        least, most = least | {"kl_second_half": 0.8 * kl_target}, most | {"kl_second_half": 1.2 * kl_target}
    return Check(("experiments/sentiment_rlhf.py", "--preset", f"{preset}/sentiment_cpu"), least, most)


FIVE = (0, 1, 2, 3, 4)
CHECKS = {
    "cartpole-reinforce": Check(("experiments/cartpole_reinforce.py",), {"return": 475}, {"seconds": 180}, FIVE),
    "cartpole-ppo": config("ppo/cartpole", {"return": 475}, most={"seconds": 180, "env_steps": 500_000}, seeds=FIVE),
    "cartpole-a2c": config("a2c/cartpole", {"return": 475}, most={"seconds": 180, "env_steps": 500_000}, seeds=FIVE),
    "humanoid": Check(
        ("experiments/humanoid_ppo.py", "--preset", "ppo/humanoid_cpu"),
        {"return": 3000, "forward_speed": 1.0, "episode_length": 450},
        {"train_seconds": 600},
    ),
    "acrobot-ppo": config("ppo/acrobot", {"return": -90}),
    "pendulum-ppo": config("ppo/pendulum", {"return": -200}),
    "inverted-pendulum-ppo": config("ppo/inverted_pendulum", {"return": 950}),
    # four physics steps an action: 2.5M of the agent are 10M of the physics
    "hopper-ppo": config("ppo/hopper", {"return": 1500, "forward_speed": 0.8}, most={"env_steps": 2_500_000}),
    "mountain-car-ppo": config("ppo/mountain_car_continuous", {"return": 88}),
    "acrobot-a2c": config("a2c/acrobot", {"return": -90}),
    "mountain-car-a2c": config("a2c/mountain_car_continuous", {"return": 88}),
    "acrobot-reinforce": config("reinforce/acrobot", {"return": -90}),
    "sentiment-dpo": sentiment("dpo", "positive"),
    "sentiment-dpo-negative": sentiment("dpo", "negative"),
    "sentiment-kto": sentiment("kto", "positive"),
    "sentiment-kto-negative": sentiment("kto", "negative"),
    "sentiment-reward": Check(("experiments/sentiment_reward.py",), {"accuracy": 0.72}, {"seconds": 1200}),
    "sentiment-rlhf": rewarded("rlhf", kl_target=6.0),
    "sentiment-grpo": rewarded("grpo"),
    "arithmetic-grpo": Check(("experiments/arithmetic_grpo.py",), {"reward": 0.6}, {"seconds": 900}),
    "inverted-pendulum-reinforce": config("reinforce/inverted_pendulum", {"return": 950}),
    # With extras: NEEDS="gymnasium playground" scripts/run scripts/verify.py …; LunarLander also wants Box2D.
    "hopper-v5": config("ppo/hopper_v5", {"return": 3000}),
    "halfcheetah-v5": config("ppo/halfcheetah_v5", {"return": 4000}),
    "lunar-lander": config("ppo/lunar_lander", {"return": 200}),
    "taxi": config("ppo/taxi", {"return": 6}),
    "blackjack": config("ppo/blackjack", {"return": -0.1}),
    "cartpole-balance": config("ppo/cartpole_balance", {"return": 950}),
    "pendulum-swingup": config("ppo/pendulum_swingup", {"return": 500}),
}


# Those that say themselves, by their status, whether they hold; NEEDS names the extras of the tests.
WHOLE = {
    "kills": (("-m", "pytest", "-s", "tests/runs/test_kills.py"), {"JAXRL_KILLS": "50", "NEEDS": "dev lm sentiment"}),
    "gymnasium": (("scripts/play_gymnasium.py",), {}),
}


def main(names: tyro.conf.Positional[tuple[str, ...]], seeds: tuple[int, ...] = (), out: Path | None = None) -> int:
    """Run checks by name, or `all`.

    Args:
        names: which checks.
        seeds: instead of each check's own.
        out: also write all figures to this JSON file.
    """
    unknown = set(names) - set(CHECKS) - set(WHOLE) - {"all"}
    if unknown or not names:
        print(
            f"error: unknown check {', '.join(unknown) or '(none)'}; there are {', '.join([*CHECKS, *WHOLE])} and all",
            file=sys.stderr,
        )
        return 2
    asked = [*CHECKS, *WHOLE] if "all" in names else names
    chosen = {name: CHECKS[name] for name in asked if name in CHECKS}
    results = {name: [run(name, check, seed) for seed in seeds or check.seeds] for name, check in chosen.items()}
    passed = {name: all(r["holds"] for r in found) for name, found in results.items()}
    for name in [name for name in asked if name in WHOLE]:
        command, env = WHOLE[name]
        done = subprocess.run([ROOT / "scripts" / "run", *command], cwd=ROOT, env=os.environ | env, check=False)
        passed[name] = done.returncode == 0
    if out:
        out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(passed))
    return 0 if all(passed.values()) else 1


def run(name: str, check: Check, seed: int) -> dict:
    """One seed of one check, in a process of its own, with its figures and whether they hold."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [ROOT / "scripts" / "run", *check.command, "--seed", str(seed), "--run-dir", f"{scratch}/run"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{name} seed {seed}: ended with status {done.returncode}", flush=True)
        return {"seed": seed, "holds": False}
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    figures |= figures.pop("report", {})
    figures["seconds"] = figures["train_seconds"] + figures["compile_seconds"]
    short = [f"{k} {figures[k]:.4g} < {v:g}" for k, v in check.least.items() if not figures[k] >= v]
    short += [f"{k} {figures[k]:.4g} > {v:g}" for k, v in check.most.items() if not figures[k] <= v]
    shown = (*check.least, *check.most, "return_std", "env_steps", "seconds")
    shown = "  ".join(f"{k} {figures[k]:.4g}" for k in dict.fromkeys(shown) if k in figures)
    print(f"{name} seed {seed}: {shown}  {'SHORT: ' + '; '.join(short) if short else 'holds'}", flush=True)
    return {"seed": seed, "holds": not short, **figures}


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
