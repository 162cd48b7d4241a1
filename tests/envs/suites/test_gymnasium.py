"""Environments that live on the host: what ended, what begins, who failed; and that PPO learns there as elsewhere."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, Schedule, export, load_policy, make, program, replace, run, train
from jaxrl.envs import registry
from jaxrl.envs.suites import gymnasium as suite
from jaxrl.envs.suites.gymnasium.bodies import with_ends
from jaxrl.envs.suites.gymnasium.mask import ShowMask
from jaxrl.envs.suites.gymnasium.spaces import as_space
from jaxrl.envs.trial import try_environment
from jaxrl.evaluators import evaluate
from jaxrl.networks import actor_critic
from jaxrl.ops.masks import random_actions
from jaxrl.reports.episode import record_episodes, save_recording
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.exporting.play import Policy
from jaxrl.settings import EnvOptions
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.sweeps import Plan, sweep
from jaxrl.types import HostFailed, InputError
from tests.helpers import hosted
from tests.helpers.environments import Counter
from tests.helpers.hosted import Told

SCRIPT, MANY = "tests.helpers.hosted:script", "tests.helpers.hosted:many"


def opened(name, n=2, **settings):
    return registry.from_config(EnvConfig(name, num_envs=n, **settings))


def gymnasium_env(name):
    return getattr(hosted, name)()


def zeros(n=2):
    return np.zeros(n, np.int64)


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "time_limit", "terminated", "truncated"),
    [
        ({"ends": 3}, None, True, False),
        ({"ends": 99, "cut": 3}, None, False, True),
        ({"ends": 3, "cut": 3}, None, True, False),
        ({"ends": 99}, 3, False, True),
        ({"ends": 3}, 3, True, False),
    ],
)
def test_an_end_shows_its_own_successor_and_then_a_fresh_start(options, time_limit, terminated, truncated):
    env = opened(SCRIPT, options=options, time_limit=time_limit)
    first = env.reset(7)
    np.testing.assert_array_equal(first[:, 1], 0)
    for t in (1, 2):
        obs, said = env.step(zeros())
        np.testing.assert_array_equal(obs[:, 1], t)
        assert not said.terminated.any() and not said.truncated.any()
    obs, said = env.step(zeros())
    np.testing.assert_array_equal(said.next_obs, np.stack([first[:, 0], [3.0, 3.0]], axis=1))
    assert said.terminated.tolist() == [terminated] * 2 and said.truncated.tolist() == [truncated] * 2
    assert said.info["episode_return"].tolist() == [6.0] * 2 and said.info["episode_length"].tolist() == [3] * 2
    np.testing.assert_array_equal(obs[:, 1], 0)
    assert (obs[:, 0] != first[:, 0]).all(), "another draw"
    assert env.step(zeros())[1].info["episode_return"].tolist() == [1.0] * 2


@pytest.mark.parametrize("mode", ["DISABLED", "SAME_STEP"])
@pytest.mark.parametrize("options", [{"ends": 3}, {"ends": 99, "cut": 2}])
def test_a_vector_environment_of_ones_own_gives_what_gymnasiums_gives(mode, options):
    ours, own = opened(SCRIPT, options=options), opened(MANY, options={"autoreset_mode": mode, **options})
    np.testing.assert_array_equal(ours.reset(7), own.reset(7))
    for _ in range(8):
        (obs, said), (shown, told) = ours.step(zeros()), own.step(zeros())
        np.testing.assert_array_equal(obs, shown)
        jax.tree.map(np.testing.assert_array_equal, said, told)
    np.testing.assert_array_equal(ours.reset(9), own.reset(9))


def test_what_resets_itself_cannot_be_cut_from_outside():
    env = opened(MANY, options={"autoreset_mode": "SAME_STEP", "ends": 99}, time_limit=1)
    env.reset(0)
    with pytest.raises(InputError, match=r"cannot be reset for a time limit of jaxrl's.*AutoresetMode.DISABLED"):
        env.step(zeros())
    with pytest.raises(InputError, match=r"env.processes = True: .* makes many as one itself; leave it out"):
        opened(MANY, processes=True).reset(0)


def test_an_end_that_is_not_shown_is_said(monkeypatch):
    env = opened(MANY, options={"autoreset_mode": "SAME_STEP", "ends": 1})
    env.reset(0)
    own, step = env._bodies.envs, env._bodies.envs.step
    monkeypatch.setattr(own, "step", lambda action: (*step(action)[:4], {}))
    with pytest.raises(InputError, match=r"must say in info\['final_obs'\] what it was that ended; let it, or make it"):
        env.step(zeros())


def test_ends_may_be_told_as_arrays_of_all_or_one_by_one():
    shown, last = {"a": np.array([[1.0], [2.0]]), "b": np.array([3, 4])}, {"a": np.array([9.0]), "b": 7}
    ended, expected = np.array([False, True]), {"a": [[1.0], [9.0]], "b": [3, 7]}
    every = {"a": np.array([[5.0], [9.0]]), "b": np.array([6, 7])}
    for final in (np.array([None, last], dtype=object), every):
        jax.tree.map(np.testing.assert_array_equal, with_ends(shown, ended, final), jax.tree.map(np.array, expected))


def test_a_mask_in_info_is_heeded(tmp_path):
    env = opened("tests.helpers.hosted:masked", n=4)
    obs = env.reset(0)
    assert set(obs) == {"observation", "action_mask"}
    action = random_actions(env.spaces, jax.random.key(0), obs, 4)
    assert env.step(np.asarray(action))[1].reward.tolist() == [1.0] * 4, "only what is allowed"
    env = EnvConfig("tests.helpers.hosted:masked", num_envs=2, time_limit=5, eval_episodes=20)
    figures = run(PPO(env=env, num_steps=32, total_steps=256), 0, tmp_path / "run", progress=False).figures
    assert figures["return"] == figures["random_return"] == 1.0


def test_a_mask_in_info_is_shown_where_that_is_asked_for():
    env = opened("gymnasium/Taxi-v4", options={"show_mask": True})
    np.testing.assert_array_equal(env.reset(0)["action_mask"].shape, (2, 6))
    assert opened("gymnasium/Taxi-v4").reset(0).shape == (2,)
    with pytest.warns(UserWarning, match="info has an 'action_mask', which nobody heeds"):
        opened("gymnasium/Taxi-v4").reset(0)
    shown = opened("tests.helpers.hosted:Masked", options={"show_mask": True}).reset(0)
    assert set(shown) == {"observation", "action_mask"}
    with pytest.raises(InputError, match="none of Gymnasium's.*leave show_mask out"):
        make("tests.helpers.environments:Counter", show_mask=True)
    with pytest.raises(InputError, match="show_mask = True: .* says no 'action_mask' in info, nor has it action_masks"):
        opened("gymnasium/CartPole-v1", options={"show_mask": True}).reset(0)


@pytest.mark.parametrize(
    "said", [[1, 0, 0, 1, 1], (np.array([1, 0]), np.array([0, 1, 1])), np.array([[1, 0, 0, 1, 1]])]
)
def test_masks_may_be_said_by_a_method_and_entry_by_entry(said):
    env = Told(gymnasium.spaces.MultiDiscrete([2, 3]))
    env.action_masks = lambda: said
    obs, _ = ShowMask(gymnasium.wrappers.TimeLimit(env, 3)).reset(seed=0)
    assert obs["action_mask"].tolist() == [1, 0, 0, 1, 1]
    env.action_masks = lambda: np.ones(6)
    with pytest.raises(InputError, match="a mask of 6 for actions of .* 5 choices"):
        ShowMask(env).reset()
    with pytest.raises(InputError, match="actions of Box.* have no mask"):
        ShowMask(Told(gymnasium.spaces.Box(0, 1, (2,))))


def test_seeds_make_starts_the_same_again_and_each_environments_own():
    env = opened(SCRIPT)
    first, again, other = env.reset(3), env.reset(3), env.reset(4)
    np.testing.assert_array_equal(first, again)
    assert first[0, 0] != first[1, 0] and first[1, 0] == other[0, 0]


def test_an_environments_own_time_limit_is_known_and_truncates():
    env = opened("tests.helpers.hosted:limited")
    env.reset(0)
    assert [env.step(zeros())[1].truncated.tolist() for _ in range(3)] == [[False] * 2, [False] * 2, [True] * 2]
    assert registry.make("gymnasium/CartPole-v1").time_limit == 500


def test_numbers_that_are_not_finite_end_their_episode_and_count_for_nothing():
    env = opened(SCRIPT, options={"nan": 2})
    env.reset(0)
    env.step(zeros())
    obs, said = env.step(zeros())
    assert said.terminated.all() and said.info["invalid"].all() and not said.reward.any()
    assert not said.next_obs.any() and np.isfinite(obs).all()


# --- spaces -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_space_has_its_like():
    env = registry.make("tests.helpers.hosted:everything")
    assert env.observation_space == {
        "name": Discrete(3, start=2),
        "names": MultiDiscrete((2, 3)),
        "flags": Box((2,), 0, 1, np.int8),
        "pair": (Box((1,), 0, 1), Discrete(2)),
    }
    assert env.action_space == MultiDiscrete((2, 2), (5, 7))
    vector = registry.from_config(EnvConfig("tests.helpers.hosted:everything", num_envs=3))
    obs = vector.reset(0)
    shapes = {"name": (3,), "names": (3, 2), "flags": (3, 2), "pair": ((3, 1), (3,))}
    assert jax.tree.map(lambda x: x.shape, obs) == shapes
    assert vector.step(np.array([[5, 8], [6, 7], [6, 8]]))[1].reward.shape == (3,)


def test_a_policy_learns_from_every_kind_of_space_together(tmp_path):
    env = EnvConfig("tests.helpers.hosted:everything", num_envs=16, eval_episodes=8)
    env = replace(env, time_limit=1)
    config = PPO(env=env, num_steps=16, total_steps=16 * 16 * 15, learning_rate=1e-2, hidden=(16,))
    figures = run(config, 0, tmp_path / "run", schedule=Schedule(2, 1, 1), progress=False).figures
    assert figures["return"] > 0.9 and figures["random_return"] < 0.9
    # and plays on, with actions as the environment takes them
    there, policy = gymnasium_env("everything"), load_policy(tmp_path / "run")
    obs, _ = there.reset(seed=0)
    for _ in range(10):
        action = np.asarray(policy(obs))
        assert there.action_space.contains(action) and (action - [5, 7] == there.unwrapped.names).all()
        obs, _ = there.reset()


@pytest.mark.parametrize("kind", ["wide", "whole"])
def test_a_policy_of_actions_with_several_axes_plays_in_its_own_environment(tmp_path, kind):
    env = EnvConfig(f"tests.helpers.hosted:{kind}", num_envs=2, time_limit=5, eval_episodes=2)
    run(A2C(env=env, num_steps=8, total_steps=64), 0, tmp_path / "run", progress=False)
    there = gymnasium_env(kind)
    action = np.asarray(load_policy(tmp_path / "run")(np.zeros(1)))
    assert there.action_space.contains(action)
    assert load_policy(tmp_path / "run")(np.zeros((7, 1))).shape == (7, 2, 2)
    export(tmp_path / "run", tmp_path / "policy")
    np.testing.assert_allclose(Policy(tmp_path / "policy")(np.zeros(1)), action, rtol=1e-5)


def test_a_space_that_has_no_like_is_said():
    with pytest.raises(InputError, match="no space here for Text.*wrap the environment"):
        as_space(gymnasium.spaces.Text(5))
    with pytest.raises(InputError, match="choice between 18446744073709551616 whole numbers; wrap"):
        as_space(gymnasium.spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64), action=True)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "kept"),
    [
        (-5, 5, np.int64, np.int32),
        (0, 2**31 - 1, np.uint64, np.int32),
        (0, 2**31, np.int64, np.float32),
        (-(2**63), 2**63 - 1, np.int64, np.float32),
        (0, 2**32 - 1, np.uint32, np.uint32),
        (0, 255, np.uint8, np.uint8),
        (0, 1, np.float64, np.float32),
    ],
)
def test_whole_numbers_of_64_bits_are_not_cut_off(low, high, dtype, kept):
    assert as_space(gymnasium.spaces.Box(low, high, (2,), dtype)).dtype == kept


@pytest.mark.parametrize(
    ("space", "ours", "action", "given"),
    [
        (
            gymnasium.spaces.Box(-3, 4, (2, 2), np.int32),
            MultiDiscrete((8,) * 4, (-3,) * 4),
            [-3, 4, 0, -2],
            [[-3, 4], [0, -2]],
        ),
        (gymnasium.spaces.Box(-1, 1, (2, 2)), Box((4,), -1, 1), [0, 0.5, -1, 1], [[0, 0.5], [-1, 1]]),
        (gymnasium.spaces.Box(0, 10, ()), Box((1,), 0, 10), [4.0], 4.0),
        (
            gymnasium.spaces.MultiDiscrete([[2], [3]], start=[[1], [5]]),
            MultiDiscrete((2, 3), (1, 5)),
            [2, 5],
            [[2], [5]],
        ),
        (gymnasium.spaces.MultiBinary((1, 2)), MultiDiscrete((2, 2)), [1, 0], [[1, 0]]),
    ],
)
def test_actions_have_one_axis_here_and_their_own_shape_there(space, ours, action, given):
    env = suite.from_function(lambda: Told(space), "told", EnvOptions())
    assert env.action_space == ours
    bodies = env.open(1, processes=False)
    bodies.reset(np.ones(1, bool), [0])
    bodies.step(np.array([action], ours.dtype))
    told = bodies.envs.envs[0].told
    assert space.contains(told)
    np.testing.assert_array_equal(told, np.array(given, space.dtype))


def test_what_has_no_spaces_and_objects_of_gymnasiums_are_said():
    with pytest.raises(InputError, match="bare: .*observation_space"):
        suite.from_function(gymnasium.Env, "bare", EnvOptions())
    with pytest.raises(InputError, match="one of Gymnasium's.*EnvConfig"):
        train(PPO(env=EnvConfig(num_envs=2), total_steps=64), jax.random.key(0), env=gymnasium.make("CartPole-v1"))


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_may_say_which_module_registers_it():
    name = "gymnasium/tests.helpers.hosted:Told/Script-v0"
    env = make(name, ends=99)
    assert (env.time_limit, registry.name_of(env)) == (4, name)
    there = opened(name, options={"ends": 99}, processes=True)
    there.reset(0)
    assert [there.step(zeros())[1].truncated.all() for _ in range(5)] == [False, False, False, True, False]
    there.close()
    with pytest.raises(InputError, match="cannot import 'nowhere'.*PYTHONPATH"):
        make("gymnasium/nowhere:Script-v0")
    with pytest.raises(InputError, match="unknown environment.*the nearest are gymnasium/Told/Script-v0"):
        make("gymnasium/tests.helpers.hosted:Script-v0")


def test_every_listed_name_is_made_and_steps():
    failed = {}
    for name in suite.names():
        try:
            env = registry.from_config(EnvConfig(f"gymnasium/{name}", num_envs=1))
            env.reset(0)
            env.step(np.asarray(env.action_space.sample(jax.random.key(0)))[None])
            env.close()
        except InputError as error:
            failed[name] = str(error)
    assert not failed
    assert all(name in suite.UNAVAILABLE for name in ("Hopper-v2", "GymV21Environment-v0"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "gymnasium/CartPole-v9"}, "unknown environment 'gymnasium/CartPole-v9'; the nearest are gymnasium/C"),
        ({"name": "gymnasium/Hopper-v3"}, "gymnasium/Hopper-v3 is not available: it needs mujoco-py"),
        ({"name": "gymnasium/CartPole-v1", "options": {"speed": 3}}, "gymnasium/CartPole-v1 cannot be made.*speed"),
        ({"name": SCRIPT, "action_repeat": 2}, "env.action_repeat = 2 is for environments that are compiled"),
        ({"name": SCRIPT, "frame_stack": 2}, "lives on the host; wrap it in a function of yours"),
        ({"name": "gymnax/CartPole-v1", "processes": True}, "env.processes = True is for environments on the host"),
        (
            {"name": "tests.helpers.hosted:Old"},
            r"reset\(seed=0\) gives ndarray and not \(observation, info\), as Gymnasium wants it; info may be {}",
        ),
        (
            {"name": "tests.helpers.hosted:Unseeded"},
            r"cannot be reset \(TypeError: .*'seed'\); it is asked as reset\(seed=0\)",
        ),
        (
            {"name": "tests.helpers.hosted:Shapeless"},
            r"reset\(seed=0\) shows a ndarray of shape \(3,\), which does not fit observation_space = Box.*correct one",
        ),
        (
            {"name": "tests.helpers.hosted:Shapeless", "options": {"first": 2}},
            r"step\(action\) shows a ndarray of shape \(3,\), which does not fit",
        ),
        (
            {"name": "tests.helpers.hosted:Shapeless", "options": {"first": 2, "later": 2, "rewards": 2}},
            r"step\(action\) gives a reward of shape \(2,\); it must be one number",
        ),
        (
            {"name": "tests.helpers.hosted:OldStep"},
            r"step\(action\) gives a tuple of 4 and not \(observation, reward, terminated, truncated, info\)",
        ),
        ({"name": SCRIPT, "options": {"fails": 1}}, r"cannot be stepped \(KeyError: 'a wheel'\); it is asked as step"),
        ({"name": MANY, "options": {"autoreset_mode": "NEXT_STEP"}}, "an action does nothing after every end"),
    ],
)
def test_what_cannot_be_is_said(settings, words):
    with pytest.raises(InputError, match=words):
        program(PPO(env=EnvConfig(**settings)))


def test_a_reward_in_an_array_of_one_is_a_number():
    options = {"first": 2, "later": 2, "rewards": 1}
    assert program(PPO(env=EnvConfig("tests.helpers.hosted:Shapeless", time_limit=5, options=options)))


def test_what_needs_one_compiled_program_is_refused(tmp_path):
    config = PPO(env=EnvConfig(SCRIPT, num_envs=2, time_limit=5), num_steps=8, num_minibatches=1, total_steps=64)
    with pytest.raises(InputError, match="environments of Gymnasium, which no compiled program can call; train with"):
        jax.jit(train)(config, jax.random.key(0))
    with pytest.raises(InputError, match="runs on the host, and a sweep is one compiled program"):
        sweep(config, {"learning_rate": [1e-3, 1e-4]}, Plan(), tmp_path / "sweep", progress=False)
    with pytest.raises(InputError, match="lives on the host, and is not played in whole episodes"):
        program(Reinforce(env=config.env, num_steps=5, total_steps=100))


# --- learning ---------------------------------------------------------------------------------------------------------

CART = PPO(
    env=EnvConfig("gymnasium/CartPole-v1", num_envs=8, eval_episodes=10),
    total_steps=8 * 128 * 40,
    num_steps=128,
    num_epochs=10,
    learning_rate=1e-3,
)


def test_ppo_learns_cartpole_where_gymnasium_steps_it_and_plays_it_in_jax(tmp_path):
    ended = run(CART, 0, tmp_path / "run", schedule=Schedule(4, 2, 2), progress=False)
    assert ended.figures["return"] > 400 and ended.figures["random_return"] < 60
    assert ended.figures["env_steps"] == CART.total_steps
    # through the other's interface: the same body, written in JAX
    policy, ours = load_policy(ended.run_dir), registry.from_config(EnvConfig("gymnax/CartPole-v1", num_envs=10))
    state, obs = ours.reset(jax.random.key(0))

    @jax.jit
    def whole(state, obs):
        def step(carry, key):
            state, obs = carry
            state, obs, said = ours.step(key, state, policy(obs))
            return (state, obs), said.terminated

        return jax.lax.scan(step, (state, obs), jax.random.split(jax.random.key(1), 400))[1]

    assert whole(state, obs).sum() < 20, "random actions end some 180"


def test_what_remembers_learns_on_the_host_too(tmp_path):
    short = replace(CART, total_steps=8 * 128 * 2, core="gru", core_size=8, hidden=(8,))
    ended = run(short, 0, tmp_path / "run", schedule=Schedule(2, 1, 1), progress=False)
    assert np.isfinite(ended.figures["return"])


def test_the_first_ratio_is_one_and_the_value_bootstraps_at_a_time_limit(tmp_path):
    env = EnvConfig("tests.helpers.hosted:constant", num_envs=16, eval_episodes=2)
    learning = {"gamma": 0.9, "learning_rate": 1e-2, "hidden": (16,)}
    config = PPO(env=env, num_steps=16, total_steps=16 * 16 * 60, **learning)
    still = replace(config, learning_rate=0.0, total_steps=16 * 16 * 2, normalize_obs=True)
    rows = read_metrics(run(still, 0, tmp_path / "still", progress=False).run_dir / "metrics.jsonl")
    assert all(abs(row["approx_kl"]) < 1e-9 for row in rows)
    learner = run(config, 0, tmp_path / "run", progress=False).state.learner
    network = actor_critic(registry.from_config(env).spaces, hidden=(16,))
    # 1 + γ + γ² + …, of which only bootstrapping beyond the tenth step knows
    np.testing.assert_allclose(network.apply(learner.params, jnp.zeros((1, 1)))[1], [10.0], rtol=0.02)


def test_a_run_goes_on_from_its_checkpoint_with_fresh_episodes(tmp_path):
    short = replace(CART, total_steps=8 * 128 * 4)
    ended = run(short, 0, tmp_path / "run", schedule=Schedule(4, 1, 4), progress=False)
    longer = replace(short, total_steps=8 * 128 * 6)
    kept = {"schedule": Schedule(6, 1, 6), "progress": False, "resume": True, "accept_changes": True}
    again = run(longer, 0, ended.run_dir, **kept)
    assert again.figures["env_steps"] == 8 * 128 * 6
    other = run(short, 0, tmp_path / "other", schedule=Schedule(4, 1, 4), progress=False)
    for a, b in zip(jax.tree.leaves(ended.state.learner), jax.tree.leaves(other.state.learner), strict=True):
        np.testing.assert_array_equal(a, b)


# --- failures ---------------------------------------------------------------------------------------------------------


def test_what_fails_is_said_and_all_that_was_learned_is_saved(tmp_path):
    env = EnvConfig(SCRIPT, num_envs=2, options={"ends": 99, "fails": 20}, time_limit=99, eval_episodes=2)
    config = A2C(env=env, num_steps=8, total_steps=16 * 10)
    with pytest.raises(HostFailed, match=r"host \(KeyError: 'a wheel', in step at hosted.py:\d+\); all that was"):
        run(config, 0, tmp_path / "run", schedule=Schedule(10, 0, 1), progress=False)
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_a_missing_time_limit_is_said_before_anything_is_written(tmp_path):
    config = PPO(env=EnvConfig("tests.helpers.hosted:masked", num_envs=2), num_steps=32, total_steps=256)
    with pytest.raises(InputError, match="needs a time limit"):
        run(config, 0, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_processes_step_as_one_does_and_a_dead_one_is_a_sentence():
    here, there = opened(SCRIPT), opened(SCRIPT, processes=True)
    np.testing.assert_array_equal(here.reset(5), there.reset(5))
    for _ in range(6):
        (a, said), (b, also) = here.step(zeros()), there.step(zeros())
        np.testing.assert_array_equal(said.next_obs, also.next_obs)
        np.testing.assert_array_equal(a[:, 1], b[:, 1])
    there.close()
    dying = opened(SCRIPT, processes=True, options={"dies": 2})
    dying.reset(0)
    dying.step(zeros())
    with pytest.raises(HostFailed, match="script failed on the host"):
        dying.step(zeros())


def test_evaluation_plays_as_many_episodes_as_asked_each_environment_as_often():
    env = EnvConfig(SCRIPT, num_envs=3, time_limit=50)
    p = program(PPO(env=env, num_steps=8, num_minibatches=1, total_steps=24))
    learner = p.algorithm.init(jax.random.key(0))
    found = evaluate(env, p.algorithm, learner, jax.random.key(0), num_episodes=7, behaviour="random")
    assert found.episode_length.tolist() == [5] * 7 and found.episode_return.tolist() == [15.0] * 7


def test_an_episode_is_filmed_by_its_own_render(tmp_path):
    env = EnvConfig(SCRIPT, num_envs=2, time_limit=50)
    config = PPO(env=env, num_steps=8, num_minibatches=1, total_steps=16)
    learner = program(config).algorithm.init(jax.random.key(0))
    filmed = record_episodes(config, learner, [jax.random.key(0)])
    assert [frame[0, 0, 0] for frame in filmed.episodes[0]] == [0, 1, 2, 3, 4, 5]
    assert (filmed.lengths, filmed.returns, filmed.dt) == ([5], [15.0], 0.1)
    assert save_recording(tmp_path / "film.gif", filmed).stat().st_size > 0
    with pytest.raises(InputError, match="drawn as pictures"):
        save_recording(tmp_path / "film.html", filmed)
    for name, words in (("blank", "makes no pictures"), ("dark", "division by zero.*set MUJOCO_GL=egl or osmesa")):
        other = replace(config, env=replace(env, name=f"tests.helpers.hosted:{name}"))
        with pytest.raises((InputError, HostFailed), match=words):
            record_episodes(other, learner, [jax.random.key(0)])


@pytest.mark.parametrize(
    ("options", "wrong"), [({}, None), ({"fails": 3}, "KeyError: 'a wheel'"), ({"nan": 3}, "steps gave")]
)
def test_a_trial_plays_what_lives_on_the_host(options, wrong):
    findings = list(try_environment(make(SCRIPT, **options), num_steps=100))
    found = [finding.wrong for finding in findings if finding.wrong]
    assert found == [] if wrong is None else wrong in found[0]


def test_an_object_of_our_own_contract_is_no_gymnasium_environment():
    assert not getattr(Counter(), "hosted", False) and not getattr(make("gymnax/CartPole-v1"), "hosted", False)
