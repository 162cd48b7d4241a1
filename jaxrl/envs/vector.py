"""Many environments as one: vmap, time limit, auto-reset, episode statistics, and containment of bad numbers."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.envs.base import select, strong, truncates
from jaxrl.envs.bodies import num_bodies
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.spaces import Space, Spaces
from jaxrl.types import InputError, Key, PyTree, Step


class VectorState(NamedTuple):
    """State of N environments: theirs, steps and reward of the running episodes, whether these began with numbers that
    are not finite, and the pool of starts if any."""

    env_state: PyTree
    elapsed: Int[Array, " N"]
    episode_return: Float[Array, " N"]
    bad_start: Bool[Array, " N"]
    pool: PyTree


class _Start(NamedTuple):
    """A state just reset, what it shows, and whether that was not finite (zeros are shown then)."""

    env_state: PyTree
    obs: PyTree
    bad: Bool[Array, " N"]


@dataclass(frozen=True)
class VectorEnv:
    """N environments stepping side by side. Made by `vectorize`, which explains the fields."""

    env: Any
    num_envs: int
    time_limit: int | None
    resets: str
    env_axis: int | None

    @property
    def spaces(self) -> Spaces:
        """Of one environment, and whether an episode may be cut short."""
        cut = self.time_limit is not None or truncates(self.env)
        return Spaces(self.env.observation_space, self.env.action_space, cut)

    @property
    def action_space(self) -> Space:
        """Of one environment."""
        return self.env.action_space

    def reset(self, key: Key) -> tuple[VectorState, PyTree]:
        """Fresh starts for all: (state, obs). A pool holds these same starts until the first `refresh`."""
        start = self._draw(jax.random.split(key, self.num_envs))
        pool = start if self.resets == "pool" else ()
        zeros = jnp.zeros(self.num_envs)
        return VectorState(start.env_state, zeros.astype(jnp.int32), zeros, start.bad, pool), start.obs

    def refresh(self, key: Key, state: VectorState) -> VectorState:
        """Draw the pool of starts anew; called once per rollout. Nothing to do with resets="fresh"."""
        if self.resets == "fresh":
            return state
        return state._replace(pool=self._draw(jax.random.split(key, self.num_envs)))

    def step(self, key: Key, state: VectorState, action: PyTree) -> tuple[VectorState, PyTree, Step]:
        """One step of all: (state, obs to act on next, Step).

        Where an episode ended, `obs` is a fresh start while `Step.next_obs` is the true successor. A step that gives a
        non-finite observation or reward ends its episode as terminated with reward 0 and a zero successor, is marked
        in info["invalid"], and reaches no other environment. So does the first step from a start that was not finite,
        of which zeros are shown. info["episode_return"] and info["episode_length"] count up to and including this step.
        """
        keys, reset_keys = jax.random.split(key, (2, self.num_envs))  # drawing keys is most of what a small step costs
        step = jax.vmap(lambda env, *args: env.step(*args), in_axes=(self.env_axis, 0, 0, 0))
        env_state, step = strong(step(self.env, keys, state.env_state, action))
        step, invalid = _contain(step, state.bad_start)

        elapsed = state.elapsed + 1
        truncated = step.truncated
        if self.time_limit is not None:
            truncated = truncated | (elapsed >= self.time_limit)
        truncated = truncated & ~step.terminated
        done = step.terminated | truncated
        episode_return = state.episode_return + step.reward
        statistics = {"episode_return": episode_return, "episode_length": elapsed, "invalid": invalid}
        step = step._replace(truncated=truncated, info={**step.info, **statistics})

        going_on = _Start(env_state, step.next_obs, jnp.zeros_like(done))
        shown = select(done, self._starts(reset_keys, state.pool), going_on)
        elapsed, episode_return = jnp.where(done, 0, elapsed), jnp.where(done, 0.0, episode_return)
        return VectorState(shown.env_state, elapsed, episode_return, shown.bad, state.pool), shown.obs, step

    def _draw(self, keys: Array) -> _Start:
        reset = jax.vmap(lambda env, key: env.reset(key), in_axes=(self.env_axis, 0))
        env_state, obs = strong(reset(self.env, keys))
        bad = _not_finite(obs, self.num_envs)
        return _Start(env_state, select(bad, jax.tree.map(jnp.zeros_like, obs), obs), bad)

    def _starts(self, keys: Array, pool: PyTree) -> _Start:
        if self.resets == "fresh":
            return self._draw(keys)
        if self.env_axis is not None:
            return pool  # a start may depend on the body it belongs to
        # Even but for N in 2³²; `randint` draws twice and splits its key to be so.
        which = jax.random.bits(keys[0], (self.num_envs,)) % self.num_envs
        return jax.tree.map(lambda x: x[which], pool)


def vectorize(
    env: Any,
    num_envs: int,
    *,
    time_limit: int | None = None,
    action_repeat: int = 1,
    resets: str = "fresh",
    env_axis: int | None = None,
) -> VectorEnv:
    """N copies of an environment, or N differing bodies, stepping side by side.

    Main arguments:
    num_envs: N.
    time_limit: steps (of the agent) after which an episode is truncated; None takes `env.time_limit`.
    Other arguments:
    action_repeat: each action is executed this many times and the rewards are summed.
    resets: "fresh" draws N starts at every step, of which those needed are used; "pool" draws N starts once per
    rollout (`refresh`), and each new episode takes a random one of them: for physics, whose reset is dear. With
    env_axis=0, environment i takes its own start of the pool.
    env_axis: 0 if every leaf of `env` has a leading axis of N bodies.
    Raises InputError if an argument is out of range.
    """
    if num_envs < 1 or action_repeat < 1 or (time_limit is not None and time_limit < 1):
        raise InputError(
            f"num_envs = {num_envs}, action_repeat = {action_repeat}, time_limit = {time_limit}: each must be 1 or more"
        )
    if resets not in ("fresh", "pool"):
        raise InputError(f"resets = {resets!r} is not one of 'fresh', 'pool'")
    if env_axis not in (None, 0):
        raise InputError(f"env_axis = {env_axis!r} must be None (one body for all) or 0 (a leading axis of bodies)")
    if env_axis == 0 and (found := num_bodies(env)) != num_envs:
        raise InputError(f"num_envs = {num_envs}, but the environment given has {found} bodies; use {found}")
    if action_repeat > 1:
        env = ActionRepeat(env, action_repeat)
    return VectorEnv(env, num_envs, env.time_limit if time_limit is None else time_limit, resets, env_axis)


def _contain(step: Step, bad_start: Bool[Array, " N"]) -> tuple[Step, Bool[Array, " N"]]:
    invalid = bad_start | _not_finite((step.reward, step.next_obs), len(bad_start))
    shown = (step.next_obs, step.reward, step.info)
    next_obs, reward, info = select(invalid, jax.tree.map(jnp.zeros_like, shown), shown)
    return Step(next_obs, reward, step.terminated | invalid, step.truncated, info), invalid


def _not_finite(tree: PyTree, num_envs: int) -> Bool[Array, " N"]:
    flags = [~jnp.all(jnp.isfinite(x), axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(tree)]
    return functools.reduce(jnp.logical_or, flags, jnp.zeros(num_envs, bool))
