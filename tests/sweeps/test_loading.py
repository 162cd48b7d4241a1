"""A member of a sweep, read back and played as a run is."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import PPO, EnvConfig, make, replace, run
from jaxrl.runs.driver import Schedule
from jaxrl.runs.loading import load_run
from jaxrl.sweeps import Plan, load_member, load_policy, merge, sweep
from jaxrl.sweeps.table import read
from tests.helpers.compare import close

ENV = EnvConfig(num_envs=4, eval_episodes=4, time_limit=40)
CONFIG = PPO(env=ENV, num_steps=8, total_steps=640, num_minibatches=2, hidden=(8,), normalize_obs=True)
SCHEDULE = Schedule(logs=4, evals=2, saves=2)
PLAN = Plan(seeds=(3, 7), schedule=SCHEDULE, devices=1)


def swept(run_dir, fields, plan=PLAN, **given):
    return sweep(CONFIG, fields, plan, run_dir, progress=False, **given).run_dir


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    return swept(tmp_path_factory.mktemp("sweep") / "a", {"learning_rate": "1e-3,1e-2", "hidden": "8;8,8"})


def test_a_member_is_the_run_of_its_config_and_seed(ended, tmp_path):
    loaded = load_member(ended, 7)
    config = replace(CONFIG, learning_rate=1e-2, hidden=(8, 8))
    assert loaded.saved.config == config and not loaded.notes
    assert [loaded.saved.about[name] for name in ("member", "config", "seed")] == [7, 3, 7]
    run(config, 7, tmp_path / "run", schedule=SCHEDULE, progress=False)
    alone = load_run(tmp_path / "run")
    assert loaded.state.num_steps == alone.state.num_steps == 640
    close(loaded.state.learner, alone.state.learner, atol=1e-4)
    obs = np.random.default_rng(0).normal(size=(50, 4))
    assert (load_policy(ended, 7)(obs) == jaxrl.load_policy(tmp_path / "run")(obs)).mean() > 0.97
    drawn = load_policy(ended, 7, behaviour="sample")(obs, jax.random.key(0))
    assert set(np.unique(drawn)) == {0, 1}


def test_without_a_number_it_is_the_best_of_the_report(ended):
    last = [row for row in read(ended / "table.csv") if row["step"] == "640"]
    loaded = load_member(ended)
    best = json.loads((ended / "sweep.json").read_text())["result"]["best"]
    own = {int(row["member"]): float(row["score"]) for row in last if int(row["config"]) == best}
    assert loaded.saved.about["config"] == best and own[loaded.saved.about["member"]] == max(own.values())


def test_what_halving_left_behind_is_not_kept(tmp_path):
    plan = Plan(seeds=1, method="halving", eta=2, schedule=SCHEDULE, devices=1)
    folder = swept(tmp_path / "a", {"learning_rate": "1e-4,1e-3,1e-2,3e-2"}, plan)
    ends = {}
    for row in read(folder / "table.csv"):
        ends[int(row["member"])] = int(row["step"])
    (left,) = [member for member, step in ends.items() if step == 640]
    assert load_member(folder, left).saved.about["member"] == left == load_member(folder).saved.about["member"]
    for member in set(ends) - {left}:
        with pytest.raises(ValueError, match=rf"state of member {member} of .* is not kept: it was left behind"):
            load_member(folder, member)


def test_settings_that_have_moved_are_as_they_were_last(tmp_path):
    plan = Plan(method="pbt", samples=4, intervals=4, schedule=SCHEDULE, devices=1)
    folder = swept(tmp_path / "a", {"learning_rate": "log:1e-4:1e-1"}, plan)
    for member in range(4):
        last = [row for row in read(folder / "table.csv") if row["member"] == str(member)][-1]
        assert load_member(folder, member).saved.config.learning_rate == float(last["learning_rate"])


def test_what_was_given_is_to_be_given_again(tmp_path):
    env = make("gymnax/CartPole-v1")
    folder = swept(tmp_path / "a", {"gamma": ".9,.99"}, env=env)
    with pytest.raises(ValueError, match=r"was given env \(.*\); give the same from Python: load_member\(\.\.\., env="):
        load_member(folder, 0)
    assert load_member(folder, 0, env=env).state.num_steps == 640
    assert load_policy(folder, 0, env=env)(np.zeros(4)).shape == ()


def test_mistakes_are_sentences(ended, tmp_path):
    with pytest.raises(ValueError, match=r"member = 8 is not in .*; its members are 0 to 7"):
        load_member(ended, 8)
    with pytest.raises(ValueError, match="holds no sweep"):
        load_member(tmp_path, 0)
    with pytest.raises(ValueError, match="was given nothing beside its config"):
        load_member(ended, 0, env=make("gymnax/CartPole-v1"))


FIELDS = {"learning_rate": "1e-3,1e-2", "hidden": "8;8,8"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The sweep `ended` in three parts of its eight members."""
    root = tmp_path_factory.mktemp("parts")
    return [swept(root / f"{i}", FIELDS, dataclasses.replace(PLAN, shard=f"{i}/3")) for i in (1, 2, 3)]


def test_parts_come_to_the_table_of_the_whole(ended, parts, tmp_path):
    figures = merge([parts[2], parts[0], parts[1]], tmp_path / "whole")
    whole, expected = read(tmp_path / "whole" / "table.csv"), read(ended / "table.csv")
    by_step = lambda rows: sorted(rows, key=lambda row: (int(row["member"]), int(row["step"])))  # noqa: E731
    assert [sum(int(row["step"]) == 640 for row in read(part / "table.csv")) for part in parts] == [2, 3, 3]
    for one, other in zip(by_step(whole), by_step(expected), strict=True):
        assert one.keys() == other.keys()
        for name in ("member", "config", "seed", "step", "learning_rate", "hidden"):
            assert one[name] == other[name]
        assert float(one["entropy"] or 0) == pytest.approx(float(other["entropy"] or 0), rel=1e-4)
    about = json.loads((tmp_path / "whole" / "sweep.json").read_text())
    assert about["num_members"] == 8 and about["num_configs"] == 4 and "shard" not in about["asked"]
    assert about["result"] == figures and (tmp_path / "whole" / "best.yaml").is_file()
    for member in (0, 3, 7):
        merged, own = (load_member(folder, member).state.learner for folder in (tmp_path / "whole", ended))
        close(merged, own, atol=1e-4)


def test_what_is_no_part_or_does_not_come_to_a_whole_is_refused(ended, parts, tmp_path):
    other = swept(tmp_path / "other", {"gamma": "0.9,0.95"}, dataclasses.replace(PLAN, shard="3/3"))
    for given, wrong in [
        (parts[:2], "these are the parts 1/3, 2/3; give each of the 3 once"),
        ([*parts, parts[0]], "give each of the 3 once"),
        ([ended, *parts[1:]], "is no part of a sweep, but a whole one; parts are made by --shard 1/8"),
        ([*parts[:2], other], "are parts of different sweeps: their fields differ"),
    ]:
        with pytest.raises(ValueError, match=wrong):
            merge(given, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    with pytest.raises(ValueError, match="already holds a sweep"):
        merge(parts, ended)


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({"shard": "0/2"}, 'shard = .0/2. is not as in "2/8", the second of eight'),
        ({"shard": "two"}, 'shard = .two. is not as in "2/8"'),
        ({"shard": "1/12"}, "shard = .1/12. is empty: "),
        ({"shard": "1/2", "method": "halving"}, "method = .halving. compares all members; use grid or random"),
    ],
)
def test_parts_that_cannot_be_are_refused(changes, wrong, tmp_path):
    with pytest.raises(ValueError, match=wrong):
        swept(tmp_path / "a", FIELDS, dataclasses.replace(PLAN, **changes))
    assert not (tmp_path / "a").exists()
