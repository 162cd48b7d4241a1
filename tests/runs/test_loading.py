"""A run read back is the run that was."""

import jax
import numpy as np
import pytest

from jaxrl.runs.driver import Schedule, run
from jaxrl.runs.loading import load_run, saved_run
from jaxrl.settings import EnvConfig
from jaxrl.types import InputError
from tests.helpers.environments import Counter


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    from jaxrl.algorithms import PPO

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
