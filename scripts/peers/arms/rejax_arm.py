"""rejax's arm: its PPO, from an empty state to the last update, without its evaluation.

What differs from the other arms and cannot be set: gradients are clipped elementwise, actor and critic have an
optimiser each, Adam's ε is 1e-8, and the layers are initialised as Flax does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from rejax import PPO
from worker import serve


class Ended:
    """An environment that also counts the episodes that ended, and sums their returns."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        if name.startswith("__") or name == "env":  # asked of a copy that is not yet filled
            raise AttributeError(name)
        return getattr(self.env, name)

    def reset(self, key, params):
        obs, state = self.env.reset(key, params)
        return obs, (state, jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))

    def step(self, key, state, action, params):
        state, running, total, count = state
        obs, state, reward, done, info = self.env.step(key, state, action, params)
        running = running + reward
        total, count = total + running * done, count + done
        return obs, (state, running * (1 - done), total, count), reward, done, info


def prepare(question: dict) -> Callable[[int], dict]:
    """call(seed) trains from scratch; "return" is the mean return of the episodes that ended in the last tenth."""
    updates, agents = question["updates"], question["agents"]
    algorithm = algorithm_of(question["settings"], question["num_envs"], updates)
    if question["measure"] == "return":
        algorithm = algorithm.replace(env=Ended(algorithm.env))
        work = jax.jit(lambda key: last_tenth(algorithm, key, updates))
        return lambda seed: {"return": float(work(jax.random.PRNGKey(seed)))}

    def work(key):
        return algorithm.train(key)[0]

    key = jax.random.PRNGKey(0)
    work, keys = (jax.vmap(work), jax.random.split(key, agents)) if agents > 1 else (work, key)
    compiled = jax.jit(work).lower(keys).compile()

    def call(seed: int) -> dict:
        key = jax.random.PRNGKey(seed)
        jax.block_until_ready(compiled(jax.random.split(key, agents) if agents > 1 else key))
        return {"steps": algorithm.total_timesteps * agents}

    return call


def algorithm_of(settings: dict, num_envs: int, updates: int) -> PPO:
    """The settings that all arms share, in rejax's names; nothing is evaluated."""
    total = updates * num_envs * settings["num_steps"]
    gradient_steps = updates * settings["num_epochs"] * settings["num_minibatches"]
    algorithm = PPO.create(
        env="CartPole-v1",
        num_envs=num_envs,
        total_timesteps=total,
        eval_freq=total,
        skip_initial_evaluation=True,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": settings["hidden"]},
        learning_rate=optax.linear_schedule(settings["learning_rate"], 0.0, gradient_steps),
        clip_eps=settings["clip_eps"],  # of the value loss as well
        **{
            name: settings[name]
            for name in ("num_steps", "num_epochs", "num_minibatches", "gamma", "gae_lambda", "ent_coef", "vf_coef")
        },
        max_grad_norm=settings["max_grad_norm"],
    )
    return algorithm.replace(eval_callback=lambda algorithm, state, key: ())


def last_tenth(algorithm: PPO, key: jax.Array, updates: int) -> jax.Array:
    """Mean return of the episodes that ended in the last tenth of the updates."""

    def iterate(state, count):
        return jax.lax.fori_loop(0, count, lambda _, state: algorithm.train_iteration(state), state)

    before = iterate(algorithm.init_state(key), updates - updates // 10)
    after = iterate(before, updates // 10)
    total, count = (jnp.sum(now - then) for now, then in zip(after.env_state[2:], before.env_state[2:], strict=True))
    return total / count


if __name__ == "__main__":
    serve(prepare)
