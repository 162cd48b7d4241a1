"""What is asked of every adapter to a suite."""

import jax
import numpy as np

from jaxrl import vectorize
from jaxrl.envs.base import select
from jaxrl.envs.check import beyond
from jaxrl.ops.masks import random_actions


def assert_steady(env, key):
    """Traced with two copies: shapes and types as the spaces say, strong, and the same after a step."""
    vector = vectorize(env, 2)
    state, obs = jax.eval_shape(vector.reset, key)
    action = jax.eval_shape(lambda key, obs: random_actions(vector.spaces, key, obs, 2), key, obs)
    after, shown, step = jax.eval_shape(vector.step, key, state, action)
    for before, now in ((state, after), (obs, shown), (obs, step.next_obs)):
        assert jax.tree.structure(before) == jax.tree.structure(now)
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True):
            assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
            assert not x.weak_type
    said = jax.tree.map(lambda part: ((2, *part.shape), np.dtype(part.dtype)), env.observation_space)
    assert jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), obs) == said
    assert step.reward.dtype == np.float32 and step.terminated.dtype == step.truncated.dtype == bool


def played(env, key, num_steps, num_envs=1):
    """Random steps that heed the mask: [(key, state, action, state after, Step)] of `num_envs` copies, fresh starts
    where episodes end. The time limit is not counted.
    """
    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    spaces = vectorize(env, num_envs).spaces
    act = jax.jit(lambda key, obs: random_actions(spaces, key, obs, num_envs))
    key, k_reset = jax.random.split(key)
    state, obs = reset(jax.random.split(k_reset, num_envs))
    out = []
    for k in jax.random.split(key, num_steps):
        k_act, k_step, k_reset = jax.random.split(k, 3)
        action, keys = act(k_act, obs), jax.random.split(k_step, num_envs)
        after, said = step(keys, state, action)
        assert beyond(env.observation_space, jax.device_get(said.next_obs)) is None
        out.append((keys, state, action, after, said))
        done = said.terminated | said.truncated
        fresh, shown = reset(jax.random.split(k_reset, num_envs))
        state, obs = select(done, (fresh, shown), (after, said.next_obs))
    return out
