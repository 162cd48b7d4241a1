"""Environments by name."""

import multiprocessing
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, make, program, replace, run, train, vectorize
from jaxrl.envs import registry, wrappers
from jaxrl.envs.bodies import check_bodies
from jaxrl.spaces import Box
from jaxrl.types import InputError
from tests.helpers.environments import Counter


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gymnax/Cartpole-v1", "the nearest are gymnax/CartPole-v1"),
        ("brax/humanoit", "the nearest are brax/humanoid"),
        ("atari/Pong", "a suite of gymnax, brax, gymnasium, playground, probe"),
        ("CartPole-v1", 'not of the form "suite/name".*did you mean .gymnax/CartPole-v1.'),
        ("gym/Pendulm-v1", "did you mean .gymnax/Pendulum-v1."),
    ],
)
def test_an_unknown_name_lists_the_nearest(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(name)


def test_names_lists_what_works_and_unavailable_the_rest():
    names = registry.names()
    assert {"gymnax/CartPole-v1", "brax/humanoid", "probe/constant"} <= set(names)
    assert not set(names) & set(registry.unavailable())
    assert all(reason for reason in registry.unavailable().values())


def test_a_config_becomes_a_vector_env():
    env = registry.from_config(EnvConfig("gymnax/Pendulum-v1", num_envs=3, time_limit=10, action_repeat=2))
    assert (env.num_envs, env.time_limit, env.spaces.truncates) == (3, 10, True)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options_go_to_the_parameters_or_to_the_constructor():
    config = EnvConfig("gymnax/Pendulum-v1", options={"max_torque": 8, "max_steps_in_episode": 50})
    env = registry.from_config(config)
    assert (env.action_space, env.time_limit) == (Box((1,), -8.0, 8.0), 50)
    assert float(env.env.params.max_torque) == 8 and env.env.params.max_torque.dtype == np.float32
    assert make("gymnax/DeepSea-bsuite", size=4).observation_space.shape == (4, 4)
    assert float(make("probe/constant", reward=3).reward) == 3
    assert make("gymnax/Pendulum-v1").action_space == Box((1,), -2.0, 2.0), (
        "what is kept for the next call is untouched"
    )


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("gymnax/Pendulum-v1", {"max_torqe": 8.0}, "has no option 'max_torqe'; did you mean 'max_torque'?"),
        ("gymnax/FrozenLake-misc", {"map_nme": "8x8"}, "has no option 'map_nme'; did you mean 'map_name'?"),
        ("gymnax/FrozenLake-misc", {"map_name": "9x9"}, "map_name must be '4x4' or '8x8'"),
        ("gymnax/MetaMaze-misc", {"maze_size": 8}, "cannot be made with the options {'maze_size': 8}"),
        ("gymnax/Pendulum-v1", {"max_torque": "big"}, "max_torque = 'big' is of the wrong type; it is 2.0 by default"),
        ("gymnax/Pendulum-v1", {"max_steps_in_episode": 5.5}, "max_steps_in_episode = 5.5 does not fit"),
        ("gymnax/Pendulum-v1", {"g": True}, "g = True does not fit"),
        (
            "gymnax/Pendulum-v1",
            {"backend": "spring"},
            "backend = 'spring' means nothing to gymnax/Pendulum-v1",
        ),
        ("probe/constant", {"backend": "spring"}, "backend = 'spring' means nothing to probe/constant; leave it out"),
        ("probe/constant", {"rewards": 2.0}, "has no option 'rewards'; did you mean 'reward'?"),
        ("brax/ant", {"use_contact": 1}, "cannot be made|has no option 'use_contact'"),
    ],
)
def test_an_option_that_nothing_takes_is_a_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(name, **options)


def test_a_backend_is_named_once_and_only_where_it_means_something():
    with pytest.raises(ValueError, match="means nothing to gymnax/CartPole-v1"):
        registry.from_config(EnvConfig(backend="spring"))
    with pytest.raises(ValueError, match="leave one of them out"):
        registry.from_config(EnvConfig("brax/ant", backend="spring", options={"backend": "mjx"}))


# --- environments of one's own ----------------------------------------------------------------------------------------

HERE = "tests.helpers.environments"


def test_an_environment_of_ones_own_has_the_name_of_its_class():
    env = make(f"{HERE}:Counter", time_limit=7)
    assert isinstance(env, Counter) and env.time_limit == 7
    assert registry.name_of(env) == f"{HERE}:Counter"
    assert make(registry.name_of(env), time_limit=7) is env, "a second object might compile everything anew"
    vector = registry.from_config(EnvConfig(f"{HERE}:Counter", num_envs=3, options={"time_limit": 7}))
    assert (vector.env, vector.time_limit) == (env, 7)


def test_made_inside_a_trace_it_leaks_no_tracer(key):
    name = f"{HERE}:Counter"
    jax.eval_shape(lambda: make(name, time_limit=8).reset(key))
    jax.eval_shape(make(name, time_limit=8).step, key, jnp.ones(1), jnp.ones((), int))


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("no.such.module:Counter", {}, "cannot import 'no.such.module'.*put the folder that holds it on the path"),
        (":Counter", {}, "cannot import ''"),
        (f"{HERE}:Conter", {}, "has no class 'Conter'; did you mean 'Counter'?"),
        (f"{HERE}:Zzz", {}, "has no class 'Zzz'; its classes are Counter"),
        (f"{HERE}:Counter", {"time_limt": 3}, "Counter has no option 'time_limt'; did you mean 'time_limit'?"),
        ("tests.envs.test_registry:Picky", {"size": 3}, "Picky cannot be made with the options.*only even sizes"),
        ("tests.envs.test_registry:Picky", {}, "Picky cannot be made .TypeError: .*missing 1 required.*'size'"),
        ("tests.envs.test_registry:Picky", {"size": 2}, "Picky cannot be made .*KeyError: 2"),
    ],
)
def test_a_class_that_is_not_there_or_refuses_is_a_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(name, **options)


def test_a_module_that_cannot_be_imported_itself_is_not_looked_for_elsewhere(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wants_more.py").write_text("import pygame_that_is_missing")
    (tmp_path / "half_written.py").write_text("def f(:")
    with pytest.raises(InputError, match="it imports 'pygame_that_is_missing': install that, or leave it out$"):
        make("wants_more:Maze")
    with pytest.raises(InputError, match="cannot import 'half_written' .invalid syntax.*; mend it$"):
        make("half_written:Maze")


def test_a_script_that_would_train_again_where_it_is_imported_is_told(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trains_at_once.py").write_text("from jaxrl import PPO, run\nrun(PPO())")
    with pytest.raises(InputError, match="^'trains_at_once' begins a run when what looks .*under if __name__"):
        make("trains_at_once:Maze")
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(InputError, match="^the script begins a run when a process of its environments imports it"):
        run(PPO())


class Picky:
    def __init__(self, size):
        raise KeyError(size) if size == 2 else ValueError("only even sizes")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Broken(Counter):
    size: Any = 5
    looked: ClassVar[list] = []

    @property
    def observation_space(self):
        return Box((self.size - 4,))

    def step(self, key, state, action):
        self.looked.append(1)
        state, said = super().step(key, state, action)
        return state, said


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (6, r"environment Broken: the obs of reset has shape \(1,\).*made with the options {'size': 6}"),
        ("big", "environment Broken: its observation_space fails .TypeError: .*made with the options {'size': 'big'}"),
    ],
)
def test_a_named_environment_that_breaks_its_contract_is_a_sentence_of_every_program(size, sentence):
    config = PPO(env=EnvConfig(f"{__name__}:Broken", options={"size": size}))
    for begin in (program, lambda config: jax.jit(train)(config, jax.random.key(0))):
        with pytest.raises(ValueError, match=sentence):
            begin(config)


def test_a_named_environment_is_held_to_its_contract_once(monkeypatch):
    config = EnvConfig(f"{__name__}:Broken")
    monkeypatch.setattr(Broken, "looked", [])
    env = registry.environment(config)
    count = len(Broken.looked)
    assert count and registry.environment(replace(config, num_envs=4)) is env and len(Broken.looked) == count


@pytest.mark.parametrize("name", ["gymnax/CartPole-v1", "probe/match", "brax/inverted_pendulum"])
def test_ours_are_named_as_they_are_made(name):
    env = make(name)
    assert registry.name_of(env) == registry.name_of(vectorize(env, 2, action_repeat=2)) == name


# --- bodies -----------------------------------------------------------------------------------------------------------

BODIES = Counter(jnp.asarray([1.0, 2.0, 3.0]))


def one_step(config):
    env = registry.from_config(config, BODIES)
    state, obs = env.reset(jax.random.key(0))
    _, _, step = env.step(jax.random.key(1), state, jnp.zeros(config.num_envs, jnp.int32))
    return np.asarray(step.next_obs - obs)[:, 0]


@pytest.mark.parametrize(("num_envs", "moved"), [(3, [1, 2, 3]), (2, [1, 2]), (7, [1, 2, 3, 1, 2, 3, 1])])
def test_each_environment_has_its_own_body_and_more_of_them_go_around(num_envs, moved):
    np.testing.assert_allclose(one_step(EnvConfig(num_envs=num_envs, env_axis=0)), moved, rtol=1e-6)


def test_a_number_of_bodies_that_is_not_that_of_environments_can_be_refused():
    check_bodies(EnvConfig(num_envs=3, env_axis=0), BODIES)
    check_bodies(EnvConfig(num_envs=4), BODIES)
    with pytest.raises(ValueError, match="env.num_envs = 4, but the environment given has 3 bodies; set env.num_envs"):
        check_bodies(EnvConfig(num_envs=4, env_axis=0), BODIES)
    with pytest.raises(ValueError, match="num_envs = 4, but the environment given has 3 bodies"):
        vectorize(BODIES, 4, env_axis=0)


@pytest.mark.parametrize("env", [Counter(), make("gymnax/Pendulum-v1"), make("probe/constant")])
def test_one_body_is_not_many(env):
    with pytest.raises(ValueError, match="needs an environment whose every leaf has a leading axis.*Stack bodies"):
        registry.from_config(EnvConfig(env_axis=0), env)


def test_a_wrapper_of_ones_own_is_another_task():
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Doubled(wrappers.Wrapper):
        pass

    plain = registry.make("gymnax/CartPole-v1")
    assert registry.name_of(wrappers.ActionRepeat(plain, 2)) == "gymnax/CartPole-v1"
    assert registry.name_of(Doubled(plain)).endswith("test_a_wrapper_of_ones_own_is_another_task.<locals>.Doubled")
