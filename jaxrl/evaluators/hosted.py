"""Whole episodes in environments that live on the host."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.ops.masks import random_actions, zero_actions
from jaxrl.types import Algorithm, Key, Learner


def play(env: Any, algorithm: Algorithm, learner: Learner, key: Key, num_episodes: int, behaviour: str) -> tuple:
    """So many episodes in a HostVectorEnv, each environment as many as the others or one more, so that short ones do
    not count more often: returns, lengths, and in a dict the shares of steps that were invalid.
    """
    n = env.num_envs
    wanted = np.array([num_episodes // n + (i < num_episodes % n) for i in range(n)])
    leaves, structure = jax.tree.flatten(learner)
    leaves = jax.device_put(leaves)

    @jax.jit
    def act(leaves: list, memory: Any, obs: Any, first: Any, key: Key, t: Any):
        k_act = jax.random.fold_in(key, t)
        if behaviour == "zero":
            return memory, zero_actions(env.spaces, obs, n)
        if behaviour == "random":
            return memory, random_actions(env.spaces, k_act, obs, n)
        memory, distribution = algorithm.policy(jax.tree.unflatten(structure, leaves), memory, obs, first)
        drawn = distribution.mode() if behaviour == "mode" else distribution.sample(k_act)
        return memory, distribution.env_action(drawn).astype(env.action_space.dtype)

    k_reset, k_act = jax.random.split(key)
    obs = env.reset(int(jax.random.bits(k_reset)) % 2**31)
    first, memory, played = np.ones(n, bool), algorithm.memory(n), np.zeros(n, int)
    returns, lengths, invalid, bad, t = [], [], [], np.zeros(n), 0
    while (played < wanted).any():
        memory, action = act(leaves, memory, obs, first, k_act, np.int32(t))
        obs, said = env.step(np.asarray(action))
        first, bad, t = said.terminated | said.truncated, bad + said.info["invalid"], t + 1
        for i in np.flatnonzero(first):
            if played[i] < wanted[i]:
                returns.append(said.info["episode_return"][i])
                lengths.append(said.info["episode_length"][i])
                invalid.append(bad[i] / lengths[-1])
            played[i], bad[i] = played[i] + 1, 0
    env.close()
    returns, lengths, shares = (jnp.asarray(np.asarray(x)) for x in (returns, lengths, invalid))
    return returns, lengths, {"invalid": shares.astype(jnp.float32)}
