"""Environments of one's own are held to the protocol: each mistake has its sentence."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import make
from jaxrl.envs.check import check_environment
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.types import Step
from tests.helpers.environments import Counter


def static(default):
    return field(default=default, metadata={"static": True})


def sound(env, state, action):
    return state + 1, Step(env.shown(state + 1), jnp.float32(1), state > 3, jnp.zeros((), bool), {"x": jnp.ones(2)})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Made:
    """An environment put together from pieces, one of which may be wrong. Its state counts the steps."""

    size: Any = 1.0
    starts: Any = static(lambda env: (jnp.int32(0), env.shown(jnp.int32(0))))
    steps: Any = static(sound)
    shown: Any = static(lambda state: state.astype(jnp.float32)[None])
    observation_space: Any = static(Box((1,), 0.0, 10.0))
    action_space: Any = static(Discrete(2, start=1))
    time_limit: Any = static(5)

    def reset(self, key):
        return self.starts(self)

    def step(self, key, state, action):
        return self.steps(self, state, action)


def stepping(**changes):
    """The sound step with some fields of its Step changed."""
    return lambda env, state, action: (state + 1, sound(env, state, action)[1]._replace(**changes))


PARTS = {"a": Discrete(20), "b": (Box((2,)), MultiDiscrete((3, 30)))}
SHOWN = lambda s: {"a": s, "b": (jnp.ones(2) * s, jnp.stack([s * 0, s]))}  # noqa: E731


@pytest.mark.parametrize(
    "env",
    [
        Made(),
        Counter(),
        Made(time_limit=None, action_space=Box((2,), -1, 1)),
        Made(shown=SHOWN, observation_space=PARTS),
        Made(shown=lambda s: jnp.zeros(1, jnp.bfloat16)),
        Made(shown=lambda s: jnp.full(1, -1e-7)),
        Made(starts=lambda env: (jnp.int32(0), np.zeros(1, np.float32))),
    ],
)
def test_a_sound_environment_passes_also_while_another_trace_is_under_way(env):
    check_environment(env)
    jax.jit(lambda: check_environment(env))()
    jax.jit(check_environment)(env)


MISTAKES = {
    "swapped": (
        Made(starts=lambda env: (jnp.zeros(1), jnp.int32(0))),
        r"obs of reset has shape \(\).*its state would fit: reset must give \(state, obs\), in this order",
    ),
    "list": (Made(steps=stepping(reward=[1.0])), r"reward of step is a list of 1; it must be a scalar: jnp.float32"),
    "alone": (Made(starts=lambda env: jnp.zeros(1)), r"reset gives a .*; it must give \(state, obs\)"),
    "three": (Made(starts=lambda env: (0, 0, 0)), r"reset gives a tuple of 3; it must give \(state, obs\)"),
    "shape": (Made(observation_space=Box((2,))), r"obs of reset has shape \(1,\); observation_space says Box"),
    "kind": (Made(observation_space=Box((1,), 0, 255, np.uint8)), "obs of reset is float32.*give integers, or a space"),
    "structure": (Made(observation_space={"a": Box((1,))}), "obs of reset has structure"),
    "next shape": (Made(steps=stepping(next_obs=jnp.zeros(2))), r"next_obs of step has shape \(2,\)"),
    "gymnasium": (
        Made(steps=lambda e, s, a: (s, 1.0, True, False, {})),
        r"gives a tuple of 5; it must give \(state, Step\)",
    ),
    "state shape": (
        Made(steps=lambda e, s, a: (s[None], sound(e, s, a)[1])),
        r"state is int32 of shape \(\).*\(1,\) after",
    ),
    "state dtype": (Made(steps=lambda e, s, a: (s + 0.5, sound(e, s, a)[1])), "int32 of shape .* and float32 of shape"),
    "state form": (Made(steps=lambda e, s, a: ((s, s), sound(e, s, a)[1])), "structure .* and step one of"),
    "reward kind": (
        Made(steps=stepping(reward=jnp.int32(1))),
        "reward is int32.*scalar of floats: give it as jnp.float32",
    ),
    "reward shape": (Made(steps=stepping(reward=jnp.zeros((1, 1)))), r"reward is float32 of shape \(1, 1\)"),
    "bodies": (Made(steps=stepping(reward=jnp.zeros(4))), r"leading axis of 4 bodies, set env_axis = 0"),
    "integer flag": (Made(steps=stepping(terminated=jnp.int32(0))), "terminated is int32.*booleans.*astype"),
    "float flag": (Made(steps=stepping(truncated=jnp.zeros(()))), "truncated is float32.*booleans"),
    "no info": (
        Made(steps=stepping(info=None)),
        "info of step is a NoneType; it must be a dict of arrays, {} for none",
    ),
    "nested info": (Made(steps=stepping(info={"a": {"b": 1.0}})), r"info\['a'\] is a dict of 1; info must be flat"),
    "words in info": (Made(steps=stepping(info={"a": "b"})), r"info\['a'\] is a str"),
    "crash": (
        Made(steps=lambda e, s, a: s if s > 0 else None),
        "step fails when it is traced .TracerBool.*: jnp.where",
    ),
    "limit": (Made(time_limit=5.0), "time_limit = 5.0 must be the usual length of an episode in steps, or None"),
    "space": (Made(action_space=3), "action_space = 3 must be a space of jaxrl.spaces"),
    "leaf": (Made(size="big"), "'big' among its leaves is no array; make its field static"),
    "discrete": (
        Made(shown=lambda s: s + 7, observation_space=Discrete(3, start=5)),
        r"next_obs of step lies between 8 and 8, beyond|obs of reset lies",
    ),
    "box": (Made(observation_space=Box((1,), 0.0, 0.5)), "next_obs of step lies between 1.0 and 1.0, beyond.*widen"),
    "low": (Made(observation_space=Box((1,), 0.5)), "obs of reset lies between 0.0 and 0.0, beyond"),
}


@pytest.mark.parametrize(("env", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_has_its_sentence(env, sentence):
    with pytest.raises(ValueError, match=f"environment Made: .*{sentence}"):
        check_environment(env)


class NoStep:
    observation_space = action_space = Discrete(2)
    time_limit = None

    def reset(self, key):
        return key, jnp.int32(0)


class NoPytree(NoStep):
    def step(self, key, state, action):
        return state, Step(jnp.int32(0), jnp.float32(0), jnp.zeros((), bool), jnp.zeros((), bool), {})


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"NoStep: it has no step; add it: def step\(self, key, state, action\)"):
        check_environment(NoStep())
    with pytest.raises(ValueError, match="NoPytree: it is not a pytree; put @jax.tree_util.register_dataclass"):
        check_environment(NoPytree())


def test_of_many_bodies_the_first_is_looked_at():
    bodies = Counter(jnp.asarray([1.0, 2.0, 3.0]))
    check_environment(bodies, env_axis=0)
    jax.jit(lambda: check_environment(bodies, env_axis=0))()
    jax.jit(lambda env: check_environment(env, env_axis=0))(bodies)
    with pytest.raises(ValueError, match="set env_axis = 0|they must be the same"):
        check_environment(bodies)
    with pytest.raises(ValueError, match="every leaf has a leading axis"):
        check_environment(Counter(), env_axis=0)


def test_ours_are_not_looked_at(monkeypatch):
    env = make("gymnax/CartPole-v1")
    monkeypatch.setattr(type(env), "reset", lambda self, key: None)
    check_environment(env)
