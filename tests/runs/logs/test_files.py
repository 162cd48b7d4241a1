"""Rows on disk: what they hold, and what happens to those that a disk has spoilt."""

import csv
import errno
import inspect
import io
import os
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, DPO, KTO, PPO, SFT, EnvConfig, LMConfig, Reinforce, Schedule, cli, program, replace, run
from jaxrl.data import DataConfig, prepare
from jaxrl.evaluators.episodes import Evaluation, figures
from jaxrl.evaluators.samples import Ask, first_prompts
from jaxrl.lm import language_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.directory import NotSaved, on_disk
from jaxrl.runs.logs import Logger, files, write_csv
from jaxrl.types import InputError
from tests.helpers.compare import same_bytes
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2)
QUICK = {"schedule": Schedule(logs=6, evals=2, saves=6), "progress": False}
PAIRS = [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(8)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(CONFIG, 3, tmp_path_factory.mktemp("whole") / "run", **QUICK)


def given(config):
    if hasattr(config, "env"):
        return {}
    model = config_of("llama", vocab_size=259)
    data = prepare(config.data, byte_tokenizer(), PAIRS, learns_from=config.learns_from, model=model)[0]
    return {"network": language_model(model), "params": params_of(model), "data": data}


def logged(config):
    """The columns of its rows, with the prefixes of evaluations; nothing is compiled."""
    more = given(config)
    if "data" in more:
        data = more["data"]
        more["samples"] = Ask(first_prompts(data.held_out or data.train, 2), 4, byte_tokenizer())
    return columns(program(config, **more))


def columns(p):
    state = jax.eval_shape(p.init, jax.random.key(0))
    found = set(jax.eval_shape(p.step, state)[1])
    for e in p.evaluators:
        measured = jax.eval_shape(e.measure, jax.random.key(0), state.learner, jnp.int32(0))
        read = e.read(e.cases[0], jax.tree.map(lambda x: np.ones(x.shape, x.dtype), measured))
        found |= {f"{e.prefix}{name}" for name in read}
    return found


def documented(title):
    """Names at the heads of the lines between this line of the docstring and the next one like it."""
    told = inspect.getdoc(files).split(f"Columns of {title}:")[1].split("Columns of ")[0]
    heads = re.findall(r"^([a-z0-9_/]+(?:, [a-z0-9_/]+)*): ", told, re.MULTILINE)
    return {name for head in heads for name in head.split(", ")}


def test_the_columns_that_algorithms_log_are_those_that_are_documented():
    control = [PPO(), A2C(), Reinforce(num_steps=500)]
    shares = [0.25, 0.0]  # of rows held out
    rows = [replace(k(lm=LMConfig("tiny")), data=DataConfig(held_out=x)) for k in (SFT, DPO, KTO) for x in shares]
    found = {"step"}.union(*map(logged, [*control, *(replace(config, batch_size=2) for config in rows)]))
    runner = Evaluation(np.ones(2), np.ones(2), {"invalid": np.zeros(2), "x_velocity": np.ones(2)})
    found |= {f"eval_{name}" for name in figures(runner)}
    told = documented("metrics.jsonl")
    assert {n if n in told else re.sub("^(eval|first_rows)_", "", n) for n in found} == told


def test_so_are_the_columns_of_time_and_nothing_else_is_in_the_rows_of_a_run(whole):
    assert set().union(*read_metrics(whole.run_dir / "timing.jsonl")) == documented("timing.jsonl")
    assert set().union(*read_metrics(whole.run_dir / "metrics.jsonl")) == {"step"} | logged(CONFIG)


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
def test_a_line_that_is_no_row_is_left_out_with_its_number_and_the_run_goes_on(whole, tmp_path, spoilt):
    file = shutil.copytree(whole.run_dir, tmp_path / "run") / "metrics.jsonl"
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], spoilt, *lines[3:], b""]))
    with pytest.warns(UserWarning, match=rf"line 3 of {re.escape(str(file))} cannot be read, and is left out"):
        again = run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert same_bytes(again.state, whole.state)
    assert file.read_bytes().splitlines() == [*lines[:2], *lines[3:]]
    notes = []
    assert len(read_metrics(file, notes)) == len(lines) - 1 and not notes


def test_a_full_disk_is_one_sentence_and_with_room_again_the_run_goes_on(whole, tmp_path, monkeypatch):
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


def refused(number, name):
    """As a file system that is mounted read-only does, also to root."""

    def mkdir(self, *args, **kwargs):
        raise OSError(number, os.strerror(number), name)

    return mkdir


def test_a_directory_that_is_refused_is_a_sentence_and_a_file_that_is_none_of_the_runs_is_not(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refused(errno.EROFS, str(tmp_path)))
        with pytest.raises(InputError, match=r"could not be written \(Read-only file system\), and nothing has begun"):
            run(CONFIG, 3, tmp_path / "run", **QUICK)
    with pytest.raises(InputError, match="nothing has begun; make it writable, or name another run_dir"):
        run(CONFIG, 3, "/proc/self/run", **QUICK)  # which no file system has room for, nor root the right to
    with pytest.raises(PermissionError, match="elsewhere"), on_disk(tmp_path / "run"):
        raise PermissionError(errno.EACCES, "no", "/elsewhere/table.csv")
    with pytest.raises(NotSaved, match="No space left.*nothing has begun; make room there"), on_disk(tmp_path / "run"):
        raise OSError(errno.ENOSPC, "no", "/elsewhere/table.csv")
    with pytest.raises(FileNotFoundError), on_disk(tmp_path):
        (tmp_path / "sweep.json").touch()
        (tmp_path / "lost").read_text()
    with pytest.raises(NotSaved, match="all up to the last checkpoint is kept: make it writable"), on_disk(tmp_path):
        raise OSError(errno.EROFS, "no", str(tmp_path / "metrics.jsonl"))


class Full(io.StringIO):
    """A file on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl"])
def test_the_file_that_a_disk_refuses_is_named_and_the_others_are_closed_all_the_same(tmp_path, name):
    logger = Logger(tmp_path)
    logger.row(8, {"loss": 1.0}, {"train_seconds": 1.0})
    other = next(file for n, file in logger._files.items() if n != name)
    logger._files[name] = Full()
    with pytest.raises(OSError, match="No space left") as error:
        logger.row(16, {"loss": 0.5}, {"train_seconds": 2.0})
    assert error.value.filename == str(tmp_path / name)
    logger.close()
    assert other.closed and (tmp_path / "metrics.csv").read_text().startswith("step,loss,train_seconds\n8,1.0,1.0\n")


def test_a_table_that_finds_no_room_leaves_the_one_before_and_nothing_else(tmp_path, monkeypatch):
    logger = Logger(tmp_path)
    logger.row(8, {"loss": 1.0}, {"train_seconds": 1.0})
    before = write_csv(tmp_path).read_text()
    logger.row(16, {"loss": 0.5}, {"train_seconds": 2.0})
    there, write = {path.name for path in tmp_path.iterdir()}, Path.write_text

    def full(self, text):
        write(self, text[:9])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError) as error:
        write_csv(tmp_path)
    assert error.value.filename == str(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == there
