"""How the programs of a run are compiled, and what they tell of their learner."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, program
from jaxrl.algorithms import programs
from jaxrl.ops import platform
from jaxrl.ops.platform import compile_lowered, compiler_options, tuned
from jaxrl.training.compiled import trace, which_finite
from jaxrl.types import Program

BIG = np.finfo(np.float32).max  # a sum of two is infinite, though each is finite


@pytest.mark.parametrize(
    ("leaf", "iswhich_finite"),
    [
        (jnp.full((3, 4), BIG), True),
        (jnp.full((100, 100), BIG), True),
        (jnp.zeros((3, 4)).at[2, 1].set(jnp.nan), False),
        (jnp.zeros((100, 100)).at[99, 99].set(-jnp.inf), False),
        (jnp.array(jnp.inf), False),
        (jnp.ones((2, 2), jnp.bfloat16).at[0, 1].set(jnp.nan), False),
        (jnp.zeros((0, 3)), True),
    ],
)
def test_of_each_leaf_is_told_whether_it_iswhich_finite(leaf, iswhich_finite):
    learner = {"a": jnp.ones(5), "b": leaf, "c": jnp.arange(3), "d": jnp.ones((128, 128)), "e": jnp.ones(())}
    np.testing.assert_array_equal(jax.jit(which_finite)(learner), [True, iswhich_finite, True, True])


def test_nothing_is_told_of_a_learner_without_floats():
    assert which_finite({"count": jnp.arange(3)}).shape == (0,)


@pytest.fixture
def optimized():
    """As a user has it, who has not asked JAX for fewest optimizations; the tests have."""
    jax.config.update("jax_disable_most_optimizations", False)  # set again before each test, in conftest.py


def test_what_is_large_or_runs_briefly_is_compiled_in_less_time(optimized):
    plain, light = platform._PLAIN, platform._LIGHT
    with tuned(plain_above=100):
        assert compiler_options(100, brief=False) == light
        assert compiler_options(101, brief=False) == plain
        assert compiler_options(100, brief=True) == compiler_options(101, brief=True) == {**plain, **light}
    with tuned(plain_above=None):
        assert compiler_options(101, brief=True) is None


def test_who_asks_jax_for_fewest_optimizations_gets_them(optimized):
    with tuned(plain_above=100):
        jax.config.update("jax_disable_most_optimizations", True)
        assert compiler_options(1, brief=False) is None


def test_an_xla_without_these_options_compiles_as_it_likes(optimized, monkeypatch):
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    monkeypatch.setattr(platform, "_LIGHT", {"xla_of_another_year": True})
    with pytest.raises(jax.errors.JaxRuntimeError, match="compile option"):
        lowered.compile(compiler_options=platform._LIGHT)
    with tuned(plain_above=100):
        assert compile_lowered(lowered, brief=False)(1.0) == 2.0


@pytest.mark.parametrize("name", ["gymnax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_what_is_compiled_is_traced_once_and_the_policy_held_to_its_environment_once(monkeypatch, name):
    calls = Counter()

    def counted(owner, what):
        function = getattr(owner, what)

        def asked(*args):
            calls[what] += 1
            return function(*args)

        monkeypatch.setattr(owner, what, asked)

    counted(Program, "collect"), counted(Program, "learn"), counted(programs, "check_distribution")
    config = PPO(env=EnvConfig(name, num_envs=2), total_steps=16, num_steps=8, num_minibatches=2, hidden=(4,))
    trace(config, {}, program(config))
    assert calls == {"collect": 1, "learn": 1, "check_distribution": 1}
