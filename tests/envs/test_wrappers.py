import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs.registry import from_config, name_of
from jaxrl.envs.wrappers import FrameStack, Hide, StickyActions, bare, wrapped
from jaxrl.spaces import Box, Discrete
from jaxrl.types import InputError
from tests.helpers.environments import Counter


def played(env, actions, key):
    """Observations and executed actions of one environment."""
    state, obs = env.reset(key)
    seen, states = [obs], [state]
    for action, k in zip(actions, jax.random.split(key, len(actions)), strict=True):
        state, step = env.step(k, state, jnp.asarray(action))
        seen.append(step.next_obs)
        states.append(state)
    return np.stack(seen), states


# --- sticky actions ---------------------------------------------------------------------------------------------------


def test_a_sticky_action_is_the_one_executed_last_with_its_probability(key):
    env, n = StickyActions(make("gymnax/CartPole-v1"), 0.25), 4000
    state, _ = env.reset(key)
    state, _ = env.step(key, state, jnp.array(1))
    assert int(state.action) == 1, "there was none before the first"
    after = jax.vmap(lambda k: env.step(k, state, jnp.array(0))[0])(jax.random.split(key, n))
    assert abs(float(after.action.mean()) - 0.25) < 0.03


@pytest.mark.parametrize(("probability", "executed"), [(1.0, [1, 1, 1]), (1e-9, [1, 0, 2])])
def test_what_sticks_goes_on_sticking_and_a_reset_forgets_it(probability, executed, key):
    env = StickyActions(make("gymnax/MountainCar-v0"), probability)
    _, states = played(env, [1, 0, 2], key)
    assert [int(s.action) for s in states[1:]] == executed
    assert not env.reset(key)[0].acted


def test_every_frame_of_a_repeated_action_may_stick_as_in_the_arcade(key):
    config = EnvConfig("gymnax/CartPole-v1", num_envs=1, sticky_actions=0.5, action_repeat=4)
    assert isinstance(from_config(config).env.env, StickyActions)


# --- hidden entries ---------------------------------------------------------------------------------------------------


def test_hidden_entries_are_left_out_of_observations_and_space(key):
    whole = make("gymnax/CartPole-v1")
    env = Hide(whole, (1, -1))
    assert env.observation_space.shape == (2,)
    for bound, of_whole in zip(env.observation_space.static_bounds, whole.observation_space.static_bounds, strict=True):
        np.testing.assert_array_equal(bound, of_whole[[0, 2]])
    np.testing.assert_array_equal(played(env, [0, 1], key)[0], played(whole, [0, 1], key)[0][:, [0, 2]])


@pytest.mark.parametrize(
    ("name", "entries", "words"),
    [
        ("gymnax/CartPole-v1", (4,), r"name some of the entries 0 … 3"),
        ("gymnax/CartPole-v1", (0, 1, 2, 3), "not all"),
        ("gymnax/Breakout-MinAtar", (0,), "takes entries from a vector"),
    ],
)
def test_what_cannot_be_hidden_is_said(name, entries, words):
    with pytest.raises(InputError, match=words):
        _ = from_config(EnvConfig(name, hide=entries)).spaces


# --- frames -----------------------------------------------------------------------------------------------------------


def test_frames_are_the_newest_observations_oldest_first_and_begin_with_the_first_repeated(key):
    whole = make("gymnax/CartPole-v1")
    alone, _ = played(whole, [0, 1, 1, 0], key)
    seen, _ = played(FrameStack(whole, 3), [0, 1, 1, 0], key)
    padded = np.concatenate([alone[:1], alone[:1], alone])
    for t in range(5):
        np.testing.assert_array_equal(seen[t], padded[t : t + 3].reshape(-1))
    assert FrameStack(whole, 3).observation_space.shape == (12,)


def test_pictures_are_stacked_as_channels(key):
    env = FrameStack(make("gymnax/Breakout-MinAtar"), 2)
    (state, _), obs = env.reset(key)
    assert env.observation_space.shape == obs.shape == (10, 10, 8)
    _, own, newest = bare(env, env.reset(key)[0], obs)
    assert newest.shape == (10, 10, 4) and jax.tree.structure(own) == jax.tree.structure(state)


def test_frames_at_an_end_are_of_the_episode_that_ends_and_then_of_the_next(key):
    env = from_config(EnvConfig("gymnax/CartPole-v1", num_envs=2, time_limit=2, frame_stack=2))
    state, first = env.reset(key)
    state, second, _ = env.step(key, state, jnp.zeros(2, jnp.int32))
    state, fresh, step = env.step(key, state, jnp.zeros(2, jnp.int32))
    assert step.truncated.all()
    np.testing.assert_array_equal(step.next_obs[:, :4], second[:, 4:])
    np.testing.assert_array_equal(fresh[:, :4], fresh[:, 4:])
    assert (fresh != step.next_obs).any()


def test_what_cannot_be_stacked_is_said():
    with pytest.raises(InputError, match="env.frame_stack = 2 stacks vectors and pictures.*Discrete"):
        _ = from_config(EnvConfig("gymnax/FrozenLake-misc", frame_stack=2)).spaces


# --- all together -----------------------------------------------------------------------------------------------------


def test_a_config_wraps_in_order_and_the_name_is_that_of_what_lies_within():
    env = make("gymnax/CartPole-v1")
    config = EnvConfig(sticky_actions=0.1, action_repeat=2, hide=(1,), frame_stack=3)
    whole = wrapped(env, config)
    assert whole.observation_space.shape == (9,) and whole.action_space == Discrete(2)
    assert whole.time_limit == 250 and not whole.truncates
    assert name_of(whole) == "gymnax/CartPole-v1" and bare(whole)[0] is env
    assert wrapped(env, EnvConfig()) is env


def test_bodies_that_differ_are_wrapped_as_one_is(key):
    bodies = jax.tree.map(lambda x: jnp.stack([x, x]), make("gymnax/Pendulum-v1"))
    env = from_config(EnvConfig(num_envs=2, env_axis=0, sticky_actions=0.5, frame_stack=2), bodies)
    state, obs = env.reset(key)
    assert obs.shape == (2, 6) and env.step(key, state, jnp.zeros((2, 1)))[1].shape == (2, 6)


def test_an_action_mask_is_not_stacked(key):
    class Masked(Counter):
        @property
        def observation_space(self):
            return {"action_mask": Box((3,), 0, 1), "seen": super().observation_space}

        def reset(self, key):
            state, obs = super().reset(key)
            return state, {"action_mask": jnp.ones(3), "seen": obs}

    shown = FrameStack(Masked(), 2).observation_space
    assert shown["action_mask"].shape == FrameStack(Masked(), 2).reset(key)[1]["action_mask"].shape == (3,)
    assert shown["seen"].shape == (2,)
