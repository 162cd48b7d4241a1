"""Brax's arm: its PPO on the humanoid with the settings of its notebook, or the physics alone.

`jax.device_put_replicated`, which its training calls, is gone from JAX: one line stands in.
"""

import threading
from collections.abc import Callable
from queue import Queue

import jax
import jax.numpy as jnp
from worker import serve

jax.device_put_replicated = lambda tree, devices: jax.tree.map(
    lambda x: jnp.broadcast_to(x, (len(devices), *jnp.shape(x))), tree
)

from brax import envs  # noqa: E402
from brax.training.agents.ppo.train import train  # noqa: E402


def prepare(question: dict) -> Callable[[int], dict]:
    """See compare.py for what is asked."""
    return {"physics": physics, "speed": training, "return": training}[question["measure"]](question)


def training(question: dict) -> Callable[[int], dict]:
    """Each call runs the training on by `epoch` updates; for "return" it also evaluates 128 episodes.

    The training is one call of Brax's; it waits in a thread of its own between two calls. For "speed" its first
    epoch, which compiles, is over when this returns.
    """
    asked, told = Queue(), Queue()
    evaluating, settings = question["measure"] == "return", question["settings"]
    per_update = settings["batch_size"] * settings["num_minibatches"] * settings["unroll_length"]

    def progress(steps: int, metrics: dict) -> None:
        found = {"return": float(metrics["eval/episode_reward"])} if evaluating else {}
        told.put({"steps": per_update * question["epoch"], "total_steps": int(steps), **found})
        asked.get()

    def work() -> None:
        asked.get()
        try:
            train(
                envs.get_environment("humanoid", backend=question["backend"]),
                num_timesteps=per_update * question["epoch"] * question["epochs"],
                num_evals=question["epochs"] + 1,
                run_evals=evaluating,
                episode_length=1000,
                progress_fn=progress,
                seed=question["seed"],
                **settings,
            )
        except Exception as error:
            told.put(error)
        told.put(RuntimeError("the training has ended"))

    def call(_: int) -> dict:
        asked.put(None)
        found = told.get()
        if isinstance(found, Exception):
            raise found
        return found

    threading.Thread(target=work, daemon=True).start()
    if not evaluating:
        call(0)
    return call


def physics(question: dict) -> Callable[[int], dict]:
    """call(seed) takes `length` steps in every environment with random actions, resets included."""
    env = envs.get_environment("humanoid", backend=question["backend"])
    env, size = envs.training.wrap(env, episode_length=1000), (question["num_envs"], env.action_size)

    def step(carry, key):
        state, paid = carry
        state = env.step(state, jax.random.uniform(key, size, minval=-1.0, maxval=1.0))
        return (state, paid + jnp.sum(state.reward) + jnp.sum(state.obs)), None

    @jax.jit
    def work(key):
        k_reset, key = jax.random.split(key)
        start = (env.reset(jax.random.split(k_reset, question["num_envs"])), jnp.zeros(()))
        return jax.lax.scan(step, start, jax.random.split(key, question["length"]))[0]

    compiled = work.lower(jax.random.PRNGKey(0)).compile()

    def call(seed: int) -> dict:
        jax.block_until_ready(compiled(jax.random.PRNGKey(seed)))
        return {"steps": question["length"] * question["num_envs"]}

    return call


if __name__ == "__main__":
    serve(prepare)
