"""The NumPy runner is the policy: every head, activation and kind of observation."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxrl.ops.distributions import Categorical, MultiCategorical
from jaxrl.runs.exporting import play
from jaxrl.runs.exporting.play import Policy
from tests.helpers.policies import KINDS, distribution, observations, written

every_kind = pytest.mark.parametrize("kind", KINDS)


def logits_of(d):
    """What the network's last layer says, of a discrete head."""
    return np.concatenate([part.logits for part in getattr(d, "parts", (d,))], axis=-1)


@every_kind
def test_the_likeliest_action_is_that_of_jax(kind, tmp_path):
    spaces, *_ = written(kind, tmp_path)
    policy, obs = Policy(tmp_path), observations(spaces.observation, 500)
    d = distribution(kind, obs)
    expected, action = np.asarray(d.env_action(d.mode())), policy(obs)
    assert action.dtype == spaces.action.zero().dtype and action.shape == (500, *spaces.action.shape)
    if isinstance(d, Categorical | MultiCategorical):
        assert np.abs(policy.outputs(obs) - logits_of(d)).max() < 1e-5
        assert len(np.unique(expected)) > 1
    else:
        assert np.ptp(expected, axis=0).min() > 0.1
    assert np.abs(action - expected).max() < 1e-5


@every_kind
def test_one_observation_and_any_batch_of_them_are_taken(kind, tmp_path):
    spaces, *_ = written(kind, tmp_path)
    policy, obs = Policy(tmp_path), observations(spaces.observation, 6)
    together = policy(obs)
    grid = policy(jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), obs))
    np.testing.assert_allclose(grid.reshape(together.shape), together, atol=1e-6)
    one = policy(jax.tree.map(lambda x: x[4], obs))
    assert one.shape == spaces.action.shape
    np.testing.assert_allclose(one, together[4], atol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "tanh_normal"])
def test_a_sampled_action_is_as_far_from_the_mean_as_in_jax(kind, tmp_path):
    spaces, *_ = written(kind, tmp_path)
    obs = observations(spaces.observation, 200)
    d = distribution(kind, obs)
    u = d.mean + d.std * np.random.default_rng(3).standard_normal(d.mean.shape)
    sampled = Policy(tmp_path)(obs, np.random.default_rng(3))
    assert np.abs(sampled - np.asarray(d.env_action(u))).max() < 1e-5
    assert np.abs(sampled - Policy(tmp_path)(obs)).mean() > 0.05


@pytest.mark.parametrize("kind", ["discrete", "multidiscrete"])
def test_sampled_actions_are_as_frequent_as_their_probabilities(kind, tmp_path):
    spaces, *_ = written(kind, tmp_path)
    n = 20_000
    obs = np.broadcast_to(observations(spaces.observation, 1), (n, 3))
    d = distribution(kind, obs[:1])
    sampled = Policy(tmp_path)(obs, np.random.default_rng(0)).reshape(n, -1)
    start = getattr(spaces.action, "start", 0)
    for entry, part in enumerate(getattr(d, "parts", (d,))):
        p = np.asarray(jax.nn.softmax(part.logits[0]))
        found = np.bincount(sampled[:, entry] - start, minlength=len(p)) / n
        np.testing.assert_allclose(found, p, atol=4 * 0.5 / n**0.5)


def test_what_it_cannot_play_is_refused(tmp_path):
    spaces, about, _ = written("nested observation", tmp_path)
    obs = observations(spaces.observation, 2)
    with pytest.raises(ValueError, match=r"obs\['b', 0\] has shape \(2, 4\); it must be \(3,\)"):
        Policy(tmp_path)({**obs, "b": (np.zeros((2, 4)), obs["b"][1])})
    (tmp_path / "policy.json").write_text(json.dumps({**about, "format": 2}))
    with pytest.raises(ValueError, match="has format 2, not 1; use the play.py that is in it"):
        Policy(tmp_path)


class Scripted:
    """Stands for a Gymnasium environment: three steps an episode, the reward is the number of the start's seed."""

    def reset(self, seed):
        self.seed, self.steps = seed, 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert action == ACTION
        self.steps += 1
        return np.full(3, 99.0), self.seed, False, self.steps == 3, {}


ACTION = 4


def test_whole_episodes_are_played_and_actions_repeated_as_in_training(tmp_path, monkeypatch, capsys):
    _, about, _ = written("discrete", tmp_path)
    about["env"] |= {"gymnasium": "Scripted-v0", "action_repeat": 2}
    seen = []

    def likeliest(self, obs):
        seen.append(float(obs[0]))
        return np.int32(ACTION)

    monkeypatch.setattr(play, "Policy", type("Fixed", (), {"about": about, "__call__": likeliest}))
    monkeypatch.setitem(sys.modules, "gymnasium", SimpleNamespace(make=lambda name: Scripted()))
    play.main(None, "2", "5")
    expected = {"env": "Scripted-v0", "episodes": 2, "return": (15 + 18) / 2, "return_std": 1.5}
    assert json.loads(capsys.readouterr().out) == expected
    assert seen == [0, 99, 0, 99], "two actions for three steps"


def test_what_there_is_to_play_is_asked_for(tmp_path, monkeypatch):
    _, about, _ = written("discrete", tmp_path)
    about["env"] |= {"name": "brax/hopper", "gymnasium": None}
    monkeypatch.setattr(play, "Policy", lambda: SimpleNamespace(about=about))
    with pytest.raises(SystemExit, match="brax/hopper is not in Gymnasium; name one: python play.py ENVIRONMENT"):
        play.main()
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SystemExit, match="python -m pip install gymnasium"):
        play.main("Hopper-v5")
