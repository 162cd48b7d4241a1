"""A recorded episode: of whatever environment the config can name, and the file that shows it."""

import shutil
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxrl import PPO, EnvConfig, make, program, replace
from jaxrl.reports.episode import record_episodes, save_recording
from jaxrl.types import InputError
from tests.helpers.environments import Counter

CONFIG = PPO(
    env=EnvConfig("brax/inverted_pendulum", num_envs=2, time_limit=5),
    total_steps=64,
    num_steps=32,
    num_minibatches=1,
)
KEYS = jax.random.split(jax.random.key(0), 2)


def recorded(config, keys=KEYS[:1], behaviour="mode", **given):
    learner = program(config, **given).algorithm.init(jax.random.key(0))
    return record_episodes(config, learner, keys, behaviour, **given)


@pytest.mark.parametrize("backend", [None, "spring"])
def test_an_episode_is_recorded_for_every_backend_that_trains(backend):
    recording = recorded(replace(CONFIG, backend=backend))
    assert recording.scene.frames.shape[0] == len(recording.qpos) <= 5 and np.isfinite(recording.qpos).all()
    assert recording.lengths == [len(recording.qpos)] == [len(recording.scene.captions)]


def test_bodies_play_one_episode_after_the_other(tmp_path):
    recording = recorded(CONFIG, KEYS)
    assert len(recording.qpos) == sum(recording.lengths) and len(recording.returns) == 2
    assert save_recording(tmp_path / "a.html", recording) == tmp_path / "a.html"


def test_a_film_keeps_the_pace_and_shows_the_end(tmp_path):
    played = recorded(replace(CONFIG, name="gymnax/CartPole-v1", time_limit=None), KEYS)
    assert played.returns == [float(n) for n in played.lengths]  # CartPole pays one a step
    film = Image.open(save_recording(tmp_path / "new" / "a.gif", played))
    # Every second step of 0.02 s, from the start on, for 0.04 s; then the last picture stands for a second.
    shown = [n // 2 + 1 for n in played.lengths]
    durations = []
    for frame in range(film.n_frames):
        film.seek(frame)
        durations.append(film.info["duration"])
    assert sum(durations) == 40 * sum(shown) + 2000
    assert sum(shown) <= film.n_frames <= sum(shown) + 2 and film.size == (480, 346)


def test_sampling_differs_from_the_mode_and_repeats_with_its_key():
    config = replace(CONFIG, name="gymnax/CartPole-v1", time_limit=30)
    mode, sample, again = (recorded(config, behaviour=b) for b in ("mode", "sample", "sample"))
    assert sample.episodes[0].action.tolist() == again.episodes[0].action.tolist() != mode.episodes[0].action.tolist()
    with pytest.raises(InputError, match="behaviour = 'best' is not one of mode, sample"):
        recorded(config, behaviour="best")


def test_repeated_actions_and_many_bodies_are_played():
    twice = recorded(replace(CONFIG, name="gymnax/Pendulum-v1", time_limit=4, action_repeat=2))
    assert twice.lengths == [4] and twice.dt == 0.1
    assert twice.episodes[0].state.time.tolist() == [0, 2, 4, 6, 8]
    two = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), make("gymnax/Pendulum-v1"))
    played = recorded(replace(CONFIG, env_axis=0, time_limit=3), env=two)
    assert played.env.params.g == 10 and played.lengths == [3]  # the first body


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cut(Counter):
    """Cuts its episodes short itself, after two steps."""

    def step(self, key, state, action):
        state, step = super().step(key, state, 0 * action)
        return state, step._replace(truncated=state[0] >= 2)


def test_an_episode_that_is_cut_short_ends_there():
    episode = recorded(replace(CONFIG, time_limit=9), env=Cut()).episodes[0]
    assert len(episode.reward) == 2 and episode.state[-1] >= 2 > episode.state[-2]


def test_what_cannot_be_shown_is_refused_with_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="playing .*Counter needs a time limit"):
        recorded(replace(CONFIG, time_limit=None), env=Counter())
    played = recorded(replace(CONFIG, name="gymnax/CartPole-v1"))
    with pytest.raises(InputError, match=r"CartPole-v1 is drawn as pictures, .*; use .gif or .mp4"):
        save_recording(tmp_path / "a.html", played)
    with pytest.raises(InputError, match="suffix '.png'"):
        save_recording(tmp_path / "a.png", played)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="a.mp4 needs ffmpeg, which is not on PATH; install it or use .gif"):
        save_recording(tmp_path / "a.mp4", played)
    assert not list(tmp_path.iterdir())
