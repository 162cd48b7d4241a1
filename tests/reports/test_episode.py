"""A recorded episode: of whatever environment the config can name."""

import jax
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, program, replace
from jaxrl.reports.episode import record_episode

CONFIG = PPO(
    env=EnvConfig("brax/inverted_pendulum", num_envs=2, time_limit=5),
    total_steps=64,
    num_steps=32,
    num_minibatches=1,
)


@pytest.mark.parametrize("backend", [None, "spring"])
def test_an_episode_is_recorded_for_every_backend_that_trains(backend):
    config = replace(CONFIG, backend=backend)
    learner = program(config).algorithm.init(jax.random.key(0))
    recording = record_episode(config, learner, jax.random.key(0))
    assert recording.scene.frames.shape[0] == len(recording.qpos) <= 5 and np.isfinite(recording.qpos).all()


def test_what_has_no_body_is_refused_with_a_sentence():
    config = replace(CONFIG, name="gymnax/CartPole-v1")
    learner = program(config).algorithm.init(jax.random.key(0))
    with pytest.raises(ValueError, match="CartPole-v1 cannot be drawn; only Brax environments have a body"):
        record_episode(config, learner, jax.random.key(0))
