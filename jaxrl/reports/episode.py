"""One episode of a trained policy, recorded for the eye."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.envs import registry
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.reports.animation import Scene, scene_geoms
from jaxrl.training.programs import program
from jaxrl.types import Key, Learner


class Recording(NamedTuple):
    """A scene for the browser, and joint positions [T, nq] with the MuJoCo model for its renderer."""

    scene: Scene
    qpos: np.ndarray
    mj_model: Any


def record_episode(config: Any, learner: Learner, key: Key) -> Recording:
    """Play one episode deterministically in the Brax environment of `config`; its frames stop where it ended."""
    from jaxrl.envs.suites import brax

    body = registry.make(config.env.name, backend=config.env.backend)
    policy = program(config).algorithm.policy
    repeated = ActionRepeat(body, config.env.action_repeat)
    limit, dt = config.env.time_limit or repeated.time_limit, body.dt * config.env.action_repeat

    def step(carry, key):
        state, obs, memory = carry
        memory, distribution = policy(learner, memory, obs)
        state, result = repeated.step(key, state, distribution.env_action(distribution.mode()))
        seen = (*brax.frame(body, state), result.reward, result.terminated, result.info.get("x_velocity"))
        return (state, result.next_obs, memory), seen

    def episode(key):
        k_reset, k_steps = jax.random.split(key)
        return jax.lax.scan(step, (*body.reset(k_reset), ()), jax.random.split(k_steps, limit))[1]

    poses, qpos, reward, terminated, speed = jax.tree.map(np.asarray, jax.jit(episode)(key))
    length = int(np.argmax(terminated)) + 1 if terminated.any() else limit
    total = np.cumsum(reward)
    captions = [f"t = {(i + 1) * dt:.1f} s   return {total[i]:.0f}" for i in range(length)]
    if speed is not None:
        captions = [f"{text}   {v:.1f} m/s" for text, v in zip(captions, speed[:length], strict=True)]
    scene = Scene(scene_geoms(body.mj_model), poses[:length], dt, config.env.name, captions)
    return Recording(scene, qpos[:length], body.mj_model)
