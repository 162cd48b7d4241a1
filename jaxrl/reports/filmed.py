"""Episodes of a policy in environments that live on the host, filmed by their own `render`."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.envs.hosted import HostVectorEnv
from jaxrl.training import program
from jaxrl.types import HostFailed, InputError, Key, Learner

_SECONDS = 1 / 30  # of a step whose environment does not say


class Filmed(NamedTuple):
    """The pictures of each episode, T + 1 for T steps, each of which takes `dt` seconds."""

    episodes: Sequence[Sequence[np.ndarray]]
    dt: float
    returns: Sequence[float]
    lengths: Sequence[int]


def film(config: Any, env: Any, learner: Learner, keys: Sequence[Key], behaviour: str, **given: Any) -> Filmed:
    """An episode for each key. behaviour: "mode" or "sample". Raises InputError for an environment that makes no
    pictures."""
    algorithm, vector = program(config, **given).algorithm, HostVectorEnv(env.filmed(), 1, config.env.time_limit, False)

    @jax.jit
    def act(learner: Learner, memory: Any, obs: Any, first: Any, key: Key):
        memory, distribution = algorithm.policy(learner, memory, obs, first)
        drawn = distribution.mode() if behaviour == "mode" else distribution.sample(key)
        return memory, distribution.env_action(drawn).astype(vector.action_space.dtype)

    def episode(key: Key) -> tuple[list[np.ndarray], float]:
        obs, memory, first = vector.reset(int(jax.random.bits(key)) % 2**31), algorithm.memory(1), np.ones(1, bool)
        frames = [_picture(vector, env.name)]
        while True:
            key, k_act = jax.random.split(key)
            memory, action = act(learner, memory, obs, first, k_act)
            obs, said = vector.step(np.asarray(action), reset=False)
            frames.append(_picture(vector, env.name))
            first = said.terminated | said.truncated
            if first[0]:
                return frames, float(said.info["episode_return"][0])

    played = [episode(key) for key in keys]
    vector.close()
    dt = 1 / env.fps if env.fps else _SECONDS
    return Filmed([f for f, _ in played], dt, [r for _, r in played], [len(f) - 1 for f, _ in played])


def _picture(vector: HostVectorEnv, name: str) -> np.ndarray:
    try:
        frame = vector.render()[0]
    except HostFailed as error:
        raise HostFailed(f"{error}; where it draws by OpenGL without a display, set MUJOCO_GL=egl or osmesa") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        raise InputError(
            f"{name} makes no pictures: its render() gives {type(frame).__name__}; let it give [height, width, 3]"
        )
    return frame.astype(np.uint8)


def pictures(filmed: Filmed, steps: Sequence[np.ndarray], pause: int) -> Iterator[np.ndarray]:
    """Of each episode those of `steps`, and the last for `pause` more."""
    for frames, shown in zip(filmed.episodes, steps, strict=True):
        for t in shown:
            yield frames[int(t)]
        yield from [frames[-1]] * pause
