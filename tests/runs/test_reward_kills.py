"""Learning from a reward, killed while it samples, within a reward and while it updates, each in a process of its own:
`jaxrl resume` goes on to the same bytes, with the reward, its timeout and all else that the run was begun with.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import Schedule
from jaxrl.cli import command
from jaxrl.lm import save_model
from jaxrl.lm.heads import with_head
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.finetuning import finetune, materials
from jaxrl.runs.loading import saved_run
from jaxrl.runs.preemption import Stopped
from jaxrl.training import program
from jaxrl.types import RewardFailed
from tests.cli.test_command import refused
from tests.helpers.compare import same_bytes
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

ROOT = Path(__file__).parents[2]
BATCH, UPDATES = 8, 6
REWARD = f"""
import os, signal
calls = 0

def letters(prompts, completions, wanted):
    global calls
    calls += len(completions) == {BATCH}  # of training; those held out are fewer
    name, _, at = os.environ.get("SIGNAL_IN_REWARD", "").partition(" ")
    if name and calls == int(at) and len(completions) == {BATCH}:
        signal.raise_signal(getattr(signal, name))
    return [text.count(w) + sum(map(str.isalpha, text)) for text, w in zip(completions, wanted)]
"""
# The command line, in which a program of the run is killed while it is under way. With a function of texts the programs
# are: no update, learning, sampling; else the first is both.
CHILD = """
import os, signal, sys
from jaxrl.cli import command
from jaxrl.training import compiled

place, at, *words = sys.argv[1:]
side_by_side = compiled._side_by_side

class Killed:
    def __init__(self, made):
        self.made, self.calls = made, 0
    def __getattr__(self, name):
        return getattr(self.made, name)
    def __call__(self, *arguments):
        self.calls += 1
        made = self.made(*arguments)
        if self.calls == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return made

def watched(*arguments):
    made = side_by_side(*arguments)
    killed = Killed(made[int(place)]())
    return [(lambda: killed) if i == int(place) else one for i, one in enumerate(made)]

compiled._side_by_side = watched
command.main(words)
"""
WHOLE, LEARN, SAMPLE = 0, 1, 2
KINDS = {
    "rlhf": "--kl-controller adaptive --kl-target 1 --kl-horizon 50 --critic separate --lora-rank 2 --num-epochs 2",
    "grpo": "--per-prompt 4 --num-minibatches 2",
    "onlinedpo": "--lora-rank 2",
}
QUICK = "--held-out 0.2 --max-new-tokens 5 --max-updates 6 --epochs 8 --eval-prompts 4 --learning-rate 3e-3 --warmup 0"
OFTEN = "--logs 6 --evals 2 --saves 3"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, a reward model of the same tokenizer, prompts, and a module with a reward."""
    home = tmp_path_factory.mktemp("home")
    config = config_of("llama", vocab_size=300, num_hidden_layers=1)
    params = jax.tree.map(lambda x: 0.3 * x if x.ndim > 1 else x, params_of(config))
    save_model(home / "lm", config, params, byte_tokenizer())
    head = jnp.asarray(np.random.default_rng(0).normal(size=(config.hidden_size, 1)), jnp.float32)
    save_model(home / "scores", config, with_head(params, head), byte_tokenizer())
    rows = [{"prompt": f"{i} and {i + 1}", "wanted": "aeiou"[i % 5]} for i in range(20)]
    (home / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (home / "counted_letters.py").write_text(REWARD)
    return home


@pytest.fixture
def here(home, monkeypatch):
    """In the folder that holds all of it, as a user."""
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(home)
    monkeypatch.delitem(sys.modules, "counted_letters", raising=False)
    return home


def words(kind, run_dir, *more):
    given = f"finetune {kind} --path prompts.jsonl --name lm --batch-size {BATCH} {QUICK} {OFTEN} {KINDS[kind]}"
    reward = ("--reward", "scores") if kind == "grpo" else ("--reward", "counted_letters:letters")
    return [*given.split(), *reward, "--run-dir", str(run_dir), *more]


def begun(home, argv, code=None, **env):
    """The command line as a process of its own, or `code` that calls it."""
    start = [sys.executable, "-m", "jaxrl"] if code is None else [sys.executable, "-c", CHILD, *code]
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{home}"} | env
    return subprocess.Popen(
        [*start, *argv], cwd=home, env=env, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def state_of(run_dir):
    """The newest checkpoint, whole."""
    saved = saved_run(run_dir)
    asked = saved.about["finetune"]
    given = materials(saved.config, reward=asked["reward"], reward_timeout=asked["reward_timeout"]).given
    template = jax.eval_shape(program(saved.config, **given).init, jax.random.key(0))
    return Checkpoints(run_dir / "checkpoints", read_only=True).newest(template).tree


def same(one, other):
    files = ["metrics.jsonl", "samples.jsonl", "model/model.safetensors"]
    return all((one / f).read_bytes() == (other / f).read_bytes() for f in files) and same_bytes(
        state_of(one), state_of(other)
    )


@pytest.fixture(scope="module")
def whole(home):
    """A run of each kind that nothing stops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(home)
        for kind in KINDS:
            command.main(words(kind, home / kind))
    return home


def test_killed_where_it_samples_in_a_reward_and_where_it_updates_it_ends_in_the_same_bytes(whole, here):
    code = {
        "rlhf sampling": (str(SAMPLE), "5"),
        "rlhf update": (str(LEARN), "4"),
        "grpo both": (str(WHOLE), "4"),  # the first call is of no updates
        "onlinedpo reward": None,
    }
    env, killed = {"SIGNAL_IN_REWARD": "SIGKILL 5"}, {}
    for name, how in code.items():
        run_dir = here / name.replace(" ", "-")
        killed[name] = begun(here, words(name.split()[0], run_dir), how, **({} if how else env))
    for name, process in killed.items():
        err = process.communicate(timeout=400)[1]
        assert process.returncode == -signal.SIGKILL, err
        assert "model" not in {p.name for p in (here / name.replace(" ", "-")).iterdir()}
    for name in code:
        run_dir = here / name.replace(" ", "-")
        command.main(["resume", str(run_dir)])
        assert same(run_dir, whole / name.split()[0]), name
    learner = state_of(whole / "rlhf").learner
    moved = {row["kl_coef"] for row in read_metrics(whole / "rlhf" / "metrics.jsonl") if "kl_coef" in row}
    assert len(moved) == UPDATES and jnp.any(learner.trained.head != 0), "a controller and a head that do nothing"


def test_asked_to_stop_in_a_reward_it_loses_no_batch_and_resumes_with_all_that_it_was_given(
    whole, here, capsys, monkeypatch
):
    # Not where an evaluation follows: the command leaves one that is under way by ending its process, which is ours.
    monkeypatch.setenv("SIGNAL_IN_REWARD", "SIGTERM 4")
    with pytest.raises(SystemExit) as end:
        command.main(words("rlhf", here / "stopped", "--reward-timeout", "300"))
    assert end.value.code == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert f"stopped by SIGTERM after {4 * BATCH} of {UPDATES * BATCH} completions; all is saved" in told["stopped"]
    assert Checkpoints(here / "stopped" / "checkpoints").steps()[-1] == 4 * BATCH
    asked = json.loads((here / "stopped" / "run.json").read_text())["finetune"]
    assert (asked["reward"], asked["reward_timeout"]) == ("counted_letters:letters", 300.0)
    monkeypatch.delenv("SIGNAL_IN_REWARD")
    command.main(["resume", str(here / "stopped")])
    assert same(here / "stopped", whole / "rlhf")


def from_python(reward, run_dir, **options):
    config = saved_run(Path("onlinedpo")).config
    options = {"schedule": Schedule(logs=6, evals=2, saves=3), "progress": False} | options
    return finetune(config, reward=reward, run_dir=run_dir, **options)


def test_a_reward_that_no_file_holds_is_asked_for_again(whole, here, capsys, monkeypatch):
    reward = importlib.import_module("counted_letters").letters
    monkeypatch.setenv("SIGNAL_IN_REWARD", "SIGTERM 2")
    with pytest.raises(Stopped):
        from_python(reward, here / "given")
    said = refused(capsys, "resume", here / "given")
    assert "was given its reward (counted_letters:letters) as objects of Python, which no file holds" in said
    assert f"by finetune(…, run_dir={str(here / 'given')!r}, resume=True)" in said
    from_python(reward, here / "given", resume=True)
    rows = [(run / "metrics.jsonl").read_bytes() for run in (here / "given", whole / "onlinedpo")]
    assert rows[0] == rows[1]


def test_a_reward_that_was_mended_goes_on_by_the_command_that_its_failure_names(whole, here, capsys):
    broken = "def score(prompts, completions):\n    raise KeyError('a word')\n"
    (here / "broken_rewards.py").write_text(broken)
    with pytest.raises(RewardFailed, match=r"KeyError: 'a word', .*; mend it, .*jaxrl resume .* --accept-changes"):
        from_python("broken_rewards:score", here / "mended")
    (here / "broken_rewards.py").write_text(broken.replace("raise KeyError('a word')", "return [1.0] * len(prompts)"))
    del sys.modules["broken_rewards"]
    later = time.time() + 10  # or Python takes what it has compiled of a file of the same second
    os.utime(here / "broken_rewards.py", (later, later))
    was = "was run with the reward broken_rewards:score ("
    assert was in refused(capsys, "resume", here / "mended")
    command.main(["resume", str(here / "mended"), "--accept-changes"])
    assert json.loads((here / "mended" / "result.json").read_text())["completions"] == UPDATES * BATCH
    run = json.loads((here / "mended" / "run.json").read_text())
    assert run["finetune"]["reward"] == "broken_rewards:score" and was[13:] in run["changes"][0]["changes"][0]


def test_from_another_folder_the_sentence_names_the_one_whose_paths_a_run_has(
    whole, here, tmp_path, capsys, monkeypatch
):
    (here / "grpo" / "result.json").rename(here / "grpo" / "kept.json")
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "resume", here / "grpo")
    (here / "grpo" / "kept.json").rename(here / "grpo" / "result.json")
    assert "there is no model 'lm'" in said and f"are those of {here}, where it was begun" in said
