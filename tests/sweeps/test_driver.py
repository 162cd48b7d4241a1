"""A sweep from its fields to its table: what is in it, that it can be killed, and what does not stop it."""

import itertools
import json
import math
import signal
import struct
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace as changed
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, replace, run
from jaxrl.algorithms import ALGORITHMS
from jaxrl.config_file import load_config
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.driver import Schedule
from jaxrl.runs.preemption import Stopped
from jaxrl.sweeps import Plan, sweep
from jaxrl.sweeps import driver as driver_module
from jaxrl.sweeps import learning as learning_module
from jaxrl.sweeps import plan as plan_module
from jaxrl.sweeps.table import read

ENV = EnvConfig(num_envs=4, eval_episodes=4, time_limit=40)
CONFIG = PPO(env=ENV, num_steps=8, total_steps=640, num_minibatches=2, hidden=(8,))  # 20 updates
PLAN = Plan(seeds=2, schedule=Schedule(logs=4, evals=2, saves=2), devices=1)
FIELDS = {"learning_rate": "1e-3,1e-2", "hidden": "8;8,8"}


def swept(run_dir, fields=FIELDS, plan=PLAN, config=CONFIG, **options):
    return sweep(config, fields, plan, run_dir, progress=False, **options)


def table(run_dir):
    return read(Path(run_dir) / "table.csv")


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Most sweeps here are of the same two programs: what is compiled is kept, until it is cleared."""
    made, compile_together = {}, plan_module.compile_together

    def once(config, given, p, *rest):
        asked = jax.tree.structure(config), tuple(map(id, given.values())), *rest
        if asked not in made:
            made[asked] = compile_together(config, given, p, *rest), given  # which stays, and with it its id
        return made[asked][0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "compile_together", once)
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    return swept(tmp_path_factory.mktemp("sweep") / "whole")


def test_the_table_has_a_row_for_every_member_and_step(whole):
    rows = table(whole.run_dir)
    assert Counter((row["member"], row["step"]) for row in rows) == Counter(
        (str(m), str(s)) for m in range(8) for s in (160, 320, 480, 640)
    )
    assert list(rows[0])[:6] == ["member", "config", "seed", "step", "learning_rate", "hidden"]
    assert list(rows[0])[-2:] == ["score", "diverged"] and len(set(rows[0])) == len(rows[0])
    for row in rows:
        member = int(row["member"])
        assert (int(row["config"]), int(row["seed"])) == divmod(member, 2)
        assert row["learning_rate"] == ("0.001" if member < 4 else "0.01")
        assert row["hidden"] == ("8" if member // 2 % 2 == 0 else "8,8")
        evaluated = row["step"] in ("320", "640")
        assert bool(row["score"]) == bool(row["eval_return"]) == evaluated and row["score"] == row["eval_return"]
    about = json.loads((whole.run_dir / "sweep.json").read_text())
    assert (about["num_members"], about["method"], about["score"]) == (8, "grid", "eval_return")
    assert [batch["members"] for batch in about["batches"]] == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert whole.figures == about["result"] and whole.figures["members"] == 8


def test_a_member_of_a_sweep_logs_what_a_run_of_it_logs(whole, tmp_path):
    config = replace(CONFIG, learning_rate=1e-2, hidden=(8, 8))
    run(config, 1, tmp_path / "run", schedule=Schedule(logs=4, evals=2, saves=0), progress=False)
    rows = [row for row in table(whole.run_dir) if row["member"] == "7"]
    for mine, alone in zip(rows, read_metrics(tmp_path / "run" / "metrics.jsonl"), strict=True):
        for name, value in alone.items():
            own = mine["learning_rate_metric" if name == "learning_rate" else name]
            if value is None:
                assert math.isnan(float(own))
            else:
                assert float(own) == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_parquet_holds_the_same_with_types(whole):
    import pyarrow.parquet as pq

    columns = pq.read_table(whole.run_dir / "table.parquet").to_pydict()
    rows = table(whole.run_dir)
    assert list(columns) == list(rows[0])
    assert columns["member"] == [int(row["member"]) for row in rows]
    assert columns["hidden"] == [row["hidden"] for row in rows]
    assert columns["score"] == [float(row["score"]) if row["score"] else None for row in rows]


@pytest.mark.parametrize("at", [1, 3, 5, 7])
def test_a_sweep_that_is_stopped_anywhere_ends_in_the_same_table(whole, compiled_once, tmp_path, monkeypatch, at):
    """Stopped before its piece number `at`, of 8, and killed at the next save of the session after that."""
    pieces = Counter()
    advance = learning_module.Learning._advance

    def stopping(self, mark):
        pieces["all"] += 1
        if pieces["all"] == at:
            self.interrupts.asked = "SIGTERM"
        advance(self, mark)

    with (
        monkeypatch.context() as patch,
        pytest.raises(Stopped, match=r"stopped by SIGTERM; all is saved: jaxrl resume"),
    ):
        patch.setattr(learning_module.Learning, "_advance", stopping)
        swept(tmp_path / "again")
    if at == 5:
        with monkeypatch.context() as patch, pytest.raises(KeyError):
            patch.setattr(learning_module.Learning, "_save", lambda self: {}["killed"])
            swept(tmp_path / "again", resume=True)
        compiled_once.clear()  # as another process would have it
    swept(tmp_path / "again", resume=True)
    for name in ("table.csv", "table.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (whole.run_dir / name).read_bytes()


def test_a_batch_that_has_ended_is_not_run_again(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(driver_module, "Learning", None)
    before = (whole.run_dir / "table.csv").read_bytes()
    assert swept(whole.run_dir, resume=True).figures == whole.figures
    assert (whole.run_dir / "table.csv").read_bytes() == before


def test_members_that_do_not_fit_are_split_and_the_table_is_theirs_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxrl.sweeps.plan._HOST", 0.0)  # of such small ones it would be nearly all
    fields = {"learning_rate": "1e-3,2e-3,5e-3"}
    all_at_once = sweep(CONFIG, fields, PLAN, dry_run=True).figures
    room = changed(PLAN, memory_gib=0.7 * all_at_once["forecast_mib"] / 1024)
    split = sweep(CONFIG, fields, room, dry_run=True).figures
    assert (all_at_once["batches"], split["batches"]) == (1, 2)
    assert split["forecast_mib"] < 0.7 * all_at_once["forecast_mib"]
    swept(tmp_path / "one", fields), swept(tmp_path / "two", fields, room)
    one, two = table(tmp_path / "one"), table(tmp_path / "two")
    key = lambda row: (int(row["member"]), int(row["step"]))  # noqa: E731
    assert list(map(key, sorted(one, key=key))) == list(map(key, sorted(two, key=key)))
    for a, b in zip(sorted(one, key=key), sorted(two, key=key), strict=True):
        assert float(a["policy_loss"]) == pytest.approx(float(b["policy_loss"]), rel=1e-3, abs=1e-5)


def test_members_of_which_not_one_fits_are_refused_with_numbers():
    with pytest.raises(
        ValueError, match=r"1 member at once takes [\d.]+ MiB, and 0\.00102 MiB may be taken; make the config"
    ):
        sweep(CONFIG, FIELDS, changed(PLAN, memory_gib=1e-6), dry_run=True)


def test_one_that_diverges_is_marked_and_stops_nobody(tmp_path):
    swept(tmp_path / "sweep", {"learning_rate": "1e-3,1e30"})
    rows = table(tmp_path / "sweep")
    diverged = defaultdict(set)
    for row in rows:
        diverged[row["member"]].add(row["diverged"])
    assert len(rows) == 16 and diverged["0"] == diverged["1"] == {"0"} and "1" in diverged["2"] | diverged["3"]
    alone = swept(tmp_path / "alone", {"learning_rate": "1e-3"})
    theirs = [row for row in rows if row["config"] == "0"]
    for a, b in zip(theirs, table(alone.run_dir), strict=True):
        assert float(a["policy_loss"]) == pytest.approx(float(b["policy_loss"]), rel=1e-3, abs=1e-5)


def test_halving_leaves_the_worse_behind(tmp_path, monkeypatch):
    plan, hours = changed(PLAN, method="halving", eta=2), []
    clock, compile_together = time.perf_counter, plan_module.compile_together

    def slowly(*args):
        hours.append(3600.0)
        return compile_together(*args)

    monkeypatch.setattr(time, "perf_counter", lambda: clock() + sum(hours))
    monkeypatch.setattr(plan_module, "compile_together", slowly)
    result = swept(tmp_path / "sweep", {"learning_rate": "1e-4,1e-3,1e-2,3e-2"}, plan)
    assert len(hours) == 3 and 0 < result.figures["train_seconds"] < 600, "what is compiled on the way is not training"
    rows = table(tmp_path / "sweep")
    ends = {row["config"]: max(int(r["step"]) for r in rows if r["config"] == row["config"]) for row in rows}
    assert sorted(ends.values()) == [160, 160, 320, 640]  # rungs after a quarter and a half
    for rung, count in ((160, 4), (320, 2)):
        score = defaultdict(list)
        for row in rows:
            if int(row["step"]) == rung:
                score[row["config"]].append(float(row["score"]))
        means = {config: np.mean(own) for config, own in score.items()}
        assert len(means) == count
        left, gone = ([means[c] for c in means if (ends[c] > rung) == is_left] for is_left in (True, False))
        assert min(left) >= max(gone)


def test_population_based_training_moves_settings_and_can_be_stopped(tmp_path, monkeypatch):
    plan = changed(PLAN, method="pbt", samples=4, seeds=1, intervals=4)
    fields = {"learning_rate": "log:1e-4:1e-1"}
    swept(tmp_path / "whole", fields, plan)
    rows = table(tmp_path / "whole")
    rates = defaultdict(list)
    for row in rows:
        rates[row["member"]].append(float(row["learning_rate"]))
    changes = sum(a != b for own in rates.values() for a, b in itertools.pairwise(own))
    assert 1 <= changes <= 3 and all(0.99e-4 <= x <= 0.1 for own in rates.values() for x in own)

    save = learning_module.Learning._save
    saved = Counter()

    def killed(self):
        save(self)
        self.saves.wait()
        saved["all"] += 1
        if saved["all"] == 2:
            raise KeyError("killed")

    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(learning_module.Learning, "_save", killed)
        swept(tmp_path / "again", fields, plan)
    swept(tmp_path / "again", fields, plan, resume=True)
    assert (tmp_path / "again" / "table.csv").read_bytes() == (tmp_path / "whole" / "table.csv").read_bytes()


@pytest.mark.parametrize(
    ("fields", "plan", "sentence"),
    [
        (
            {"num_steps": "8,9"},
            {},
            r"the sweep's config 1 \(num_steps = 9\): total_steps = 640 is not a multiple of the 36 steps",
        ),
        ({"gamma": ".9,1.5"}, {}, r"config 1 \(gamma = 1.5\): gamma = 1.5 is out of range"),
        ({"num_envs": "4,8", "env.num_envs": "2"}, {}, "sweep.num_envs and sweep.env.num_envs are one field"),
        (FIELDS, {"seeds": 0}, "seeds = 0: name at least one"),
        (FIELDS, {"seeds": 2.0}, "seeds = 2.0: give a number of seeds, or a list of them"),
        (FIELDS, {"seeds": (1, 1)}, r"seeds = \(1, 1\): name at least one, and each once"),
        (FIELDS, {"seeds": (-1,)}, "seed = -1 is out of range"),
        (FIELDS, {"method": "grod"}, "method = 'grod' is not one of grid"),
        (FIELDS, {"method": "random"}, "needs a number of configurations to try: --samples 32"),
        (FIELDS, {"samples": 3}, "samples = 3 is of searches that draw"),
        ({}, {"method": "random", "samples": 3}, "needs something to search"),
        (FIELDS, {"method": "pbt", "seeds": 1}, "pbt moves settings along ranges"),
        ({"gamma": "lin:.9:1:4"}, {"method": "pbt"}, "each has a seed of its own"),
        ({"gamma": "lin:.9:1:3"}, {"method": "pbt", "seeds": 1}, "3 members are too few for pbt"),
        ({"gamma": ".9,1"}, {"method": "halving"}, "cannot be halved by eta = 3"),
        ({"gamma": "lin:.9:1:200"}, {"method": "halving", "eta": 2}, "too few for 7 rungs"),
        ({"hidden": "8;16;32"}, {"method": "halving"}, "compares configurations within one program, and here each is"),
        ({"gamma": "lin:.9:1:4"}, {"method": "random", "samples": 3}, "no count is read; write lin:.9:1$"),
        ({"time_limit": "40,80"}, {}, "sweep.time_limit: it is part of the task itself.*--score eval_return"),
        ({"env.name": "gymnax/CartPole-v1,gymnax/Acrobot-v1"}, {}, "sweep.env.name: it is part of the task itself"),
        (FIELDS, {"devices": 99}, "devices = 99, and there"),
        (FIELDS, {"memory_gib": 0.0}, "memory_gib = 0.0 must be above 0"),
        (FIELDS, {"eta": 2}, "eta = 2 is not read by method = 'grid'; leave it out, or use halving"),
        (FIELDS, {"schedule": Schedule(keeps=2)}, "keeps = 2: a sweep keeps no checkpoints for good"),
        (FIELDS, {"schedule": Schedule(logs=0)}, "logs must be at least 1"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_compiled(tmp_path, monkeypatch, fields, plan, sentence):
    monkeypatch.setattr("jaxrl.sweeps.plan.compile_together", None)
    with pytest.raises(ValueError, match=sentence):
        swept(tmp_path / "sweep", fields, changed(PLAN, **plan))
    assert not (tmp_path / "sweep").exists()


def test_tasks_are_ranked_by_one_figure_where_it_is_named():
    fields, plan = {"time_limit": "40,80"}, changed(PLAN, score="eval_return")
    assert sweep(CONFIG, fields, plan, dry_run=True).figures["batches"] == 2
    assert sweep(CONFIG, {"time_limit": "40"}, PLAN, dry_run=True).figures["batches"] == 1


def test_what_is_of_the_plan_is_sent_there():
    with pytest.raises(ValueError, match=r"seeds is part of the plan: sweep\(config, fields, Plan\(seeds=2\)\)"):
        sweep(CONFIG, FIELDS, seeds=2)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("at", ["compile_together", "needs"])
def test_one_that_is_stopped_before_anything_runs_has_written_nothing(tmp_path, monkeypatch, dry_run, at):
    """At the first of two programs, while it is compiled or once it is."""
    done, plain = [], getattr(plan_module, at)

    def stopping(*args):
        done.append(at)
        signal.raise_signal(signal.SIGTERM)
        return plain(*args)

    monkeypatch.setattr(plan_module, at, stopping)
    with pytest.raises(Stopped, match="stopped by SIGTERM; nothing was written"):
        swept(tmp_path / "sweep", dry_run=dry_run)
    assert len(done) == 1 and not (tmp_path / "sweep").exists()


def test_progress_goes_on_where_it_was_and_ends_with_the_last_score(whole, tmp_path, monkeypatch):
    told, advance = [], learning_module.Learning._advance
    monkeypatch.setattr(driver_module.Bar, "update", lambda self, *now: told.append(now))  # step, says, rate, line

    def stopping(self, mark):
        self.interrupts.asked = "SIGTERM" if mark > 10 else None
        advance(self, mark)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(learning_module.Learning, "_advance", stopping)
        swept(tmp_path / "a")
    before, told[:] = told[-1][0], []
    swept(tmp_path / "a", resume=True)
    assert told[0][0] >= before
    step, says, _, line = told[-1]
    assert step == 8 * 640 and line and "best score" in says


def test_the_best_config_is_written_down(whole):
    about = json.loads((whole.run_dir / "sweep.json").read_text())
    best = load_config(whole.run_dir / "best.yaml", ALGORITHMS)
    values = about["result"]["best_values"]
    assert best == replace(CONFIG, learning_rate=float(values["learning_rate"]), hidden=best.hidden)
    assert values["hidden"] == ",".join(map(str, best.hidden))


def test_another_sweep_is_not_resumed_and_none_is_overwritten(whole, tmp_path):
    with pytest.raises(ValueError, match=r"already holds a sweep; pass resume=True \(--resume\) to go on with it"):
        swept(whole.run_dir)
    with pytest.raises(ValueError, match=r"was begun with fields.learning_rate = .*1e-3,1e-2.*, not .*1e-4"):
        swept(whole.run_dir, {"learning_rate": "1e-4"}, resume=True)
    with pytest.raises(ValueError, match=r"was begun with seeds = \[0, 1\], not \[0\]"):
        swept(whole.run_dir, plan=changed(PLAN, seeds=1), resume=True)
    with pytest.raises(ValueError, match=r"was begun with config\.gamma = 0\.\d+, not 0\.5; resume with that"):
        swept(whole.run_dir, config=replace(CONFIG, gamma=0.5), resume=True)
    with pytest.raises(ValueError, match="holds no sweep"):
        swept(tmp_path, resume=True)


@pytest.mark.parametrize("left", ["checkpoints", "parts"])
def test_what_another_sweep_has_left_is_not_taken_for_its_own(tmp_path, monkeypatch, left):
    """A sweep that is told to stop saves once more, also into a directory that was emptied under it."""
    monkeypatch.setattr("jaxrl.sweeps.plan.compile_together", None)
    (tmp_path / left / "0000").mkdir(parents=True)
    with pytest.raises(ValueError, match=f"has {left} of something that was begun there before, and its sweep.json is"):
        swept(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_an_environment_of_ones_own_is_given_as_to_train(tmp_path):
    from jaxrl import make

    env = make("gymnax/CartPole-v1")
    swept(tmp_path / "sweep", {"gamma": ".9,.99"}, env=env)
    assert len(table(tmp_path / "sweep")) == 16
    with pytest.raises(ValueError, match="was begun with given"):
        swept(tmp_path / "sweep", {"gamma": ".9,.99"}, resume=True)


def test_several_processes_are_told_to_take_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 4)
    with pytest.raises(ValueError, match="a sweep is one process's, and here are 4; .*--shard 1/4"):
        sweep(CONFIG, FIELDS, PLAN, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_optuna_is_asked_for_where_it_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    plan = changed(PLAN, method="optuna", samples=4)
    with pytest.raises(ValueError, match=r"method = 'optuna' needs the package optuna; NEEDS=tune scripts/run"):
        swept(tmp_path / "sweep", {"gamma": "lin:.9:1"}, plan)


def curves(folder):
    """{name of a member: {metric: {step: value}}}, as TensorBoard's files have them."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("*/events*"):
        data, at = path.read_bytes(), 0
        metrics = found.setdefault(path.parent.name, defaultdict(dict))
        while at < len(data):  # length, its checksum, the event, its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event, at = Event.FromString(data[at + 12 : at + 12 + size]), at + 16 + size
            for value in event.summary.value:
                metrics[value.tag][event.step] = value.simple_value
    return found


def test_every_member_has_its_curve_under_its_own_name(tmp_path):
    plan = changed(PLAN, tensorboard=True)
    swept(tmp_path / "a", FIELDS, plan)
    found = curves(tmp_path / "a" / "tensorboard")
    assert len(found) == 8 and "0003 learning_rate=0.001 hidden=8,8 seed=1" in found
    for row in table(tmp_path / "a"):
        name = (
            f"{int(row['member']):04d} learning_rate={row['learning_rate']} hidden={row['hidden']} seed={row['seed']}"
        )
        told = {metric: own[int(row["step"])] for metric, own in found[name].items() if int(row["step"]) in own}
        assert told["policy_loss"] == pytest.approx(float(row["policy_loss"]), abs=1e-6)
        assert ("score" in told) == bool(row["score"]) and not {"member", "step", "hidden"} & set(told)


def test_a_setting_that_moves_is_a_curve(tmp_path):
    plan = changed(PLAN, method="pbt", samples=4, seeds=1, intervals=4, tensorboard=True)
    swept(tmp_path / "a", {"learning_rate": "log:1e-4:1e-1"}, plan)
    moved = {name: own for name, own in curves(tmp_path / "a" / "tensorboard").items() if "learning_rate" in own}
    assert moved and all(name.split(" ")[1:] == [f"seed={int(name[:4])}"] for name in moved)
    assert all(len(own["learning_rate"]) == len(own["policy_loss"]) for own in moved.values())
