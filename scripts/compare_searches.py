"""Random search, successive halving and population-based training at equal environment steps.

    scripts/run scripts/compare_searches.py
    scripts/run scripts/compare_searches.py --tasks gymnax/Acrobot-v1 --repetitions 10

PPO with four settings drawn from wide ranges. Random search trains 8 configurations to the end, population-based
training a population of 8; halving starts 72 and keeps a third at each of three rungs, which is 8.2 trainings. What
each search has found is the agent that it ranks first, played anew for 512 episodes. Each repetition draws other
settings.
"""

import json
import tempfile
from pathlib import Path

import jax
import numpy as np
import tyro

from jaxrl import PPO, EnvConfig, Plan, Schedule, evaluate, sweep
from jaxrl.reports.statistics import interquartile_mean, interval, probability_of_improvement
from jaxrl.sweeps import load_member

FIELDS = {
    "learning_rate": "log:1e-5:1e-1",
    "gae_lambda": "lin:.8:1",
    "ent_coef": "log:1e-5:1e-1",
    "clip_eps": "lin:.05:.4",
}
METHODS = {"random": 8, "pbt": 8, "halving": 72}
_EPISODES = 512


def main(
    tasks: tuple[str, ...] = ("gymnax/Acrobot-v1", "gymnax/MountainCar-v0"),
    repetitions: int = 5,
    total_steps: int = 221_184,
    first: int = 0,
) -> None:
    """Compare.

    Args:
        tasks: environments.
        repetitions: of each search.
        total_steps: of one training.
        first: the first of the seeds that settings are drawn with.
    """
    found = {}
    for task in tasks:
        env = EnvConfig(task, num_envs=16)
        config = PPO(env=env, num_steps=128, num_minibatches=8, normalize_obs=True, total_steps=total_steps)
        scores = {method: [] for method in METHODS}
        for seed in range(first, first + repetitions):
            for method in METHODS:
                scores[method].append(searched(config, method, seed))
            print(task, seed, {method: round(own[-1], 1) for method, own in scores.items()}, flush=True)
        found[task] = {method: told(own, scores["random"]) for method, own in scores.items()}
    print(json.dumps(found))


def searched(config: PPO, method: str, seed: int) -> float:
    """The return of the agent that a search has found."""
    plan = Plan(method=method, samples=METHODS[method], search_seed=seed, schedule=Schedule(logs=1, evals=1, saves=1))
    with tempfile.TemporaryDirectory() as scratch:
        result = sweep(config, FIELDS, plan, Path(scratch) / "sweep", progress=False)
        member = load_member(result.run_dir)
    algorithm = member.program.algorithm
    play = jax.jit(
        lambda learner, key: evaluate(config.env, algorithm, learner, key, num_episodes=_EPISODES).episode_return.mean()
    )
    return float(play(member.state.learner, jax.random.key(seed + 10_000)))


def told(own: list[float], of_random: list[float]) -> dict:
    """Each, the interquartile mean with its interval, and the probability of beating random search."""
    value, low, high = interval(np.array(own), statistic=interquartile_mean)
    better = probability_of_improvement(np.array(own), np.array(of_random))
    return {"each": own, "iqm": value, "interval": [low, high], "beats random": list(map(float, better))}


if __name__ == "__main__":
    tyro.cli(main)
