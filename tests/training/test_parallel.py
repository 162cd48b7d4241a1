"""One program as eight shards: on eight devices, on two, or side by side on one. And what crosses between devices."""

import collections
import os
import re
import sys
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Parallel, Reinforce, Schedule, replace, run, train
from jaxrl.config_file import load_config
from jaxrl.reports.rows import read_metrics
from jaxrl.training.parallel import over_devices
from jaxrl.training.programs import program
from jaxrl.training.sweeps import compile_together
from tests.helpers.devices import run_on_eight

EIGHT = Parallel(data=8)
CARTPOLE = PPO(
    env=EnvConfig(num_envs=64, eval_episodes=8),
    total_steps=64 * 16 * 20,
    num_steps=16,
    normalize_obs=True,
    normalize_return=True,
    hidden=(16,),
    parallel=EIGHT,
)
BRAX = replace(
    CARTPOLE,
    env=EnvConfig("brax/inverted_pendulum", backend="spring", num_envs=16, resets="pool", eval_episodes=2),
    total_steps=16 * 8 * 20,
    num_steps=8,
    reward_scale=0.1,
)
A2C_CARTPOLE = A2C(env=CARTPOLE.env, total_steps=64 * 8 * 20, num_steps=8, normalize_advantage=True, parallel=EIGHT)
EPISODES = Reinforce(env=EnvConfig(num_envs=16, time_limit=20), total_steps=16 * 20 * 20, num_steps=20, parallel=EIGHT)
CONFIGS = {"ppo": CARTPOLE, "brax": BRAX, "a2c": A2C_CARTPOLE, "reinforce": EPISODES}
QUICK = {"schedule": Schedule(logs=4, evals=1, saves=4), "progress": False}


def learned(name):
    """What 20 updates make of the learner, and their metrics, as {path: numbers}."""
    state, metrics = jax.jit(train)(CONFIGS[name], jax.random.key(3))
    leaves = jax.tree_util.tree_leaves_with_path((state.learner, {k: v.value for k, v in metrics.items()}))
    return {f"{name} {jax.tree_util.keystr(path)}": np.asarray(x) for path, x in leaves}


def collectives(config):
    """The operations between devices of an update, and how many numbers each carries."""
    p = program(config)
    state = jax.eval_shape(p.init, jax.random.key(0))
    places = p.places(state)
    given = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, places)
    text = jax.jit(p.step, out_shardings=(places, None)).lower(given).compile().as_text()
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
    lines = re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)
    return [(kind, sum(int(n) for n in re.findall(r"f32\[(\d*)\]", shapes))) for shapes, kind in lines]


@pytest.fixture(scope="module")
def on_eight(tmp_path_factory):
    """(what `main` found on eight devices, the directory of its run)."""
    folder = tmp_path_factory.mktemp("eight")
    run_on_eight(__name__, folder)
    return dict(np.load(folder / "found.npz")), folder / "run"


def main(folder):
    found = {}
    for name in CONFIGS:
        found |= learned(name)
    for name, config in (("all", CARTPOLE), ("two", replace(CARTPOLE, parallel=Parallel(data=2)))):
        crossed = collectives(config)
        assert {kind for kind, _ in crossed} == {"all-reduce"}, crossed
        found[f"crossed {name}"] = np.array([size for _, size in crossed])
    run(replace(CARTPOLE, parallel=Parallel()), 3, folder / "run", **QUICK)
    np.savez(folder / "found.npz", **found)


@pytest.mark.parametrize("name", CONFIGS)
def test_eight_devices_compute_what_eight_shards_side_by_side_do(on_eight, name):
    here, there = learned(name), {k: v for k, v in on_eight[0].items() if k.startswith(f"{name} ")}
    assert here.keys() == there.keys() and len(here) > 15
    for path, x in here.items():
        np.testing.assert_allclose(there[path], x, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("name", ["all", "two"])
def test_only_sums_cross_between_devices(on_eight, name):
    """One of a gradient, and those of statistics: of a minibatch's advantages, observations, returns and metrics."""
    sizes = collections.Counter(on_eight[0][f"crossed {name}"].tolist())
    learner = jax.eval_shape(program(CARTPOLE).init, jax.random.key(0)).learner
    weights = sum(x.size for x in jax.tree.leaves(learner.params))
    large = [size for size in sizes.elements() if size >= weights]
    assert len(large) == 1 and large[0] <= weights + 16  # the metrics of a minibatch go with it
    assert max(size for size in sizes.elements() if size < weights) <= 32
    assert sizes.total() <= 12


def test_a_run_takes_all_devices_and_goes_on_wherever_there_are_others(on_eight, tmp_path):
    found, run_dir = on_eight
    known = {"ppo": PPO}
    assert load_config(run_dir / "config.yaml", known).parallel.data == 8
    for step in sorted((run_dir / "checkpoints").iterdir())[1:]:  # the newest: as if it had been stopped before
        os.rename(step, tmp_path / step.name)
    rows = read_metrics(run_dir / "metrics.jsonl")
    with pytest.warns(UserWarning, match="resuming where devices was 8, is 1"):
        ended = run(replace(CARTPOLE, parallel=Parallel()), 3, run_dir, resume=True, **QUICK)
    assert int(ended.state.num_steps) == CARTPOLE.total_steps
    for path, x in jax.tree_util.tree_leaves_with_path(ended.state.learner):
        expected = found[f"ppo [0]{jax.tree_util.keystr(path)}"]
        np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-5)
    for was, now in zip(rows, read_metrics(run_dir / "metrics.jsonl"), strict=True):
        assert was["step"] == now["step"] and was.get("entropy") == pytest.approx(now.get("entropy"), rel=1e-4)


def test_shards_learn_from_differing_rollouts_and_have_one_learner(key):
    p = program(CARTPOLE)
    state = jax.jit(p.init)(key)
    carry, batch = jax.jit(p.source.collect)(key, state.learner, state.carry)
    assert batch.obs.shape == (8, 16, 8, 4) and len({bytes(np.asarray(x)) for x in batch.obs}) == 8
    after, metrics = jax.jit(p.algorithm.update)(key, state.learner, batch)
    assert after.return_scale.running.shape == (8, 8) and after.obs_stats.count == 64 * 16
    shapes = [[x.shape for x in jax.tree.leaves(learner.params)] for learner in (after, state.learner)]
    assert shapes[0] == shapes[1]
    assert metrics["invalid_steps"].count == 64 * 16 and p.steps_per_update == 64 * 16


def test_one_shard_is_the_program_without_any(key):
    alone = replace(CARTPOLE, parallel=Parallel(data=1), total_steps=64 * 16 * 2)
    a, b = (jax.jit(train)(c, key)[0].learner for c in (alone, replace(alone, parallel=Parallel())))
    assert all(jnp.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({"num_envs": 36}, "num_envs = 36 cannot be dealt to parallel.data = 8 shards; try 6"),
        ({"num_minibatches": 256}, "8 shards: num_envs . num_steps = 128 is not divisible by num_minibatches = 256"),
        ({"env_axis": 0}, "bodies that differ are not dealt to parallel.data = 8 shards; set it to 1"),
    ],
)
def test_what_cannot_be_dealt_is_refused(changes, wrong):
    with pytest.raises(ValueError, match=wrong):
        program(replace(CARTPOLE, **changes))


def test_environments_on_the_host_feed_one_shard():
    config = replace(CARTPOLE, name="gymnasium/CartPole-v1", num_envs=8)
    with pytest.raises(ValueError, match="runs on the host, which feeds one shard; set parallel.data = 1"):
        program(config)


def test_members_of_a_sweep_have_one_shard():
    with pytest.raises(ValueError, match="parallel.data = 8: a sweep spreads its members over the devices"):
        compile_together(CARTPOLE, {}, program(CARTPOLE), 2)


def test_without_a_number_it_is_one_for_each_device():
    there = jax.device_count()
    assert over_devices(replace(CARTPOLE, parallel=Parallel())).parallel.data == (None if there == 1 else there)
    with mock.patch.object(jax, "device_count", lambda: 6):  # 64 environments come out even on four of six
        assert over_devices(replace(CARTPOLE, parallel=Parallel())).parallel.data == 4
    assert over_devices(CARTPOLE) is CARTPOLE


if __name__ == "__main__":
    main(Path(sys.argv[1]))
