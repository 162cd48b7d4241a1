"""Rollouts in environments that live on the host: acting is compiled, stepping is not, and learning is as ever."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl.types import Algorithm, Batch, Key, Learner, Memory, PyTree, Source, Transition


class Order(NamedTuple):
    """A rollout that the host is asked for: key [2] in words, who acts, and how many rollouts there were before."""

    key: Array
    learner: Learner
    number: Int[Array, ""]


class Acted(NamedTuple):
    """What a policy says of N environments: its memory, what is stored, how likely that was, what is executed."""

    memory: Memory
    action: PyTree
    log_prob: Array
    executed: PyTree


def acting(env: Any, algorithm: Algorithm) -> Callable[..., Acted]:
    """act(leaves, memory, obs, first, key, t) -> Acted, compiled: by the learner with these leaves, of which `order`
    says what they are; t is folded into the key."""

    @functools.partial(jax.jit, static_argnums=0)
    def act(structure: Any, leaves: list, memory: Memory, obs: PyTree, first: Array, key: Array, t: Array) -> Acted:
        learner = jax.tree.unflatten(structure, leaves)
        k_act = jax.random.fold_in(jax.random.wrap_key_data(key), t)
        memory, distribution = algorithm.policy(learner, memory, obs, first)
        action = distribution.sample(k_act)
        executed = distribution.env_action(action).astype(env.action_space.dtype)
        return Acted(memory, action, distribution.log_prob(action), executed)

    return act


class _Live(NamedTuple):
    """Where the next rollout starts."""

    number: int
    obs: PyTree
    first: np.ndarray
    memory: Memory


def hosted_rollouts(env: Any, algorithm: Algorithm, num_steps: int) -> Source:
    """Segments of `num_steps` steps that carry on where the last one stopped. `env` is a HostVectorEnv.

    What lives on the host is in no checkpoint. A process that goes on from one, or back to one, resets all
    environments, by seeds drawn from the run's and the number of rollouts so far: training goes on exactly, episodes
    begin anew.
    """
    act, live = acting(env, algorithm), []

    def init(key: Key) -> tuple[Array, Int[Array, ""]]:
        return jax.random.key_data(key), jnp.zeros((), jnp.int32)

    def collect(key: Key, learner: Learner, carry: tuple[Array, Int[Array, ""]]):
        start, number = carry
        keys = jnp.stack([jax.random.key_data(key), start])
        return (start, number + 1), Order(keys, learner, number)

    def begin(order: Order, number: int) -> _Live:
        seed = int(jax.random.bits(jax.random.fold_in(jax.random.wrap_key_data(jnp.asarray(order.key[1])), number)))
        every = np.ones(env.num_envs, bool)
        return _Live(number, env.reset(seed % 2**31), every, algorithm.memory(env.num_envs))

    def rollout(order: Order) -> Transition:
        number = int(order.number)
        now = live.pop() if live else None
        if now is None or now.number != number:
            now = begin(order, number)
        obs, first, memory = now.obs, now.first, now.memory
        leaves, structure = jax.tree.flatten(order.learner)
        leaves, key, steps = jax.device_put(leaves), jnp.asarray(order.key[0]), []
        for t in range(num_steps):
            acted = act(structure, leaves, memory, obs, first, key, np.int32(t))
            memory = acted.memory
            after, said = env.step(np.asarray(acted.executed))
            steps.append((obs, acted.action, acted.log_prob, *said, first))
            obs, first = after, said.terminated | said.truncated
        live.append(_Live(number + 1, obs, first, memory))
        # One array of each at once: of thousands of small ones jnp.stack takes longer than the rollout.
        obs, action, log_prob, next_obs, *said, info, first = jax.tree.map(lambda *x: np.stack(x), *steps)
        return Transition(obs, action, log_prob, *said, next_obs, info, first, now.memory)

    def shapes(order: Order) -> Batch:
        return jax.eval_shape(lambda order: _like(env, algorithm, num_steps, order), order)

    return Source(init, collect, rollout, shapes)


def _like(env: Any, algorithm: Algorithm, num_steps: int, order: Order) -> Transition:
    """Zeros of the shapes of a rollout."""
    T, N, spaces = num_steps, env.num_envs, env.spaces

    def zeros(shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jnp.zeros((T, N, *shape), dtype)

    obs = jax.tree.map(lambda part: zeros(part.shape, part.dtype), spaces.observation)
    memory, first = algorithm.memory(N), jnp.ones(N, bool)
    now = jax.tree.map(lambda x: x[0], obs)
    distribution = algorithm.policy(order.learner, memory, now, first)[1]
    action = distribution.sample(jax.random.key(0))
    actions = jax.tree.map(lambda x: jnp.broadcast_to(x, (T, *x.shape)), action)
    log_prob = distribution.log_prob(action)
    flag, info = zeros((), bool), {"episode_return": zeros(()), "episode_length": zeros((), jnp.int32)}
    info["invalid"] = flag
    return Transition(obs, actions, zeros((), log_prob.dtype), zeros(()), flag, flag, obs, info, flag, memory)
