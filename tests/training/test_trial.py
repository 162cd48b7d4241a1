"""An algorithm on trial: each breach of what drivers rely on is found by the check that is for it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, config, static
from jaxrl.ops import metrics as m
from jaxrl.training.trial import try_algorithm
from jaxrl.types import Algorithm, Program, Source, Unit
from tests.training.test_third_kind import TRUTH, LineFit

PENDULUM = EnvConfig("gymnax/Pendulum-v1", num_envs=4, eval_episodes=4)
SMALL_PPO = PPO(env=PENDULUM, total_steps=640, num_steps=16, normalize_obs=True)
RATIO = ["the first ratio is 1", "the update's own first ratio is 1"]


def found(config, **given):
    return {finding.check: finding for finding in try_algorithm(config, **given)}


def wrong(config, **given):
    return [(name, finding.wrong) for name, finding in found(config, **given).items() if finding.wrong]


@pytest.mark.parametrize(
    ("config", "ratios"),
    [
        (SMALL_PPO, RATIO),
        (A2C(env=PENDULUM, total_steps=640, num_steps=8), RATIO[:1]),
        (
            Reinforce(env=EnvConfig(num_envs=4, time_limit=20, eval_episodes=4), total_steps=800, num_steps=20),
            RATIO[:1],
        ),
    ],
    ids=["ppo", "a2c", "reinforce"],
)
def test_ours_pass(config, ratios):
    findings = found(config)
    assert [name for name in findings if "ratio" in name] == ratios
    assert len(findings) == 6 + len(ratios) and not any(finding.wrong for finding in findings.values())
    assert "updates of" in findings["the config makes a program"].note


def test_a_learner_of_a_third_kind_is_tried_with_what_it_is_given():
    findings = found(LineFit(), truth=TRUTH)
    assert len(findings) == 6 and not any(finding.wrong for finding in findings.values())
    assert wrong(LineFit()) == [("the config makes a program", "LineFit needs the truth")]


def test_statistics_that_move_before_the_epochs_are_found(monkeypatch):
    from jaxrl.algorithms import ppo

    def early(*given, fit=ppo.fit):
        *rest, samples, memory = given
        # as if the observations had been normalised by what this very batch taught
        return fit(*rest, samples._replace(obs=samples.obs * 1.1), memory)

    monkeypatch.setattr(ppo, "fit", early)
    ((name, sentence),) = wrong(SMALL_PPO)
    assert name == RATIO[1] and "move statistics only after the epochs" in sentence


def test_log_probs_of_other_actions_than_were_sampled_are_found(monkeypatch):
    from jaxrl.ops.distributions import DiagGaussian

    score = DiagGaussian.log_prob
    monkeypatch.setattr(DiagGaussian, "log_prob", lambda self, x: score(self, jnp.clip(x, -1, 1)) + 0.1 * x[..., 0])
    sample = DiagGaussian.sample
    calls = []

    def once(self, key):
        calls.append(None)
        return sample(self, key)

    monkeypatch.setattr(DiagGaussian, "sample", once)
    assert not wrong(A2C(env=PENDULUM, total_steps=640, num_steps=8)), "scored alike on both sides: a ratio of 1"


class Learner(NamedTuple):
    x: jax.Array


@config
class Broken:
    """Sums numbers; `fault` says what is wrong with it."""

    fault: str = static("")
    rate: float = 0.1

    def program(self) -> Program:
        def init(key):
            return Learner(jnp.asarray(1.0) if self.fault == "weak" else jnp.float32(1.0) + 0 * jax.random.uniform(key))

        def update(key, learner, batch):
            x = learner.x + self.rate * jnp.mean(batch)
            x = {
                "shape": lambda: x[None],
                "random": lambda: x + np.random.rand(),
                "structure": lambda: (x, x),
            }.get(self.fault, lambda: x)()
            told = {"x": m.mean(x if self.fault not in ("shape", "structure") else learner.x)}
            if self.fault == "plain":
                told["x"] = x
            if self.fault == "vector":
                told["x"] = m.Mean(jnp.ones(2), jnp.ones(2))
            if self.fault == "nan":
                told["y"] = m.mean(jnp.log(-jnp.abs(x)))
            if self.fault == "nothing":
                told["y"] = m.mean(x, jnp.zeros((), bool))
            return Learner(x), told

        def collect(key, learner, carry):
            mapped = self.fault == "vmap" and type(key).__name__ != "DynamicJaxprTracer"
            return carry, jax.random.normal(key, (4,)) + mapped

        steps = dict(total_steps=40, steps_per_update=4, unit=Unit("numbers", "numbers"))
        return Program(Algorithm(init, update), Source(lambda key: jnp.zeros(()), collect), **steps)


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        ("shape", "the state keeps its structure, shapes and types", "state.learner.x is float32 of shape ()"),
        ("structure", "the state keeps its structure, shapes and types", "they must be the same"),
        ("weak", "the state keeps its structure, shapes and types", "state.learner.x is weakly typed on one side"),
        ("plain", "metrics keep their names and are finite", "give a Mean, as jaxrl.ops.metrics.mean(x) makes it"),
        ("vector", "metrics keep their names and are finite", "x has shape (2,); take the mean within the update"),
        ("nan", "metrics keep their names and are finite", "y not finite within 3 updates"),
        ("random", "evaluation leaves training unchanged, and an update has no memory of its own", "its key"),
        ("vmap", "two seeds under vmap are the two alone", "of seed 0 the update differs by"),
    ],
)
def test_each_fault_is_found_by_its_check(fault, check, words):
    sentences = dict(wrong(Broken(fault)))
    assert words in sentences[check], sentences


@pytest.mark.parametrize("fault", ["", "nothing"])
def test_a_sound_one_passes_also_where_nothing_was_counted(fault):
    assert not wrong(Broken(fault))


def test_steps_that_are_counted_and_not_taken_are_found():
    @config
    class Short(A2C):
        def program(self, env=None, network=None):
            return super().program(env, network)._replace(steps_per_update=64, total_steps=640)

    short = Short(env=PENDULUM, total_steps=640, num_steps=8)
    ((name, sentence),) = wrong(short)
    assert name == "steps executed are steps counted"
    assert "a batch holds 32 steps, and steps_per_update = 64" in sentence
