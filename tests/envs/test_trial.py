"""An environment on trial: each breach of what algorithms rely on is found by the check that is for it."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import make
from jaxrl.envs import trial
from jaxrl.envs.trial import try_environment
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Step

NAMES = (
    "protocol: spaces, dtypes, structure",
    "the same key gives the same",
    "starts are drawn",
    "compiles once",
    "finite over 2,048 steps with random actions",
    "observations lie inside their space",
    "terminated and truncated",
    "a copy alone steps as among others",
    "next_obs is the true successor, also at an end",
)


def static(default):
    return field(default=default, metadata={"static": True})


def drawn(key):
    return jax.random.uniform(key, (1,), maxval=0.5)


def walk(key, x, action):
    x = x + 0.1 * action
    return x, Step(x, x[0], x[0] > 1, jnp.zeros((), bool), {})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk:
    """From a start in [0, ½) by steps of 0 or 0.1 to beyond 1. Any piece may be wrong."""

    start: Any = static(drawn)
    take: Any = static(walk)
    observation_space: Any = static(Box((1,), 0.0, 1.2))
    time_limit: Any = static(100)
    truncates: Any = static(True)
    action_space = Discrete(2)

    def reset(self, key):
        x = self.start(key)
        return x, x

    def step(self, key, state, action):
        return self.take(key, state, action)


def found(env, **options):
    return {finding.check: finding for finding in try_environment(env, num_steps=2_000, **options)}


def wrong(env):
    """The only thing that is wrong: (check, sentence)."""
    (one,) = [(name, finding.wrong) for name, finding in found(env).items() if finding.wrong]
    return one


def test_a_sound_environment_passes_every_check():
    findings = found(Walk())
    assert tuple(findings) == NAMES and not any(finding.wrong for finding in findings.values())
    assert findings["starts are drawn"].note == "64 different ones of 64 keys"
    assert findings["compiles once"].note is None
    assert "episodes ended" in findings["terminated and truncated"].note


@pytest.mark.parametrize("name", ["gymnax/CartPole-v1", "gymnax/Pendulum-v1", "probe/constant", "probe/match"])
def test_ours_pass(name):
    assert not any(finding.wrong for finding in found(make(name)).values())


def test_a_broken_protocol_is_the_only_finding():
    env = Walk(start=lambda key: jnp.zeros(2))
    assert list(found(env)) == ["protocol: spaces, dtypes, structure"]
    assert "the obs of reset has shape (2,)" in wrong(env)[1]


def test_randomness_of_ones_own_is_found():
    def loaded(key, x, action):
        x, step = walk(key, x, action)
        return x, step._replace(reward=step.reward + np.random.rand())

    env = Walk(take=loaded)
    name, sentence = next((n, f.wrong) for n, f in found(env).items() if f.wrong)
    assert name == "the same key gives the same" and "draw all that is random from the key" in sentence


def test_starts_that_are_all_the_same_are_told_and_not_refused():
    finding = found(Walk(start=lambda key: jnp.zeros(1)))["starts are drawn"]
    assert finding.wrong is None and "all of 64 keys give the same" in finding.note


def test_weak_types_are_told():
    finding = found(make("probe/constant"))["compiles once"]
    assert finding.wrong is None and finding.note is None
    weak = Walk(start=lambda key: jnp.full((1,), 0.25) * 1 if False else jnp.broadcast_to(0.25, (1,)))
    assert "weak types" in found(weak)["compiles once"].note


def test_a_state_that_changes_its_types_would_be_compiled_again(monkeypatch):
    monkeypatch.setattr(trial, "play", lambda *args, play=trial.play: play(*args)._replace(programs=2))
    assert wrong(Walk())[0] == "compiles once"


def test_numbers_that_are_not_finite_are_counted():
    def breaks(key, x, action):
        x, step = walk(key, x, action)
        return x, step._replace(reward=jnp.log(1 - x[0]))  # the last step of an episode is beyond 1

    env = Walk(take=breaks)
    name, sentence = wrong(env)
    assert name.startswith("finite over") and "of them gave a reward or an observation that is not finite" in sentence
    note = found(env)["next_obs is the true successor, also at an end"].note
    assert note == "every end was a step that is not finite, so that there was nothing to look at"


def test_observations_beyond_their_space_are_found_however_late():
    name, sentence = wrong(Walk(observation_space=Box((1,), 0.0, 1.0)))
    assert name == "observations lie inside their space" and "an observation lies between" in sentence


def test_flags_that_contradict_what_the_environment_says():
    def cut(key, x, action):
        x, step = walk(key, x, action)
        return x, step._replace(terminated=jnp.zeros((), bool), truncated=step.terminated)

    name, sentence = wrong(Walk(take=cut, truncates=False))
    assert name == "terminated and truncated" and "truncates = False, and step sets truncated" in sentence
    assert not any(finding.wrong for finding in found(Walk(take=cut)).values())


def test_a_clock_that_is_called_an_end_and_no_end_at_all_are_told():
    def clocked(key, state, action):
        return state + 1, Step(state + 1, jnp.float32(1), state[0] >= 9, jnp.zeros((), bool), {})

    clock = Walk(start=lambda key: jnp.zeros(1), take=clocked, time_limit=10, observation_space=Box((1,)))
    assert "reached the time limit of 10 say terminated" in found(clock)["terminated and truncated"].note

    def endless(key, x, action):
        return x, Step(x, x[0], jnp.zeros((), bool), jnp.zeros((), bool), {})

    findings = found(Walk(take=endless, time_limit=None))
    assert "no episode ended; evaluation needs a time limit" in findings["terminated and truncated"].note
    assert "nothing to look at" in findings[NAMES[-1]].note
    assert findings[NAMES[-1]].wrong is None


def test_a_step_that_resets_itself_is_found():
    def resets(key, x, action):
        x, step = walk(key, x, action)
        _, k_start = jax.random.split(key)
        x = jnp.where(step.terminated, drawn(k_start), x)
        return x, step._replace(next_obs=x)

    name, sentence = wrong(Walk(take=resets))
    assert name == NAMES[-1] and "step resets itself where an episode ends" in sentence

    def returns(key, x, action):
        x, step = walk(key, x, action)
        x = jnp.where(step.terminated, 0.0, x)
        return x, step._replace(next_obs=x)

    finding = found(Walk(start=lambda key: jnp.zeros(1), take=returns))[NAMES[-1]]
    assert finding.wrong is None and "episodes end in the state that they start in" in finding.note


def test_an_end_that_is_some_start_by_chance_is_no_reset():
    def corner(key):
        return jax.random.randint(key, (1,), 0, 3).astype(jnp.float32)

    def ends(key, x, action):
        x = jnp.clip(x + 2 * action - 1, 0, 2)
        return x, Step(x, x[0], x[0] == 2, jnp.zeros((), bool), {})

    def strays(key, x, action):
        x = jnp.clip(x + 2 * action - 1, 0, 2)
        return corner(jax.random.fold_in(key, 5)), Step(x, x[0], x[0] == 2, jnp.zeros((), bool), {})

    for take in (ends, strays):  # of three states, some end in nearly every start
        assert not any(f.wrong for f in found(Walk(corner, take, Box((1,), 0.0, 2.0))).values())

    def resets(key, x, action):
        x, step = ends(key, x, action)
        x = jnp.where(step.terminated, corner(key), x)
        return x, step._replace(next_obs=x)

    name, sentence = wrong(Walk(corner, resets, Box((1,), 0.0, 2.0)))
    assert name == NAMES[-1] and "step resets itself where an episode ends" in sentence


def test_an_operation_over_all_copies_is_found(monkeypatch):
    def centred(self, key, state, action, step=trial.VectorEnv.step):
        state, obs, said = step(self, key, state, action)
        return state, obs, said._replace(next_obs=said.next_obs - said.next_obs.mean(0) + 0.5)

    monkeypatch.setattr(trial.VectorEnv, "step", centred)
    findings = found(Walk(observation_space=Box((1,))))
    assert "an operation runs over all of them" in findings["a copy alone steps as among others"].wrong
    assert "not what step gives by itself" in findings[NAMES[-1]].wrong


def test_too_few_steps_are_refused():
    with pytest.raises(ValueError, match="steps = 10 are too few to tell anything; give at least 64"):
        list(try_environment(Walk(), num_steps=10))
