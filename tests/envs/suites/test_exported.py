"""Our environments through Gymnasium's doors, held to its own checker."""

import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import jaxrl
from jaxrl import PPO, EnvConfig, Schedule, load_policy, run
from jaxrl.envs.suites.gymnasium.spaces import as_gymnasium_space, as_space
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.types import InputError
from tests.helpers.environments import Counter

NAMES = ["gymnax/CartPole-v1", "gymnax/Pendulum-v1", "gymnax/Breakout-MinAtar", "gymnax/FrozenLake-misc"]


@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_own_checker_finds_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(Box observation space|Box action space|render).*")
        check_env(jaxrl.to_gymnasium(name), skip_render_check=True)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3, start=2),
        MultiDiscrete((2, 3), (5, -1)),
        Box((2,), -1.0, np.array([1.0, np.inf])),
        Box((4, 4, 1), 0, 255, np.uint8),
        Box((2,), 0, 1, np.bool_),
        {"a": Discrete(2), "b": (Box((1,)), Discrete(3))},
    ],
    ids=repr,
)
def test_a_space_there_and_back_is_itself(space):
    assert as_space(as_gymnasium_space(space)) == space


@pytest.mark.parametrize(
    ("name", "action", "words"),
    [
        ("gymnax/CartPole-v1", 2, "action = array.2. lies outside Discrete.2."),
        ("gymnax/CartPole-v1", -1, "lies outside"),
        ("gymnax/CartPole-v1", 0.5, "lies outside"),
        ("gymnax/CartPole-v1", [1], r"has shape .1,.; Discrete.2. has .."),
        ("gymnax/Pendulum-v1", 0.5, r"has shape ..; Box.* has .1,."),
    ],
)
def test_an_action_that_is_none_is_refused(name, action, words):
    env, many = jaxrl.to_gymnasium(name), jaxrl.to_gymnasium_vector(name, 3)
    env.reset(seed=0)
    many.reset(seed=0)
    with pytest.raises(InputError, match=words):
        env.step(action)
    with pytest.raises(InputError, match="lies outside|has shape"):
        many.step(np.stack([np.asarray(action)] * 3))
    with pytest.raises(InputError, match="has shape"):
        many.step(np.zeros((2, *many.single_action_space.shape), int))
    with pytest.raises(InputError, match="leave reset_mask out"):
        many.reset(options={"reset_mask": np.array([True, False, False])})


def test_an_episode_is_that_of_the_environment_itself():
    env, ours = jaxrl.to_gymnasium("gymnax/CartPole-v1"), jaxrl.make("gymnax/CartPole-v1")
    obs, info = env.reset(seed=3)
    assert info == {} and obs.dtype == np.float32
    state, total = env._state, 0.0
    for t in range(500):
        inner = jax.tree.map(lambda x: x[0], state.env_state)
        _, step = ours.step(jax.random.key(0), inner, jnp.int32(t % 2))
        obs, reward, terminated, truncated, info = env.step(t % 2)
        np.testing.assert_allclose(obs, step.next_obs, atol=1e-6)
        assert (reward, terminated) == (float(step.reward), bool(step.terminated))
        total, state = total + reward, env._state
        if terminated or truncated:
            break
    assert terminated and info["episode_return"] == total and info["episode_length"] == t + 1
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)


def test_a_time_limit_truncates_and_seeds_repeat_themselves():
    env = jaxrl.to_gymnasium("gymnax/Pendulum-v1")
    first, again = env.reset(seed=1)[0], env.reset(seed=1)[0]
    np.testing.assert_array_equal(first, again)
    assert (env.reset()[0] != first).any()
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(200)]
    assert ends[-1] == (False, True) and not any(t or c for t, c in ends[:-1])


def test_a_vector_resets_in_the_same_step_and_gives_what_ended():
    envs = jaxrl.to_gymnasium_vector(Counter(time_limit=3), 4)
    first, _ = envs.reset(seed=0)
    for _ in range(2):
        obs, _, terminated, truncated, infos = envs.step(np.zeros(4, np.int64))
        assert not (terminated | truncated).any() and "final_obs" not in infos
    obs, reward, terminated, truncated, infos = envs.step(np.array([0, 1, 0, 0]))
    assert terminated.tolist() == [False, True, False, False] and truncated.tolist() == [True, False, True, True]
    np.testing.assert_allclose(np.stack(infos["final_obs"]), first + 3, rtol=1e-6)
    assert infos["_final_obs"].all() and (obs < 1).all() and reward.dtype == np.float64
    assert envs.observation_space.contains(obs) and envs.metadata["autoreset_mode"].value == "SameStep"


def test_a_vector_may_wait_with_the_reset_as_gymnasiums_own_do():
    envs = jaxrl.to_gymnasium_vector(Counter(time_limit=3), 2, autoreset_mode="NEXT_STEP")
    first, _ = envs.reset(seed=0)
    right = np.array([0, 1])  # the second environment's action 1 ends it
    obs, _, terminated, _, _ = envs.step(right)
    assert terminated.tolist() == [False, True]
    np.testing.assert_allclose(obs, first + 1, rtol=1e-6)
    obs, reward, terminated, truncated, infos = envs.step(right)
    np.testing.assert_allclose(obs[0], first[0] + 2, rtol=1e-6)
    assert obs[1] < 1 and obs[1] != first[1] and reward[1] == 0 and not (terminated | truncated)[1], "a fresh start"
    assert infos["episode_length"].tolist() == [2, 0]
    fresh = obs[1]
    obs, reward, terminated, truncated, infos = envs.step(np.array([0, 0]))
    np.testing.assert_allclose(obs, [first[0] + 3, fresh + 1], rtol=1e-6)
    assert truncated.tolist() == [True, False] and infos["episode_length"].tolist() == [3, 1] and (reward != 0).all()
    with pytest.raises(InputError, match="autoreset_mode = 'DISABLED' is not one of SAME_STEP, NEXT_STEP"):
        jaxrl.to_gymnasium_vector(Counter(), 2, autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED)


def test_gymnasiums_wrappers_of_vectors_take_one_that_waits():
    envs = jaxrl.to_gymnasium_vector("gymnax/Pendulum-v1", 2, autoreset_mode="NEXT_STEP")
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(gymnasium.wrappers.vector.NormalizeObservation(envs))
    envs.reset(seed=0)
    told = [envs.step(np.zeros((2, 1), np.float32))[4] for _ in range(200)]
    np.testing.assert_allclose(told[-1]["episode"]["r"], told[-1]["episode_return"], rtol=1e-4)
    assert told[-1]["episode"]["l"].tolist() == [200, 200]


def test_a_policy_trained_in_brax_plays_through_gymnasium(tmp_path):
    config = PPO(
        env=EnvConfig("brax/inverted_pendulum", backend="spring", num_envs=32, resets="pool", eval_episodes=8),
        total_steps=131_072,
        num_steps=32,
        num_epochs=8,
        learning_rate=3e-3,
        gamma=0.97,
        reward_scale=0.1,
        normalize_obs=True,
        hidden=(32, 32),
    )
    # So short a training stands with four seeds of five, and which four differs with how a processor rounds.
    runs = (run(config, seed, tmp_path / f"{seed}", schedule=Schedule(1, 1, 1), progress=False) for seed in range(1, 6))
    ended = next(ended for ended in runs if ended.figures["return"] > 200)
    policy, env = load_policy(ended.run_dir), jaxrl.to_gymnasium("brax/inverted_pendulum", backend="spring")
    (obs, _), paid, over = env.reset(seed=0), 0.0, False
    while not over:
        obs, reward, terminated, truncated, _ = env.step(policy(obs))
        paid, over = paid + reward, terminated or truncated
    assert min(paid, ended.figures["return"]) > 200 and ended.figures["random_return"] < 40


def test_a_mask_is_in_the_info_too():
    class Masked(Counter):
        @property
        def observation_space(self):
            return {"action_mask": Box((3,), 0, 1, np.int8), "seen": Box((1,))}

        def reset(self, key):
            state, obs = super().reset(key)
            return state, {"action_mask": jnp.array([1, 1, 0], jnp.int8), "seen": obs}

        def step(self, key, state, action):
            state, step = super().step(key, state, action)
            return state, step._replace(next_obs={"action_mask": jnp.array([1, 0, 0], jnp.int8), "seen": step.next_obs})

    jax.tree_util.register_dataclass(Masked, ["step_size"], ["time_limit"])
    env = jaxrl.to_gymnasium(Masked())
    assert env.reset(seed=0)[1]["action_mask"].tolist() == [1, 1, 0]
    assert env.step(0)[4]["action_mask"].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jaxrl.to_gymnasium("gymnax/CartPole-v2"), "unknown environment"),
        (lambda: jaxrl.to_gymnasium(Counter(), size=2), r"options \['size'\] are for an environment by its name"),
        (lambda: jaxrl.to_gymnasium("gymnasium/CartPole-v1"), "is Gymnasium's own already; call gymnasium.make"),
        (lambda: jaxrl.to_gymnasium(Counter(), render_mode="human"), "render_mode = 'human' is none of .*has none"),
        (lambda: jaxrl.to_gymnasium_vector(Counter(), 2).reset(seed=[1, 2]), "give one seed"),
    ],
)
def test_what_cannot_be_is_said(call, words):
    with pytest.raises(InputError, match=words):
        call()
