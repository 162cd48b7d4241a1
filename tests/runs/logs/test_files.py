"""Rows on disk: what they hold, and what happens to those that a disk has spoilt."""

import csv
import errno
import inspect
import json
import os
import re

import jax
import pytest

from jaxrl import A2C, DPO, KTO, PPO, SFT, EnvConfig, LMConfig, Reinforce, Schedule, cli, program, replace, run
from jaxrl.data import DataConfig, prepare
from jaxrl.lm import language_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.directory import NotSaved
from jaxrl.runs.logs import Logger, files, write_csv
from tests.helpers.compare import same_bytes
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2)
QUICK = {"schedule": Schedule(logs=6, evals=2, saves=6), "progress": False}
PAIRS = [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(8)]


def given(config):
    if hasattr(config, "env"):
        return {}
    model = config_of("llama", vocab_size=259)
    data = prepare(config.data, byte_tokenizer(), PAIRS, learns_from=config.learns_from, model=model)[0]
    return {"network": language_model(model), "params": params_of(model), "data": data}


@pytest.mark.parametrize("kind", [PPO, A2C, Reinforce, SFT, DPO, KTO])
def test_every_column_that_an_algorithm_logs_is_documented(kind):
    config = kind() if kind in (PPO, A2C) else Reinforce(num_steps=500) if kind is Reinforce else None
    config = config or replace(kind(lm=LMConfig("tiny"), data=DataConfig(held_out=0.25)), batch_size=2)
    p = program(config, **given(config))
    logged = jax.eval_shape(p.step, jax.eval_shape(p.init, jax.random.key(0)))[1]
    told = re.findall(r"[a-z0-9_/]+\*?(?=[,:; (])", inspect.getdoc(files).split("metrics.jsonl:")[1])
    starts = tuple(name[:-1] for name in told if name.endswith("*"))
    assert not [name for name in logged if name not in told and not name.startswith(starts)]


def test_the_table_has_a_column_for_all_that_any_row_tells(tmp_path):
    logger = Logger(tmp_path)
    logger.row(0, {"eval_return": 2.0}, {"train_seconds": 0.0})
    logger.row(8, {"loss": float("nan"), "eval_return": 3.0}, {"train_seconds": 1.0})
    logger.row(16, {"loss": 0.5}, {"train_seconds": 2.0})
    logger.close()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"step": "0", "eval_return": "2.0", "train_seconds": "0.0", "loss": ""},
        {"step": "8", "eval_return": "3.0", "train_seconds": "1.0", "loss": ""},
        {"step": "16", "eval_return": "", "train_seconds": "2.0", "loss": "0.5"},
    ]
    assert write_csv(tmp_path).read_text().count("\n") == 4


@pytest.mark.parametrize("spoilt", [b'{"step": 5, "lo', b"\xff\xfe", b"[1, 2]", b'{"loss": 1.0}', b""])
def test_a_line_that_is_no_row_is_left_out_with_its_number_and_the_run_goes_on(tmp_path, spoilt):
    whole = run(CONFIG, 3, tmp_path / "run", **QUICK)
    file = whole.run_dir / "metrics.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], spoilt, *lines[3:], b""]))
    with pytest.warns(UserWarning, match=rf"line 3 of {re.escape(str(file))} cannot be read, and is left out"):
        again = run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert same_bytes(again.state, whole.state)
    assert file.read_bytes().splitlines() == [*lines[:2], *lines[3:]]
    notes = []
    assert len(read_metrics(file, notes)) == len(lines) - 1 and not notes


def test_a_full_disk_is_one_sentence_and_with_room_again_the_run_goes_on(tmp_path, monkeypatch):
    whole = run(CONFIG, 3, tmp_path / "whole", **QUICK)
    row, written = Logger.row, []

    def full(self, step, *rest):
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(step)
        row(self, step, *rest)

    monkeypatch.setattr(Logger, "row", full)
    with pytest.raises(NotSaved, match=r"could not be written \(No space left on device\); all up to the last"):
        run(CONFIG, 3, tmp_path / "run", **QUICK)
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert stopped.value.code == 4
    monkeypatch.undo()
    again = run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert same_bytes(again.state, whole.state)
    assert (again.run_dir / "metrics.jsonl").read_bytes() == (whole.run_dir / "metrics.jsonl").read_bytes()


def test_where_nothing_can_be_written_is_said_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; name a directory"):
        run(CONFIG, 3, tmp_path / "file" / "run", **QUICK)
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(NotSaved, match="Permission denied"):
            run(CONFIG, 3, tmp_path / "locked" / "run", **QUICK)


def test_wandb_that_is_not_installed_is_said_first(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"wandb = 'mine' needs a package; install it \(pip install jaxrl\[wandb\]\)"):
        run(CONFIG, 3, tmp_path / "run", wandb="mine", **QUICK)
    assert not (tmp_path / "run").exists()
    (tmp_path / "wandb.json").write_text(json.dumps({"project": "mine", "id": "x"}))
    with pytest.raises(ValueError, match="wandb = 'mine' needs"):
        from jaxrl.runs.logs import check_wandb

        check_wandb(None, tmp_path)
