"""jaxrl's arm: whole PPO updates as one program, or the physics alone.

Training is `jaxrl.program(config).step`, repeated by one compiled loop from reset to the last update. Unlike the peers
on CartPole it tells the time limit from a fall, and so also asks the critic about where the clock ran out.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from worker import serve

from jaxrl import PPO, EnvConfig, cli, program, replace
from jaxrl.envs.registry import from_config
from jaxrl.training.compiled import trace


def prepare(question: dict) -> Callable[[int], dict]:
    """See compare.py for what is asked."""
    arms = {"speed": speed, "on_host": on_host, "return": final_return, "physics": physics}
    return arms[question["measure"]](question)


def config_of(question: dict) -> PPO:
    """The preset that is named, or CartPole with the settings that all arms share; so many updates long."""
    if "preset" in question:
        config = cli.named(question["preset"])
        config = replace(config, env=replace(config.env, backend=question["backend"]))
    else:
        settings = {**question["settings"], "hidden": tuple(question["settings"]["hidden"])}
        name = f"gymnasium/{question['task']}" if "task" in question else "gymnax/CartPole-v1"
        config = PPO(env=EnvConfig(name, num_envs=question["num_envs"]), **settings)
    return replace(config, total_steps=question["updates"] * config.num_steps * config.env.num_envs)


def speed(question: dict) -> Callable[[int], dict]:
    """call(seed) trains from scratch, `agents` of them side by side."""
    config, agents = config_of(question), question["agents"]

    def work(config, key):
        p = program(config)
        return jax.lax.fori_loop(0, p.num_updates, lambda _, state: p.step(state)[0], p.init(key))

    work, keys = (work, jax.random.key(0))
    if agents > 1:
        work, keys = jax.vmap(work, (None, 0)), jax.random.split(keys, agents)
    compiled = jax.jit(work).lower(config, keys).compile()

    def call(seed: int) -> dict:
        key = jax.random.key(seed)
        jax.block_until_ready(compiled(config, jax.random.split(key, agents) if agents > 1 else key))
        return {"steps": config.total_steps * agents}

    return call


def on_host(question: dict) -> Callable[[int], dict]:
    """call(seed) trains from scratch in environments that Gymnasium steps, as `run` does between its logs."""
    config = config_of(question)
    p = program(config)
    compiled = trace(config, {}, p)()

    def call(seed: int) -> dict:
        leaves = jax.tree.leaves(compiled.init(jax.random.key(seed)))
        jax.block_until_ready(compiled.chunk(leaves, p.num_updates))
        return {"steps": config.total_steps}

    return call


def final_return(question: dict) -> Callable[[int], dict]:
    """call(seed) trains; the mean return of the episodes that ended in the last tenth of the updates."""
    config = config_of(question)
    last = question["updates"] // 10

    @jax.jit
    def work(config, key):
        p = program(config)
        _, metrics = jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
        return jax.tree.map(lambda x: jnp.sum(x[-last:]), metrics["episode_return"]).value

    return lambda seed: {"return": float(work(config, jax.random.key(seed)))}


def physics(question: dict) -> Callable[[int], dict]:
    """call(seed) takes `length` steps in every environment with random actions, resets included."""
    env = from_config(EnvConfig("brax/humanoid", question["num_envs"], question["backend"], resets="pool"))

    def step(carry, key):
        (state, paid), (k_act, k_env) = carry, jax.random.split(key)
        action = jax.vmap(env.action_space.sample)(jax.random.split(k_act, env.num_envs))
        state, obs, result = env.step(k_env, state, action)
        return (state, paid + jnp.sum(result.reward) + jnp.sum(obs)), None

    @jax.jit
    def work(key):
        k_reset, key = jax.random.split(key)
        start = (env.reset(k_reset)[0], jnp.zeros(()))
        return jax.lax.scan(step, start, jax.random.split(key, question["length"]))[0]

    compiled = work.lower(jax.random.key(0)).compile()

    def call(seed: int) -> dict:
        jax.block_until_ready(compiled(jax.random.key(seed)))
        return {"steps": question["length"] * env.num_envs}

    return call


if __name__ == "__main__":
    serve(prepare)
