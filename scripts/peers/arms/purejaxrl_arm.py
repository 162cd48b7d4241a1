"""PureJaxRL's arm: `make_train(config)` of its purejaxrl/ppo.py, from a checkout, as it stands.

Its wrappers import `navix`, which CartPole does not need: an empty module stands in where it is not installed.
"""

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from worker import serve


def prepare(question: dict) -> Callable[[int], dict]:
    """call(seed) trains from scratch: "speed" keeps only the final state, so that XLA drops the metrics of all steps;
    "return" is the mean return of the episodes that ended in the last tenth of the updates."""
    if importlib.util.find_spec("navix") is None:
        sys.modules["navix"] = types.ModuleType("navix")
    sys.path.insert(0, str(Path(question["checkout"]) / "purejaxrl"))
    from ppo import make_train

    updates, agents = question["updates"], question["agents"]
    config = config_of(question["settings"], question["num_envs"], updates)
    train, key = make_train(config), jax.random.PRNGKey(0)
    if question["measure"] == "return":
        work = jax.jit(lambda key: ended(train(key)["metrics"], updates // 10))
        return lambda seed: {"return": float(work(jax.random.PRNGKey(seed)))}

    def work(key):
        return train(key)["runner_state"]

    work, keys = (jax.vmap(work), jax.random.split(key, agents)) if agents > 1 else (work, key)
    compiled = jax.jit(work).lower(keys).compile()

    def call(seed: int) -> dict:
        key = jax.random.PRNGKey(seed)
        jax.block_until_ready(compiled(jax.random.split(key, agents) if agents > 1 else key))
        return {"steps": config["TOTAL_TIMESTEPS"] * agents}

    return call


def config_of(settings: dict, num_envs: int, updates: int) -> dict:
    """The settings that all arms share, in PureJaxRL's names."""
    return {
        "ENV_NAME": "CartPole-v1",
        "NUM_ENVS": num_envs,
        "NUM_STEPS": settings["num_steps"],
        "TOTAL_TIMESTEPS": updates * num_envs * settings["num_steps"],
        "UPDATE_EPOCHS": settings["num_epochs"],
        "NUM_MINIBATCHES": settings["num_minibatches"],
        "LR": settings["learning_rate"],
        "ANNEAL_LR": True,
        "GAMMA": settings["gamma"],
        "GAE_LAMBDA": settings["gae_lambda"],
        "CLIP_EPS": settings["clip_eps"],  # of the value loss as well
        "ENT_COEF": settings["ent_coef"],
        "VF_COEF": settings["vf_coef"],
        "MAX_GRAD_NORM": settings["max_grad_norm"],
        "ACTIVATION": "tanh",
        "DEBUG": False,
    }


def ended(metrics: dict, last: int) -> jax.Array:
    """Mean return of the episodes that ended in the last updates."""
    done, returns = metrics["returned_episode"][-last:], metrics["returned_episode_returns"][-last:]
    return jnp.sum(returns * done) / jnp.sum(done)


if __name__ == "__main__":
    serve(prepare)
