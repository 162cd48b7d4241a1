"""A run read back is the run that was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.algorithms import A2C, PPO, Reinforce
from jaxrl.ops.distributions import Categorical
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import loading
from jaxrl.runs.driver import Schedule, run
from jaxrl.runs.exporting.play import Policy
from jaxrl.runs.loading import load_run, saved_run
from jaxrl.settings import EnvConfig, replace
from jaxrl.spaces import Box, Discrete
from jaxrl.types import InputError, Network
from tests.helpers.environments import Counter


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), num_steps=16, total_steps=256)
    return run(config, 3, tmp_path_factory.mktemp("runs") / "run", schedule=Schedule(2, 1, 2), progress=False)


def test_a_run_is_read_back_bit_for_bit_and_nothing_in_it_changes(ended):
    before = {path: path.stat().st_mtime_ns for path in ended.run_dir.rglob("*")}
    loaded = load_run(ended.run_dir)
    assert {path: path.stat().st_mtime_ns for path in ended.run_dir.rglob("*")} == before
    assert int(loaded.state.num_steps) == 256 and loaded.saved.about["seed"] == 3
    assert loaded.saved.about["schedule"] == {"logs": 2, "evals": 1, "saves": 2, "keeps": 0}
    assert loaded.notes == []
    for a, b in zip(jax.tree.leaves(ended.state.learner), jax.tree.leaves(loaded.state.learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_something_else_than_it_was_given_is_refused(ended):
    with pytest.raises(InputError, match="was run with no env of its own, not"):
        load_run(ended.run_dir, env=Counter())


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        saved_run(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds a sweep; take a member of it, by `--member N` or jaxrl.sweeps.load_m"):
        saved_run(tmp_path)


# --- from a run to an agent -------------------------------------------------------------------------------------------

CART, PENDULUM = (EnvConfig(f"gymnax/{name}", num_envs=4, eval_episodes=4) for name in ("CartPole-v1", "Pendulum-v1"))
KEY = jax.random.key(0)
CONFIGS = {
    "ppo": PPO(env=PENDULUM, num_steps=16, total_steps=128, head="tanh_normal", normalize_obs=True),
    "a2c": A2C(env=CART, num_steps=16, total_steps=128),
    "reinforce": Reinforce(env=replace(CART, time_limit=20), num_steps=20, total_steps=160, normalize_obs=True),
}


@pytest.fixture(scope="module", params=CONFIGS)
def learned(request, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / request.param
    return run(CONFIGS[request.param], 0, run_dir, schedule=Schedule(1, 0, 1), progress=False)


def observed(features, *lead):
    return np.random.default_rng(0).standard_normal((*lead, features))  # float64, as of a simulator


def test_a_policy_acts_as_the_algorithm_does_and_so_does_its_folder(learned, tmp_path):
    name = learned.run_dir.name
    obs = observed(3 if name == "ppo" else 4, 5)
    policy, algorithm = jaxrl.load_policy(learned.run_dir), load_run(learned.run_dir).program.algorithm
    d = algorithm.policy(learned.state.learner, (), jnp.asarray(obs, jnp.float32), jnp.ones(5, bool))[1]
    np.testing.assert_allclose(policy(obs), d.env_action(d.mode()), rtol=1e-6)
    sample = jaxrl.load_policy(learned.run_dir, behaviour="sample")
    np.testing.assert_allclose(sample(obs, KEY), d.env_action(d.sample(KEY)), rtol=1e-6)
    exported = jaxrl.export(learned.run_dir, tmp_path / "policy")
    assert exported.about["run"]["algorithm"] == name
    np.testing.assert_allclose(Policy(exported.folder)(obs), policy(obs), atol=1e-5)


def test_a_policy_takes_one_observation_and_any_batch_also_inside_jit_and_vmap(ended):
    policy, obs = jaxrl.load_policy(ended.run_dir), observed(4, 2, 3)
    actions = policy(obs)
    assert actions.shape == (2, 3) and actions.dtype == jnp.int32
    one = policy([float(x) for x in obs[1, 2]])
    assert one.shape == () and one == actions[1, 2]
    for mapped in (jax.jit(policy), jax.vmap(policy), jax.vmap(jax.vmap(policy))):
        np.testing.assert_array_equal(mapped(obs), actions)


def test_a_policy_asks_for_what_it_lacks(ended):
    with pytest.raises(InputError, match=r"call policy\(obs, key\)"):
        jaxrl.load_policy(ended.run_dir, behaviour="sample")(np.zeros(4))
    with pytest.raises(InputError, match="behaviour = 'likeliest' is not one of 'mode', 'sample'"):
        jaxrl.load_policy(ended.run_dir, behaviour="likeliest")
    policy = jaxrl.load_policy(ended.run_dir)
    with pytest.raises(InputError, match=r"obs has shape \(5,\) where the space has \(4,\)"):
        policy(np.zeros(5))
    with pytest.raises(InputError, match=r"is no observation of the space Box"):
        policy({"position": 0.0})


def test_a_policy_takes_no_numbers_that_its_space_cannot_hold():
    typed, picture = loading._typed, Box((2,), 0, 255, np.uint8)
    for space, obs, why in (
        (picture, [0.5, 1.0], "uint8 cannot hold 0.5"),
        (picture, [300, 1], "uint8 cannot hold 300"),
        (Discrete(4), 2.7, "int32 cannot hold 2.7"),
        (Discrete(4), 99, "begins with 0 and has 4"),
        (Discrete(2, start=10), 0, "begins with 10 and has 2"),
    ):
        with pytest.raises(InputError, match=f"is no observation of the space.*{why}"):
            typed(space, obs)
    assert typed(picture, [255.0, 1.0]).dtype == np.uint8 and typed(Discrete(2, start=10), 11) == 11
    np.testing.assert_array_equal(typed(Box((2,)), [1, 0.1]), np.float32([1, 0.1]))


def test_a_policy_says_which_newer_checkpoint_is_damaged(ended, monkeypatch):
    monkeypatch.setattr(loading, "load_run", lambda *a, **k: load_run(*a, **k)._replace(notes=["step 9 is damaged"]))
    with pytest.warns(UserWarning, match="step 9 is damaged"):
        jaxrl.load_policy(ended.run_dir)


def test_an_environment_and_a_network_that_were_given_are_given_again(tmp_path):
    def apply(params, obs):
        return Categorical(jnp.concatenate([obs * params, -obs, 0 * obs], axis=-1)), obs[..., 0]

    given = {"env": Counter(time_limit=20), "network": Network(lambda key: jnp.ones(()), apply)}
    config = PPO(env=replace(CART, time_limit=20), num_steps=16, total_steps=64)
    run_dir = run(config, 0, tmp_path / "run", schedule=Schedule(1, 0, 1), progress=False, **given).run_dir
    policy = jaxrl.load_policy(run_dir, **given)
    np.testing.assert_array_equal(policy(np.array([[3.0], [-3.0]])), [0, 1])
    with pytest.raises(InputError, match="not no env of its own; give that"):
        jaxrl.load_policy(run_dir)
    with pytest.raises(InputError, match=r"a network of its own.*jaxrl.load_policy\(.*, network=\.\.\.\)"):
        jaxrl.export(run_dir, tmp_path / "policy", **given)


def test_a_policy_that_remembers_hands_its_memory_on_and_is_not_exported(tmp_path):
    config = PPO(env=replace(CART, time_limit=20), num_steps=16, total_steps=64, core="lstm", core_size=4, hidden=(4,))
    run_dir = run(config, 0, tmp_path / "run", schedule=Schedule(1, 0, 1), progress=False).run_dir
    policy, loaded = jaxrl.load_policy(run_dir), load_run(run_dir)
    obs = np.stack([observed(4, 2, 3) + t for t in range(3)])
    memory, algorithm, whole = None, loaded.program.algorithm, loaded.program.algorithm.memory(6)
    for t in range(3):
        action, memory = policy(obs[t], None, memory)
        flat = jnp.asarray(obs[t].reshape(6, 4), jnp.float32)
        whole, d = algorithm.policy(loaded.state.learner, whole, flat, jnp.full(6, t == 0))
        np.testing.assert_array_equal(action.reshape(6), d.mode())
        for a, b in zip(jax.tree.leaves(memory), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(a.reshape(6, -1), b, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"remembers \(core = 'lstm'\), and only dense layers"):
        jaxrl.export(run_dir, tmp_path / "policy")


def test_the_best_checkpoint_is_the_one_that_scored_most(tmp_path):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), num_steps=16, total_steps=1024, learning_rate=0.3)
    schedule = Schedule(logs=16, evals=16, saves=16)
    ended = run(config, 3, tmp_path / "run", schedule=schedule, progress=False)
    rows = read_metrics(ended.run_dir / "metrics.jsonl")
    most = max(row["eval_return"] for row in rows)
    step = [row["step"] for row in rows if row["eval_return"] == most][-1]
    assert step < 1024 - 64, "so large a step forgets"
    assert int(load_run(ended.run_dir, checkpoint="best").state.num_steps) == step
    with pytest.raises(InputError, match="checkpoint = 'first' is not one of"):
        load_run(ended.run_dir, checkpoint="first")
