"""EnvPool's environments, where the extra is installed."""

import numpy as np
import pytest

from jaxrl import EnvConfig, make
from jaxrl.envs.registry import from_config, name_of
from jaxrl.spaces import Box, Discrete
from jaxrl.types import InputError

pytestmark = pytest.mark.extra("envpool")


@pytest.fixture
def opened():
    found = []

    def open(name, num_envs, **fields):
        found.append(from_config(EnvConfig(f"envpool/{name}", num_envs=num_envs, **fields)))
        return found[-1]

    yield open
    for env in found:
        env.close()


def test_spaces_are_translated_and_pictures_have_their_channels_last():
    cartpole, pong = make("envpool/CartPole-v1"), make("envpool/Pong-v5")
    assert cartpole.action_space == Discrete(2) and cartpole.observation_space.shape == (4,)
    assert pong.observation_space == Box((84, 84, 4), 0, 255, np.uint8) and pong.action_space == Discrete(6)
    assert make("envpool/Ant-v4").action_space == Box((8,), -1.0, 1.0)
    assert make("envpool/Pong-v5", stack_num=1).observation_space.shape == (84, 84, 1)
    lander = make("envpool/LunarLander-v3").observation_space
    assert np.isinf(lander.static_bounds).all(), "EnvPool says from 1.2e-38 on, and means without bounds"
    assert (cartpole.time_limit, name_of(cartpole)) == (500, "envpool/CartPole-v1")


def test_every_listed_name_is_made_and_steps(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # Doom writes its settings where it is
    from jaxrl.envs.suites.extras import envpool as adapter

    failed = {}
    for name in adapter.names():
        env = None
        try:
            env = from_config(EnvConfig(f"envpool/{name}", num_envs=1))
            env.reset(0)
            said = env.step(np.stack([env.spaces.action.zero()]))[1]
            assert np.isfinite(said.reward).all()
        except Exception as error:
            if "requires the system Qt 5" not in str(error):  # Procgen's, and the sentence says what to install
                failed[name] = f"{type(error).__name__}: {error}"
        if env is not None:
            env.close()
    assert not failed


def test_steps_are_envpools_own_until_the_first_end(opened):
    import envpool

    env, raw = opened("CartPole-v1", 3), envpool.make_gymnasium("CartPole-v1", num_envs=3, seed=[7, 8, 9])
    np.testing.assert_array_equal(env.reset(7), raw.reset()[0])
    for t in range(200):
        action = np.array([t % 2, 0, 1])
        shown, said = env.step(action)
        obs, reward, terminated, truncated, _ = raw.step(action.astype(np.int32))
        np.testing.assert_array_equal(said.next_obs, obs)
        np.testing.assert_array_equal(said.reward, reward)
        np.testing.assert_array_equal(said.terminated, terminated)
        if terminated.any():
            break
    raw.close()
    ended = said.terminated
    assert ended.any() and not ended.all()
    assert (np.abs(said.next_obs[ended][:, [0, 2]]) > [2.4, 0.209]).any(), "the true successor"
    assert (np.abs(shown[ended]) <= 0.05).all(), "and a fresh start to act on"
    np.testing.assert_array_equal(shown[~ended], said.next_obs[~ended])


def test_a_fresh_start_is_stepped_from_at_once(opened):
    env, lengths = opened("CartPole-v1", 4), []
    obs = env.reset(0)
    for _ in range(300):
        before = obs
        obs, said = env.step(np.zeros(4, int))
        ended = said.terminated
        # Always pushed left: slower by 0.195 m/s at each step, from the very first on.
        np.testing.assert_allclose(said.next_obs[:, 1] - before[:, 1], -0.195, atol=0.02)
        assert not (ended & (said.info["episode_length"] < 7)).any()
        lengths += said.info["episode_length"][ended].tolist()
    assert len(lengths) > 100 and 8 <= np.mean(lengths) <= 11


def test_time_limits_truncate_and_shorter_ones_cut_what_goes_on(opened):
    env = opened("Pendulum-v1", 2, time_limit=5)
    env.reset(0)
    for t in range(15):
        shown, said = env.step(np.zeros((2, 1)))
        assert said.truncated.tolist() == [t % 5 == 4] * 2 and not said.terminated.any()
        assert (shown == said.next_obs).all() == (t % 5 != 4)
    own = opened("Pendulum-v1", 2, options={"max_episode_steps": 3})
    assert own.time_limit == 3
    own.reset(0)
    ends = [own.step(np.zeros((2, 1)))[1].truncated.all() for _ in range(6)]
    assert ends == [False, False, True] * 2


def test_pictures_are_envpools_own_turned(opened):
    import envpool

    env, raw = opened("Pong-v5", 2), envpool.make_gymnasium("Pong-v5", num_envs=2, seed=[3, 4])
    np.testing.assert_array_equal(env.reset(3), np.moveaxis(raw.reset()[0], 1, -1))
    for action in (2, 3, 0, 5):
        _, said = env.step(np.full(2, action))
        np.testing.assert_array_equal(said.next_obs, np.moveaxis(raw.step(np.full(2, action, np.int32))[0], 1, -1))
    raw.close()


def test_the_same_seed_gives_the_same(opened):
    env = opened("Ant-v4", 2)
    first, again, other = env.reset(3).copy(), env.reset(3).copy(), env.reset(4)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1], other[0])
    assert (first[0] != first[1]).any()


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Pnog-v5", {}, "unknown environment.*envpool/Pong-v5"),
        ("Sudoku-v0", {}, "not available: it needs a file of puzzles"),
        ("CartPole-v1", {"seed": 3}, "seed is not an option; set env.num_envs"),
        ("CartPole-v1", {"max_episode_stps": 3}, "cannot be made with {'max_episode_stps': 3}"),
    ],
)
def test_what_cannot_be_is_said(name, options, words):
    with pytest.raises(InputError, match=words):
        make(f"envpool/{name}", **options)


def test_processes_are_not_for_it():
    env = from_config(EnvConfig("envpool/CartPole-v1", num_envs=2, processes=True))
    with pytest.raises(InputError, match="steps in threads of its own; leave env.processes out"):
        env.reset(0)
