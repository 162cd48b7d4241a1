"""The NumPy runner is the policy: every head, activation and kind of observation."""

import json
import re
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
    sampled = sampled - np.atleast_1d(spaces.action.start)
    for entry, part in enumerate(getattr(d, "parts", (d,))):
        p = np.asarray(jax.nn.softmax(part.logits[0]))
        found = np.bincount(sampled[:, entry], minlength=len(p)) / n
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

    observation_space, action_space = SimpleNamespace(sample=lambda: [-1.0]), SimpleNamespace(n=4)

    def reset(self, seed):
        self.seed, self.steps = seed, 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        assert action == ACTION
        self.steps += 1
        return np.full(3, 99.0), self.seed, False, self.steps == 3, {}


ACTION = 4
ERRORS = SimpleNamespace(Error=type("Error", (Exception,), {}))


def test_whole_episodes_are_played_and_actions_repeated_as_in_training(tmp_path, monkeypatch, capsys):
    _, about, _ = written("discrete", tmp_path)
    about["env"] |= {"gymnasium": "Scripted-v0", "action_repeat": 2}
    seen = []

    def likeliest(self, obs):
        seen.append(float(obs[0]))
        return np.int32(ACTION)

    monkeypatch.setattr(play, "Policy", type("Fixed", (), {"about": about, "__call__": likeliest}))
    monkeypatch.setitem(sys.modules, "gymnasium", SimpleNamespace(make=lambda name: Scripted(), error=ERRORS))
    play.main(["Scripted-v0", "2", "5"])
    expected = {"env": "Scripted-v0", "episodes": 2, "return": (15 + 18) / 2, "return_std": 1.5}
    assert json.loads(capsys.readouterr().out) == expected
    assert seen == [-1, 0, 99, 0, 99], "two actions for three steps"


def unknown(name):
    raise ERRORS.Error(f"environment {name} doesn't exist")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "brax/hopper is not in Gymnasium; name one"),
        (["Hoper-v5"], "Gymnasium cannot make Hoper-v5: environment Hoper-v5 doesn't exist"),
        (
            ["Scripted-v0"],
            r"the policy learned brax/hopper, which Scripted-v0 is not: obs has shape \(1,\); it must be",
        ),
        (["Fitting-v0"], r"the policy learned brax/hopper, which Fitting-v0 is not: it has 4 discrete actions"),
        (["Scripted-v0", "abc"], "argument episodes: invalid int value: 'abc'"),
        (["Scripted-v0", "0"], "episodes = 0; play at least 1"),
        (["Scripted-v0", "1", "x"], "argument seed: invalid int value: 'x'"),
    ],
)
def test_what_it_cannot_play_is_a_sentence_and_status_2(words, sentence, tmp_path, monkeypatch, capsys):
    written("normal", tmp_path)
    policy = Policy(tmp_path)
    policy.about["env"] |= {"name": "brax/hopper", "gymnasium": None}
    monkeypatch.setattr(play, "Policy", lambda: policy)
    fitting = type("Fitting", (Scripted,), {"observation_space": SimpleNamespace(sample=lambda: np.zeros(3))})
    make = {"Scripted-v0": lambda name: Scripted(), "Fitting-v0": lambda name: fitting()}
    fake = SimpleNamespace(make=lambda name: make.get(name, unknown)(name), error=ERRORS)
    monkeypatch.setitem(sys.modules, "gymnasium", fake)
    with pytest.raises(SystemExit) as stopped:
        play.main(words)
    assert stopped.value.code == 2 and re.search(sentence, capsys.readouterr().err)


def test_without_gymnasium_it_says_how_to_get_it_and_help_is_help(tmp_path, monkeypatch, capsys):
    written("discrete", tmp_path)
    policy = Policy(tmp_path)
    monkeypatch.setattr(play, "Policy", lambda: policy)
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(SystemExit, match="2"):
        play.main(["Hopper-v5"])
    assert "python -m pip install gymnasium" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        play.main(["--help"])
    assert "usage: " in capsys.readouterr().out
