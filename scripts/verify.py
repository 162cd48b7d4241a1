"""Long checks of what jaxrl claims, by name: each trains with the shipped config and holds the result to its threshold.

    scripts/run scripts/verify.py cartpole-reinforce humanoid
    scripts/run scripts/verify.py --all --seeds 5000 5001 5002 --out runs/verify.json

Prints a line of figures per seed and a JSON summary; ends non-zero where any seed falls short. What has ended is kept
in --out, with the revision that it is of: the same command goes on with the rest, and begins again where the code is
another.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from jaxrl.runs.header import git_revision

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


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    all: bool = False,
    seeds: tuple[int, ...] = (),
    out: Path | None = None,
) -> int:
    """Run checks by name, or all.

    Args:
        names: which checks.
        all: every one of them. Hours.
        seeds: instead of each check's own.
        out: a JSON file to keep all figures in, and to go on from.
    """
    unknown = set(names) - set(CHECKS) - set(WHOLE)
    if unknown or not (names or all):
        there = ", ".join([*CHECKS, *WHOLE])
        print(f"error: unknown check {', '.join(unknown) or '(none)'}; there are {there}, and --all", file=sys.stderr)
        return 2
    asked, kept = [*CHECKS, *WHOLE] if all else names, Kept(out)
    passed = {}
    for name in [name for name in asked if name in CHECKS]:
        check = CHECKS[name]
        found = [kept.get(f"{name} {seed}", lambda: run(name, check, seed)) for seed in seeds or check.seeds]  # noqa: B023
        passed[name] = not [figures for figures in found if not figures["holds"]]
    for name in [name for name in asked if name in WHOLE]:
        passed[name] = kept.get(name, lambda: whole(name))["holds"]  # noqa: B023
    print(json.dumps(passed))
    return 1 if False in passed.values() else 0


class Kept:
    """What has ended, in a file, of one revision of the code."""

    def __init__(self, file: Path | None):
        self.file, self.found = file, {"revision": git_revision()}
        if file is not None and file.is_file():
            before = json.loads(file.read_text())
            if before["revision"] == self.found["revision"]:
                self.found = before

    def get(self, name: str, made: Callable[[], dict]) -> dict:
        """What is kept under a name, or else is made now. What did not end is made again."""
        if not self.found.get(name, {}).get("ended"):
            self.found[name] = made()
            if self.file is not None:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self.file.write_text(json.dumps(self.found, indent=1) + "\n")
        return self.found[name]


def whole(name: str) -> dict:
    """A check that says itself whether it holds."""
    command, env = WHOLE[name]
    done = subprocess.run([ROOT / "scripts" / "run", *command], cwd=ROOT, env=os.environ | env, check=False)
    return {"ended": done.returncode in (0, 1), "holds": done.returncode == 0}


def run(name: str, check: Check, seed: int) -> dict:
    """One seed of one check, in a process of its own, with its figures and whether they hold."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [ROOT / "scripts" / "run", *check.command, "--seed", str(seed), "--run-dir", f"{scratch}/run"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(f"{name} seed {seed}: ended with status {done.returncode}", flush=True)
        return {"seed": seed, "ended": False, "holds": False}
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    figures |= figures.pop("report", {})
    figures["seconds"] = figures["train_seconds"] + figures["compile_seconds"]
    short = [f"{k} {figures[k]:.4g} < {v:g}" for k, v in check.least.items() if not figures[k] >= v]
    short += [f"{k} {figures[k]:.4g} > {v:g}" for k, v in check.most.items() if not figures[k] <= v]
    shown = (*check.least, *check.most, "return_std", "env_steps", "seconds")
    shown = "  ".join(f"{k} {figures[k]:.4g}" for k in dict.fromkeys(shown) if k in figures)
    print(f"{name} seed {seed}: {shown}  {'SHORT: ' + '; '.join(short) if short else 'holds'}", flush=True)
    return {"seed": seed, "ended": True, "holds": not short, **figures}


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
