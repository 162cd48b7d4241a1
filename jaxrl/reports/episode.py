"""One episode of a trained policy, recorded for the eye."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import registry
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.reports.animation import Scene, scene_geoms
from jaxrl.training import program
from jaxrl.types import InputError, Key, Learner


class Recording(NamedTuple):
    """A scene for the browser, and joint positions [T, nq] with the MuJoCo model for its renderer."""

    scene: Scene
    qpos: np.ndarray
    mj_model: Any


def record_episode(config: Any, learner: Learner, key: Key, **given: Any) -> Recording:
    """Play one episode deterministically in the Brax environment of `config`; its frames stop where it ended.

    given: as for `train`. Raises InputError for an environment that has no body to draw.
    """
    from jaxrl.envs.suites import brax

    body = given.get("env") or registry.environment(config.env)
    if not isinstance(body, brax.BraxEnv):
        raise InputError(f"{config.env.name} cannot be drawn; only Brax environments have a body")
    algorithm = program(config, **given).algorithm
    repeated = ActionRepeat(body, config.env.action_repeat)
    limit, dt = config.env.time_limit or repeated.time_limit, body.dt * config.env.action_repeat

    def step(carry, key):
        state, obs, first, memory = carry
        # A policy acts for N environments; here N is 1.
        memory, distribution = algorithm.policy(learner, memory, jax.tree.map(lambda x: x[None], obs), first)
        action = distribution.env_action(distribution.mode())[0]
        state, result = repeated.step(key, state, action)
        seen = (*brax.frame(body, state), result.reward, result.terminated, result.info.get("x_velocity"))
        return (state, result.next_obs, jnp.zeros(1, bool), memory), seen

    def episode(key):
        k_reset, k_steps = jax.random.split(key)
        start = (*body.reset(k_reset), jnp.ones(1, bool), algorithm.memory(1))
        return jax.lax.scan(step, start, jax.random.split(k_steps, limit))[1]

    poses, qpos, reward, terminated, speed = jax.tree.map(np.asarray, jax.jit(episode)(key))
    length = int(np.argmax(terminated)) + 1 if terminated.any() else limit
    total = np.cumsum(reward)
    captions = [f"t = {(i + 1) * dt:.1f} s   return {total[i]:.0f}" for i in range(length)]
    if speed is not None:
        captions = [f"{text}   {v:.1f} m/s" for text, v in zip(captions, speed[:length], strict=True)]
    scene = Scene(scene_geoms(body.mj_model), poses[:length], dt, config.env.name, captions)
    return Recording(scene, qpos[:length], body.mj_model)
