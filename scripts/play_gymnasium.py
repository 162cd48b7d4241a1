"""Trains in gymnax and plays in Gymnasium: policies of the shipped configs, exported, and played by the NumPy runner in
a process that cannot import JAX. Each must do in Gymnasium what it does in gymnax.

    scripts/run scripts/play_gymnasium.py
    scripts/run scripts/play_gymnasium.py ppo/pendulum --seeds 0 1 2 3 4

Prints a line per run and a JSON summary; ends non-zero where CartPole is below 475, or another's mean over all seeds is
further from its score in gymnax than 10 %.
"""

# needs: dev
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

import jaxrl
from jaxrl.cli.experiment import enable_compilation_cache, named
from jaxrl.runs.loading import load_run

LEAST = {"ppo/cartpole": 475.0}
SHARE = 0.1
ALONE = "import runpy, sys; sys.modules.update(jax=None, jaxlib=None, flax=None, jaxrl=None); sys.argv = sys.argv[1:]; "
ALONE += "runpy.run_path(sys.argv[0], run_name='__main__')"
_LINE = "{config} seed {seed}: gymnax {gymnax:.2f} ± {gymnax_stderr:.2f}, "
_LINE += "Gymnasium {gymnasium:.2f} ± {gymnasium_stderr:.2f}"


def main(
    configs: tyro.conf.Positional[tuple[str, ...]] = ("ppo/cartpole", "ppo/pendulum", "ppo/acrobot"),
    seeds: tuple[int, ...] = (0, 1, 2),
    episodes: int = 100,
) -> int:
    """Train, export, play and compare.

    Args:
        configs: Names of shipped configs.
        seeds: Of training.
        episodes: To play in Gymnasium, per seed; ten times as many in gymnax, side by side.
    """
    enable_compilation_cache()
    found = {name: [one(name, seed, episodes) for seed in seeds] for name in configs}
    verdicts = {name: verdict(name, figures) for name, figures in found.items()}
    print(json.dumps(verdicts))
    return 0 if all(v["holds"] for v in verdicts.values()) else 1


def one(name: str, seed: int, episodes: int) -> dict[str, Any]:
    """The returns of one trained policy in both, with their standard errors."""
    with tempfile.TemporaryDirectory() as scratch:
        run_dir, folder = Path(scratch) / "run", Path(scratch) / "policy"
        jaxrl.run(named(name), seed, run_dir, progress=False)
        jaxrl.export(run_dir, folder)
        there, here = in_gymnasium(folder, episodes, seed * episodes), in_gymnax(run_dir, seed, 10 * episodes)
    figures = {
        "config": name,
        "seed": seed,
        "gymnax": here.mean().item(),
        "gymnax_stderr": here.std().item() / math.sqrt(len(here)),
        "gymnasium": there["return"],
        "gymnasium_stderr": there["return_std"] / math.sqrt(episodes),
    }
    print(_LINE.format(**figures), flush=True)
    return figures


def in_gymnax(run_dir: Path, seed: int, episodes: int) -> np.ndarray:
    """Returns of whole episodes, as evaluation plays them."""
    loaded = load_run(run_dir)
    env, algorithm = loaded.saved.config.env, loaded.program.algorithm
    played = jax.jit(lambda learner, key: jaxrl.evaluate(env, algorithm, learner, key, num_episodes=episodes))
    return np.asarray(played(loaded.state.learner, jax.random.key(seed)).episode_return, np.float64)


def in_gymnasium(folder: Path, episodes: int, seed: int = 0) -> dict[str, Any]:
    """What play.py says, in a process without JAX. seed: of the first episode; each further one has the next."""
    name = json.loads((folder / "policy.json").read_text())["env"]["gymnasium"]
    command = [sys.executable, "-c", ALONE, "play.py", name, str(episodes), str(seed)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def verdict(name: str, figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether it holds. CartPole's threshold is for every seed; a mean return over few random starts is not that exact,
    hence over all seeds.
    """
    here, there = (float(np.mean([f[where] for f in figures])) for where in ("gymnax", "gymnasium"))
    off = abs(there - here) / abs(here)
    least = min(f["gymnasium"] for f in figures)
    holds = off <= SHARE if name not in LEAST else least >= LEAST[name]
    return {"gymnax": here, "gymnasium": there, "difference": off, "least": least, "holds": holds}


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
