"""Weights & Biases, offline, with the package itself: scripts/test --extra wandb. What is said without it, always."""

import importlib.util
import io
import json
import os
import re
import struct
import warnings
from importlib.machinery import ModuleSpec

import pytest

from jaxrl import PPO, EnvConfig, Schedule, run
from jaxrl.cli import parse
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.logs import check_wandb, weights_and_biases

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2)
QUICK = {"schedule": Schedule(logs=6, evals=2, saves=6), "progress": False}


@pytest.fixture
def absent(monkeypatch):
    """The package is not there, and a folder of its name is."""
    find = importlib.util.find_spec
    folder = ModuleSpec("wandb", None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: folder if name == "wandb" else find(name, *rest)
    )


def test_a_package_that_is_not_installed_is_said_first_with_the_extra_that_has_it(tmp_path, absent):
    with pytest.raises(
        ValueError, match=r"wandb = 'mine' needs the package wandb.*NEEDS=wandb scripts/run .* adds it, or leav"
    ):
        run(CONFIG, 3, tmp_path / "run", wandb="mine", **QUICK)
    assert not (tmp_path / "run").exists()
    (tmp_path / "wandb.json").write_text(json.dumps({"project": "mine", "id": "x"}))
    with pytest.raises(ValueError, match=r"wandb = 'mine' needs.* or delete .*wandb.json"):
        check_wandb(None, tmp_path)
    assert check_wandb(None, tmp_path / "elsewhere") is check_wandb(None, None) is None


def test_a_run_goes_on_where_it_is(tmp_path):
    (tmp_path / "wandb.json").write_text(json.dumps({"project": "mine", "id": "x"}))
    with pytest.raises(ValueError, match=r"logs to the project 'mine'; give that, or leave wandb out"):
        check_wandb("other", tmp_path)
    for damaged in ("", "[]", '{"id": "x"}'):
        (tmp_path / "wandb.json").write_text(damaged)
        with pytest.raises(ValueError, match="wandb.json cannot be read; delete it"):
            check_wandb(None, tmp_path)


def test_it_is_an_option_of_the_command_line():
    assert (
        parse(CONFIG, None, ["--wandb", "mine"])[1]["wandb"] == "mine" and parse(CONFIG, None, [])[1]["wandb"] is None
    )


# --- with the package


@pytest.fixture
def offline(monkeypatch):
    import wandb

    wandb.teardown()  # it reads the environment once a process
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def messages(data):
    """The messages in a .wandb file, which is a log as LevelDB writes them after a head of its own: parts in blocks of
    32 KiB, each after a checksum, its length, and which part of a message it is.
    """
    at, message, block = 7, b"", 2**15
    while at + 7 <= len(data):
        room = block - at % block
        length, part = struct.unpack_from("<HB", data, at + 4) if room >= 7 else (room - 7, 0)
        message += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # the whole, the last
            yield message
            message = b""


def sessions(run_dir):
    """What is in the files that wandb wrote: for each session its records by kind."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # a process of its own writes them
    found = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        records = {}
        for record in map(Record.FromString, messages(path.read_bytes())):
            kind = record.WhichOneof("record_type")
            records.setdefault(kind, []).append(getattr(record, kind))
        found.append(records)
    return found


def items(record, of):
    return {x.key or ".".join(x.nested_key): json.loads(x.value_json) for x in getattr(record, of)}


@pytest.mark.extra("wandb")
def test_every_row_arrives_with_its_step_and_a_resume_goes_on_under_the_same_id(tmp_path, offline, capfd):
    result = run(CONFIG, 3, tmp_path / "run", wandb="mine", **QUICK)
    kept = json.loads((result.run_dir / "wandb.json").read_text())
    (session,) = sessions(result.run_dir)
    told = [items(record, "item") for record in session["history"]]
    assert [row["env_steps"] for row in told] == [128 * n for n in range(1, 7)]
    pairs = zip(told, *(read_metrics(result.run_dir / name) for name in ("metrics.jsonl", "timing.jsonl")), strict=True)
    for row, metrics, timing in pairs:
        logged = {name: x for name, x in (metrics | timing).items() if name != "step" and x is not None}
        assert {name: x for name, x in row.items() if not name.startswith("_")} == {
            "env_steps": metrics["step"],
            **logged,
        }
    axes = {metric.name or metric.glob_name: metric.step_metric for metric in session["metric"]}
    assert axes["*"] == "env_steps" or axes["episode_return"] == "env_steps"
    (begun,) = session["run"][:1]
    config = items(begun.config, "update")
    assert (begun.project, begun.run_id, begun.display_name) == ("mine", kept["id"], "run")
    assert config["seed"] == 3 and config["num_steps"] == 16 and config["env"]["num_envs"] == 4
    assert session["exit"][0].exit_code == 0
    run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert json.loads((result.run_dir / "wandb.json").read_text()) == kept
    names = [path.name for path in result.run_dir.glob("wandb/offline-run-*")]
    assert len(names) == 2 and all(re.fullmatch(rf"offline-run-\d+_\d+-{kept['id']}", name) for name in names)
    assert len(capfd.readouterr().err.splitlines()) <= 6, "it does not drown what the run says"


@pytest.mark.extra("wandb")
def test_what_goes_wrong_there_stops_no_run_and_an_error_of_the_run_is_one_there(tmp_path, offline):
    there = weights_and_biases.WandbRun("mine", tmp_path, {}, "env_steps")
    with pytest.raises(RuntimeError, match="ours"):
        try:
            raise RuntimeError("ours")
        finally:
            there.close()
    assert sessions(tmp_path)[-1]["exit"][0].exit_code == 1
    with pytest.warns(UserWarning, match="Weights & Biases takes no more"):
        there.row(8, {"loss": 1.0})  # it has ended
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there.row(16, {"loss": 1.0})
        there.close()


@pytest.mark.extra("wandb")
def test_who_is_not_logged_in_is_told_what_to_do_before_anything_is_compiled(tmp_path, offline, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))  # where a key would be kept
    monkeypatch.setattr("sys.stdin", io.StringIO())
    sentence = rf"wandb = 'mine': No API key.*WANDB_MODE=offline, and go on with --run-dir {tmp_path / 'run'} --resume"
    with pytest.raises(ValueError, match=sentence):
        run(CONFIG, 3, tmp_path / "run", wandb="mine", **QUICK)
    assert not (tmp_path / "run" / "checkpoints").exists()
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert len(sessions(tmp_path / "run")[-1]["history"]) == 6
