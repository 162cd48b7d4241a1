"""What is timed, each as a pair of pure functions: physics alone, acting, rollouts, training.

physics   random actions, resets included
acting    the policy network samples actions in the same environments
rollout   acting, and every transition stored as the learner wants it
training  whole updates: rollout, advantages, epochs of gradient steps

XLA deletes what nobody reads, so every step leaves a trace in what is returned: rewards, ends, and for `rollout` a sum
over all that was stored. Every update draws from a key of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.envs.registry import from_config
from jaxrl.envs.vector import VectorEnv
from jaxrl.ops.masks import random_actions
from jaxrl.training import program
from jaxrl.types import Carry, Key, Learner, Program, PyTree

ARMS = ("physics", "acting", "rollout", "training")


class Arm(NamedTuple):
    """init(key) -> carry. update(key, carry) -> carry: one rollout's worth of steps, or one update."""

    init: Callable[[Key], Carry]
    update: Callable[[Key, Carry], Carry]


class Work(NamedTuple):
    """Arms as they are compiled: start(config, keys) -> carries and go_on(config, carries, updates) -> carries, for as
    many agents side by side as there are keys."""

    start: Callable[[Any, Key], Carry]
    go_on: Callable[[Any, Carry, jax.Array], Carry]


def work(name: str) -> Work:
    """The arm `name`, vmapped over agents. A carry holds the agent's key, and is donated."""

    def start(config: Any, key: Key) -> Carry:
        k_init, key = jax.random.split(key)
        return key, arm(name, config).init(k_init)

    def go_on(config: Any, carry: Carry, updates: jax.Array) -> Carry:
        (key, inner), update = carry, arm(name, config).update
        inner = jax.lax.fori_loop(0, updates, lambda i, c: update(jax.random.fold_in(key, i), c), inner)
        return jax.random.fold_in(key, updates), inner

    starts = jax.jit(jax.vmap(start, (None, 0)))
    return Work(starts, jax.jit(jax.vmap(go_on, (None, 0, None)), donate_argnums=1))


def arm(name: str, config: Any) -> Arm:
    """One of ARMS, for a config that acts."""
    p, env = program(config), from_config(config.env)

    def steps(key: Key, carry: Carry, act: Callable) -> Carry:
        def step(carry, key):
            (state, obs, paid), (k_act, k_env) = carry, jax.random.split(key)
            state, obs, result = env.step(k_env, state, act(k_act, obs))
            return (state, obs, paid + jnp.sum(result.reward) + jnp.sum(result.terminated)), None

        state, obs, paid = carry
        k_pool, k_steps = jax.random.split(key)
        state = env.refresh(k_pool, state)
        return jax.lax.scan(step, (state, obs, paid), jax.random.split(k_steps, config.num_steps))[0]

    def begin(key: Key) -> Carry:
        return (*env.reset(key), jnp.zeros(()))

    def physics(key: Key, carry: Carry) -> Carry:
        return steps(key, carry, lambda key, obs: random_actions(env.spaces, key, obs, env.num_envs))

    def acting(key: Key, carry: Carry) -> Carry:
        learner, rest = carry

        def act(key, obs):
            return _act(p, env, key, learner, obs).astype(env.action_space.dtype)

        return learner, steps(key, rest, act)

    def rollout(key: Key, carry: Carry) -> Carry:
        learner, source, stored = carry
        source, batch = p.source.collect(key, learner, source)
        floats = (x for x in jax.tree.leaves(batch._replace(info={})) if x.dtype == jnp.float32)
        return learner, source, stored + sum(jnp.sum(x) for x in floats)

    return {
        "physics": Arm(begin, physics),
        "acting": Arm(lambda key: (p.algorithm.init(key), begin(key)), acting),
        "rollout": Arm(lambda key: (p.algorithm.init(key), p.source.init(key), jnp.zeros(())), rollout),
        "training": Arm(p.init, lambda _, state: p.step(state)[0]),  # a TrainState has a key of its own
    }[name]


def acting_operations(config: Any) -> float:
    """Floating-point operations that XLA counts in the policy and its sample, for one step of one environment."""
    p, env = program(config), from_config(config.env)
    key = jax.random.key(0)
    obs, learner = jax.eval_shape(env.reset, key)[1], jax.eval_shape(p.algorithm.init, key)
    act = jax.jit(lambda key, learner, obs: _act(p, env, key, learner, obs))
    return act.lower(key, learner, obs).cost_analysis()["flops"] / env.num_envs


def _act(p: Program, env: VectorEnv, key: Key, learner: Learner, obs: PyTree) -> PyTree:
    memory, first = p.algorithm.memory(env.num_envs), jnp.zeros(env.num_envs, bool)
    distribution = p.algorithm.policy(learner, memory, obs, first)[1]
    return distribution.env_action(distribution.sample(key))
