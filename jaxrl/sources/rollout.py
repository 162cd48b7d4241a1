"""Rollouts as sources of batches: `policy` acts in a vectorised environment for T steps inside one `lax.scan`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from jaxrl.envs.hosted import HostVectorEnv
from jaxrl.sources.hosted import hosted_rollouts
from jaxrl.types import Algorithm, InputError, Key, Learner, Memory, PyTree, Source, Transition


class RolloutCarry(NamedTuple):
    """Where the next rollout starts: environments, what they show, which begin an episode, the policy's memory."""

    env_state: PyTree
    obs: PyTree
    first: Bool[Array, " N"]
    memory: Memory


def start(env: Any, algorithm: Algorithm, key: Key) -> RolloutCarry:
    """All environments at a fresh start, and nothing to remember."""
    return RolloutCarry(*env.reset(key), jnp.ones(env.num_envs, bool), algorithm.memory(env.num_envs))


def unroll(env: Any, policy: Callable, keys: Key, learner: Learner, carry: RolloutCarry):
    """Act for T steps, by keys [T, 2]. Returns (carry, Transition with leading axes [T, num_envs])."""

    def step(carry: RolloutCarry, keys: Key):
        k_act, k_env = keys
        memory, distribution = policy(learner, carry.memory, carry.obs, carry.first)
        action = distribution.sample(k_act)
        # A policy may compute in another precision than the space's, and x64 draws 64-bit integers.
        executed = distribution.env_action(action).astype(env.action_space.dtype)
        env_state, obs, result = env.step(k_env, carry.env_state, executed)
        transition = Transition(
            obs=carry.obs,
            action=action,
            log_prob=distribution.log_prob(action),
            reward=result.reward,
            terminated=result.terminated,
            truncated=result.truncated,
            next_obs=result.next_obs,
            info=result.info,
            first=carry.first,
        )
        return RolloutCarry(env_state, obs, result.terminated | result.truncated, memory), transition

    last, batch = jax.lax.scan(step, carry, keys)
    return last, batch._replace(memory=carry.memory)


def rollouts(env: Any, algorithm: Algorithm, num_steps: int) -> Source:
    """Segments of `num_steps` steps that carry on where the last one stopped. `env`: a VectorEnv or HostVectorEnv."""
    if isinstance(env, HostVectorEnv):
        return hosted_rollouts(env, algorithm, num_steps)

    def collect(key: Key, learner: Learner, carry: RolloutCarry):
        keys = jax.random.split(key, (num_steps + 1, 2))  # all at once: each call is a loop to compile
        carry = carry._replace(env_state=env.refresh(keys[-1, 0], carry.env_state))
        return unroll(env, algorithm.policy, keys[:-1], learner, carry)

    return Source(lambda key: start(env, algorithm, key), collect)


def episodes(env: Any, algorithm: Algorithm, num_steps: int) -> Source:
    """One whole episode per environment: every batch starts from a reset, and info["playing"] marks the steps up to
    and including the first end. With `num_steps` at least the time limit every first episode is complete.

    Raises InputError for environments that live on the host.
    """
    if isinstance(env, HostVectorEnv):
        raise InputError(f"{env.env.name} lives on the host, and is not played in whole episodes; learn by PPO or A2C")

    def collect(key: Key, learner: Learner, carry: tuple):
        keys = jax.random.split(key, (num_steps + 1, 2))
        _, batch = unroll(env, algorithm.policy, keys[:-1], learner, start(env, algorithm, keys[-1, 0]))
        done = batch.terminated | batch.truncated
        ends_before = jnp.cumsum(done, axis=0) - done
        return carry, batch._replace(info={**batch.info, "playing": ends_before == 0})

    return Source(lambda key: (), collect)
