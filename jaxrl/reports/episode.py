"""Episodes of a trained policy, recorded for the eye, and the files that show them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import registry
from jaxrl.envs.hosted import is_hosted
from jaxrl.envs.wrappers import bare, wrapped
from jaxrl.reports.animation import Scene, save_html, save_video, scene_geoms
from jaxrl.reports.drawing import Episode, picture, step_seconds
from jaxrl.reports.filmed import Filmed, film, pictures
from jaxrl.reports.video import in_time, write_video
from jaxrl.training import program
from jaxrl.types import InputError, Key, Learner, PyTree, Step

FORMATS = ("gif", "mp4", "html")
BEHAVIOURS = ("mode", "sample")
_PAUSE = 1.0  # seconds for which the last picture of an episode stands


class Recording(NamedTuple):
    """What episodes of a Brax body looked like, one after the other: a scene for the browser, and joint positions
    [T, nq] with the MuJoCo model for its renderer. returns, lengths: of each episode."""

    scene: Scene
    qpos: np.ndarray
    mj_model: Any
    returns: Sequence[float]
    lengths: Sequence[int]


class Played(NamedTuple):
    """Episodes of an environment that is drawn, a step of which takes `dt` seconds."""

    env: Any
    episodes: Sequence[Episode]
    dt: float
    returns: Sequence[float]
    lengths: Sequence[int]


def record_episodes(
    config: Any, learner: Learner, keys: Sequence[Key], behaviour: str = "mode", **given: Any
) -> Recording | Played | Filmed:
    """Play an episode for each key in the environment of `config`; each stops where it ended.

    behaviour: "mode" (deterministic) or "sample". given: as for `train`. Raises InputError for an environment whose
    episodes need not end, and for an unknown behaviour.
    """
    if behaviour not in BEHAVIOURS:
        raise InputError(f"behaviour = {behaviour!r} is not one of {', '.join(BEHAVIOURS)}")
    env = _body(config, given.get("env"))
    if is_hosted(env):
        return film(config, env, learner, keys, behaviour, **given)
    if callable(getattr(env, "frame", None)) and not callable(getattr(env, "render", None)):

        def look(state: PyTree, result: Step) -> PyTree:
            return *env.frame(state), result.info.get("x_velocity")

        play = _player(config, env, learner, look, behaviour, given)
        return _as_motion(config, env, [play(key) for key in keys])
    play = _player(config, env, learner, lambda state, result: (state, result.next_obs), behaviour, given)
    episodes = [_as_episode(play(key)) for key in keys]
    dt = step_seconds(env) * config.env.action_repeat
    returns, lengths = [float(e.reward.sum()) for e in episodes], [len(e.reward) for e in episodes]
    return Played(env, episodes, dt, returns, lengths)


def save_recording(path: str | Path, recorded: Recording | Played | Filmed) -> Path | None:
    """Write .gif, .mp4 or, of a Brax body, an .html that opens in any browser; the suffix chooses.

    Returns the path, or None with a warning where a body would need an OpenGL context and none can be made. Raises
    InputError for a suffix that cannot be written, and for .mp4 without ffmpeg.
    """
    path = Path(path)
    if isinstance(recorded, Recording):
        if path.suffix == ".html":
            return save_html(path, recorded.scene)
        return save_video(path, recorded.mj_model, recorded.qpos, recorded.scene.dt)
    if path.suffix == ".html":
        name = "what lives on the host" if isinstance(recorded, Filmed) else registry.name_of(recorded.env)
        raise InputError(f"{path.name}: {name} is drawn as pictures, not as a body in space; use .gif or .mp4")
    period = in_time(2, recorded.dt)[1]
    pause = round(_PAUSE / period)
    if isinstance(recorded, Filmed):
        shown = [in_time(length + 1, recorded.dt)[0] for length in recorded.lengths]
        return write_video(path, pictures(recorded, shown, pause), period)
    return write_video(path, _pictures(recorded, pause), period)


class _Seen(NamedTuple):
    """The start (state, obs), then of T steps what was looked at, actions and rewards, each [T, …]."""

    start: PyTree
    looked: PyTree
    action: PyTree
    reward: np.ndarray


def _body(config: Any, env: Any) -> Any:
    """The environment, with one body."""
    env = registry.environment(config.env) if env is None else env
    if config.env.env_axis == 0:
        return jax.tree.map(lambda x: jnp.asarray(x)[0], env)
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, env)


def _player(
    config: Any, env: Any, learner: Learner, look: Callable[[PyTree, Step], PyTree], behaviour: str, given: dict
) -> Callable[[Key], _Seen]:
    """A function that plays one episode, compiled once."""
    algorithm, whole = program(config, **given).algorithm, wrapped(env, config.env)
    limit = config.env.time_limit or whole.time_limit
    if limit is None:
        name = registry.name_of(env)
        raise InputError(
            f"playing {name} needs a time limit, lest an episode never end; set env.time_limit (--time-limit)"
        )

    def act(key, obs, first, memory):
        # A policy acts for N environments; here N is 1.
        memory, distribution = algorithm.policy(learner, memory, jax.tree.map(lambda x: x[None], obs), first)
        drawn = distribution.mode() if behaviour == "mode" else distribution.sample(key)
        return jax.tree.map(lambda x: x[0], distribution.env_action(drawn)), memory

    def step(carry, key):
        state, obs, first, memory = carry
        k_act, k_env = jax.random.split(key)
        action, memory = act(k_act, obs, first, memory)
        state, result = whole.step(k_env, state, action)
        _, own_state, own_obs = bare(whole, state, result.next_obs)
        looked = look(own_state, result._replace(next_obs=own_obs))
        seen = looked, action, result.reward, result.terminated | result.truncated
        return (state, result.next_obs, jnp.zeros(1, bool), memory), seen

    @jax.jit
    def episode(key):
        k_reset, k_steps = jax.random.split(key)
        start = whole.reset(k_reset)
        first = (*start, jnp.ones(1, bool), algorithm.memory(1))
        return bare(whole, *start)[1:], jax.lax.scan(step, first, jax.random.split(k_steps, limit))[1]

    def play(key: Key) -> _Seen:
        start, (looked, action, reward, over) = episode(key)
        over = np.asarray(over)
        length = int(np.argmax(over)) + 1 if over.any() else limit
        return _Seen(start, *jax.tree.map(lambda x: x[:length], (looked, action, np.asarray(reward))))

    return play


def _as_episode(seen: _Seen) -> Episode:
    looked = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), seen.start, seen.looked)
    return Episode(*jax.tree.map(_on_host, (*looked, seen.action, seen.reward)))


def _on_host(x: Any) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)  # a key has no other home


def _pictures(recorded: Played, pause: int) -> Iterator[np.ndarray]:
    for episode in recorded.episodes:
        last = len(episode.reward)
        for t in in_time(last + 1, recorded.dt)[0]:
            yield picture(recorded.env, episode, int(t))
        yield from [picture(recorded.env, episode, last)] * pause


def _as_motion(config: Any, env: Any, episodes: Sequence[_Seen]) -> Recording:
    dt, captions = env.dt * config.env.action_repeat, []
    for seen in episodes:
        total, speed = np.cumsum(seen.reward), seen.looked[2]
        for i, value in enumerate(total):
            walks = "" if speed is None else f"   {speed[i]:.1f} m/s"
            captions.append(f"t = {(i + 1) * dt:.1f} s   return {value:.0f}{walks}")
    poses, qpos = (np.concatenate([seen.looked[i] for seen in episodes]) for i in (0, 1))
    scene = Scene(scene_geoms(env.mj_model), poses, dt, config.env.name, captions)
    returns, lengths = [float(s.reward.sum()) for s in episodes], [len(s.reward) for s in episodes]
    return Recording(scene, qpos, env.mj_model, returns, lengths)
