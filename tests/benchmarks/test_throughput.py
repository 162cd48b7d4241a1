"""What is timed does the work it says, and a size that fails is a row with its reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.algorithms import PPO
from jaxrl.benchmarks import ARMS, Plan, ablate, arms, measure
from jaxrl.benchmarks import throughput as t
from jaxrl.settings import EnvConfig
from jaxrl.training import program
from tests.helpers.compare import close

CONFIG = PPO(env=EnvConfig("probe/target", num_envs=4, resets="pool"), num_steps=8, hidden=(8,))
QUICK = Plan(rounds=2, seconds=0.001)


@pytest.fixture(scope="module")
def rows():
    return measure(CONFIG, agents=2, plan=QUICK)


def test_every_arm_has_its_figures(rows):
    assert [row["arm"] for row in rows] == list(ARMS)
    for row in rows:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["compile_seconds"] > 0 and row["first_update_seconds"] > 0 and row["memory_bytes"] > 0
        assert ("floor" in row) == (row["arm"] != "physics")
        assert row.get("of_floor") == (pytest.approx(row["median"] / row["floor"]) if "floor" in row else None)


def test_the_training_arm_trains():
    """Two updates of the arm are two steps of the program."""
    config = t.endless(CONFIG)
    work = arms.work("training")
    carry = work.start(config, jax.random.split(jax.random.key(3), 1))
    p, state = program(config), jax.tree.map(lambda x: x[0], carry[1])
    expected = jax.jit(lambda s: p.step(p.step(s)[0])[0])(state)
    after = work.go_on(config, carry, jnp.int32(2))
    assert after[1].num_steps[0] == 2 * 4 * 8
    close(jax.tree.map(lambda x: x[0], after[1].learner.params), expected.learner.params)


@pytest.mark.parametrize("name", ["physics", "rollout"])
def test_agents_differ_and_so_do_calls(name):
    work = arms.work(name)
    start = work.start(CONFIG, jax.random.split(jax.random.key(0), 2))
    first = work.go_on(CONFIG, start, jnp.int32(1))
    told = [np.asarray(first[1][-1])]  # the trace that every step leaves
    told.append(np.asarray(work.go_on(CONFIG, first, jnp.int32(1))[1][-1]) - told[0])
    assert len({float(x) for x in np.ravel(told)}) == 4


def test_a_size_that_does_not_fit_is_left_out_and_the_others_go_on(monkeypatch):
    free = iter([2**40, 0])
    monkeypatch.setattr(t, "free_memory", lambda: next(free))
    physics, training = measure(CONFIG, plan=QUICK._replace(names=("physics", "training")))
    assert physics["median"] > 0 and "median" not in training
    assert "GiB, of which 0.0 are free" in training["left_out"]


def test_a_choice_that_the_program_does_not_read_is_found_out():
    (row,) = ablate(CONFIG, plan=QUICK, fields=("micro_batch_rows",))
    assert row["verdict"] == "same program", "a minibatch of 8 rows is less than a micro-batch of 2048"
