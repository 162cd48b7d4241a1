"""`jaxrl train`, `finetune`, `resume` and `evaluate`: from a config to a run, and on from there."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, Schedule, run
from jaxrl.algorithms import DPO
from jaxrl.cli import command
from jaxrl.data import DataConfig
from jaxrl.lm import LMConfig, save_model
from jaxrl.runs import logs
from jaxrl.runs.finetuning import finetune
from jaxrl.settings import replace
from tests.helpers.environments import Counter
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

SMALL = "--total-steps 2048 --logs 4 --evals 1 --saves 2 --eval-episodes 4".split()


class Cut(Exception):
    """Stands for the end of a process."""


def said(capsys, *argv):
    capsys.readouterr()
    command.main([str(word) for word in argv])
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        command.main([str(word) for word in argv])
    assert stopped.value.code == 2
    return capsys.readouterr().err


def cut_at(monkeypatch, step, *argv):
    """Runs a command whose process ends, in effect, when the row of `step` is written."""
    write = logs.Logger.row

    def row(self, at, *rest):
        write(self, at, *rest)
        if at == step:
            raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(logs.Logger, "row", row)
        command.main([str(word) for word in argv])


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run from the command line."""
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    command.main(["train", "ppo/cartpole", "--seed", "3", "--run-dir", str(run_dir), *SMALL])
    return run_dir


def test_train_takes_a_name_and_any_field_and_ends_with_its_figures(ended):
    assert json.loads((ended / "result.json").read_text())["env_steps"] == 2048
    assert json.loads((ended / "run.json").read_text())["seed"] == 3


def test_train_refuses_what_it_cannot_train(capsys):
    assert "name a config first, as in ppo/cartpole; there are a2c/acrobot" in refused(capsys, "train")
    assert "did you mean 'ppo/cartpole'" in refused(capsys, "train", "ppo/cartpol")
    sentence = refused(capsys, "train", "ppo")
    assert "a name: ppo/acrobot, ppo/ant, " in sentence and "a2c" not in sentence
    sentence = refused(capsys, "train", "zzzzzzz")
    assert "a2c/acrobot" in sentence and "dpo/" not in sentence and "kto/" not in sentence
    assert "sft learns from rows: jaxrl finetune sft --path FILE" in refused(capsys, "train", "sft")
    sentence = "dpo/sentiment learns from rows: jaxrl finetune dpo/sentiment --path FILE"
    assert sentence in refused(capsys, "train", "dpo/sentiment")
    assert "ppo/cartpole learns by acting: jaxrl train ppo/cartpole" in refused(capsys, "finetune", "ppo/cartpole")


def test_resume_knows_seed_and_schedule_and_ends_in_the_same_numbers(ended, tmp_path, monkeypatch, capsys):
    mine = tmp_path / "run"
    cut_at(monkeypatch, 1536, "train", "ppo/cartpole", "--seed", 3, "--run-dir", mine, *SMALL)
    assert not (mine / "result.json").exists()
    _, figures = said(capsys, "resume", mine)
    assert figures["env_steps"] == 2048
    assert (mine / "metrics.jsonl").read_bytes() == (ended / "metrics.jsonl").read_bytes()


def test_a_run_that_had_ended_says_so_and_stays_as_it_is(ended, capsys):
    before = {path: path.stat().st_mtime_ns for path in ended.rglob("*")}
    lines, figures = said(capsys, "resume", ended)
    assert lines == [f"{ended} had ended: these are its figures"]
    assert figures == json.loads((ended / "result.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in ended.rglob("*")} == before


def test_what_was_given_as_an_object_of_python_is_refused_with_the_command_that_can_give_it(tmp_path, capsys):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4, time_limit=5), num_steps=16, total_steps=64)
    run_dir = tmp_path / "run"
    run(config, 0, run_dir, schedule=Schedule(1, 0, 1), progress=False, env=Counter())
    about = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**about, "command": ["python", "mine.py", "--a b"]}))
    remedies = {
        "resume": f"python mine.py '--a b' --run-dir {run_dir} --resume",
        "evaluate": f"jaxrl.load_policy({str(run_dir)!r}, env=...) acts",
    }
    for verb, remedy in remedies.items():
        sentence = refused(capsys, verb, run_dir)
        assert "was given its env (tests.helpers.environments:Counter) as objects of Python" in sentence
        assert remedy in sentence


@pytest.mark.parametrize("known", [True, False])
def test_a_run_in_an_environment_that_is_elsewhere_says_where(ended, tmp_path, capsys, known):
    mine = shutil.copytree(ended, tmp_path / "run")
    config = (mine / "config.yaml").read_text()
    (mine / "config.yaml").write_text(config.replace("gymnax/CartPole-v1", "my_lost_mazes:Maze"))
    about = json.loads((mine / "run.json").read_text())
    assert about.pop("folder") == os.getcwd()
    about |= {"folder": "/home/me/my mazes"} if known else {}
    (mine / "run.json").write_text(json.dumps(about))
    folder = "'/home/me/my mazes'" if known else "FOLDER_THAT_HOLDS_my_lost_mazes"
    for verb, *more in (["evaluate"], ["render"], ["resume"], ["export", tmp_path / "new"]):
        sentence = refused(capsys, verb, mine, *more)
        assert "learned in my_lost_mazes:Maze, and there is no module 'my_lost_mazes' here" in sentence
        assert f"before the same command: PYTHONPATH={folder}\n" in sentence and "algorithm of your own" not in sentence


def test_without_a_checkpoint_there_is_a_remedy(ended, tmp_path, capsys):
    mine = shutil.copytree(ended, tmp_path / "run")
    shutil.rmtree(mine / "checkpoints")
    assert "none was saved before the run ended (--saves 0)" in refused(capsys, "evaluate", mine)


def test_a_run_with_a_probe_is_not_resumed_without_it(ended, tmp_path, capsys):
    mine = shutil.copytree(ended, tmp_path / "run")
    about = json.loads((mine / "run.json").read_text())
    (mine / "run.json").write_text(json.dumps({**about, "probe": "mine:probe"}))
    assert "was begun with probe = mine:probe, a function" in refused(capsys, "resume", mine)


def test_a_run_of_an_algorithm_of_ones_own_is_refused_with_its_command(ended, tmp_path, capsys):
    mine = shutil.copytree(ended, tmp_path / "run")
    config = (mine / "config.yaml").read_text()
    (mine / "config.yaml").write_text(config.replace("name: ppo", "name: mine", 1))
    sentence = refused(capsys, "resume", mine)
    assert "algorithm.name = 'mine' is not one of" in sentence and "If that is an algorithm of your own: " in sentence
    assert sentence.rstrip().endswith("--resume")
    assert "holds no run" in refused(capsys, "resume", tmp_path)


def test_evaluate_plays_the_newest_checkpoint(ended, capsys):
    lines, found = said(capsys, "evaluate", ended, "--episodes", 32, "--seed", 1)
    assert found["episodes"] == 32 and found["env_steps"] == 2048 and found["behaviour"] == "mode"
    assert found["return"] == found["episode_length"] > 0 and found["invalid_steps"] == 0
    np.testing.assert_allclose(found["return_stderr"], found["return_std"] * (32 / 31) ** 0.5 / 32**0.5)
    assert "(standard error), of 32 episodes" in lines[0]
    assert said(capsys, "evaluate", ended, "--episodes", 32, "--seed", 1)[1] == found
    random = said(capsys, "evaluate", ended, "--episodes", 32, "--seed", 1, "--behaviour", "random")[1]
    zero = said(capsys, "evaluate", ended, "--episodes", 32, "--seed", 1, "--behaviour", "zero")[1]
    assert 15 < random["return"] < 30 and 8 < zero["return"] < 11
    assert "return_stderr" not in said(capsys, "evaluate", ended, "--episodes", 1)[1]
    assert "episodes = 0 must be at least 1" in refused(capsys, "evaluate", ended, "--episodes", 0)
    assert "learned by acting; leave it out" in refused(capsys, "evaluate", ended, "--path", "rows.jsonl")


PAIRS = [{"prompt": f"{a}+{b}=", "chosen": "sum", "rejected": "difference"} for a in range(5) for b in range(4)]
TUNED = "--max-updates 6 --batch-size 4 --learning-rate 0.01 --logs 6 --evals 2 --saves 3 --sample-length 4".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model that reads and writes bytes, and a file of pairs beside it."""
    folder = tmp_path_factory.mktemp("model")
    config = config_of("llama", vocab_size=259)
    save_model(folder / "tiny", config, params_of(config), byte_tokenizer())
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)))
    return folder


def tuned(model, run_dir, *more):
    data = ["--path", model / "pairs.jsonl", "--held-out", 0.2, "--epochs", 9]
    return ["finetune", "dpo", "--name", model / "tiny", *data, "--run-dir", run_dir, *TUNED, *more]


@pytest.mark.parametrize("more", [[], ["--lora-rank", 2, "--adapter-only"]], ids=["whole", "adapter"])
def test_finetune_resume_and_evaluate_of_a_language_model(model, tmp_path, monkeypatch, capsys, more):
    one, two = tmp_path / "one", tmp_path / "two"
    lines, figures = said(capsys, *tuned(model, one, *more))
    folder = one / ("adapter" if more else "model")
    assert f"model       {folder}" in lines and figures["rows_seen"] == 24
    cut_at(monkeypatch, 20, *tuned(model, two, *more))
    assert "it has not ended; jaxrl resume" in refused(capsys, "evaluate", two)
    assert said(capsys, "resume", two)[1]["loss"] == figures["loss"]
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()

    _, found = said(capsys, "evaluate", one)
    assert found["model"] == str(folder) and found["loss"] < figures["loss_before"]
    for name in ("loss", "rewards/accuracy", "rewards/margin", "entropy"):
        np.testing.assert_allclose(found[name], figures[name], rtol=1e-4, atol=1e-5)
    other = tmp_path / "other.jsonl"
    other.write_text("\n".join(json.dumps({**row, "chosen": "nothing"}) for row in PAIRS))
    assert said(capsys, "evaluate", one, "--path", other)[1]["loss"] > found["loss"]
    assert "plays no episodes" in refused(capsys, "evaluate", one, "--episodes", 3)


def test_rows_that_were_given_are_given_again_or_named(model, tmp_path, capsys):
    config = DPO(lm=LMConfig(str(model / "tiny")), data=DataConfig(held_out=0.0))
    config = replace(config, max_updates=2, batch_size=4)
    quick = {"schedule": Schedule(logs=1, evals=0, saves=1), "progress": False}
    run_dir = finetune(config, PAIRS, run_dir=tmp_path / "run", **quick).result.run_dir
    assert "was given its rows as objects of Python" in refused(capsys, "evaluate", run_dir)
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(map(json.dumps, PAIRS[:4])))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="max_updates")  # of rows to measure on, which nothing trains on
        found = said(capsys, "evaluate", run_dir, "--path", few)[1]
    assert np.isfinite(found["loss"])


def test_a_run_without_held_out_rows_asks_for_a_file(model, tmp_path, capsys):
    said(capsys, *tuned(model, tmp_path / "run", "--held-out", 0.0, "--max-updates", 1))
    assert "holds out no rows; name a file of rows: --path FILE" in refused(capsys, "evaluate", tmp_path / "run")
