"""Several processes on this machine as one program: two of two devices each."""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl import DPO, PPO, EnvConfig, ModelParallel, Parallel, Schedule, finetune, replace, run
from jaxrl.config_file import load_config, save_config
from jaxrl.lm import ModelConfig, language_model, load_model, save_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.training import program
from tests.helpers.tokenizers import byte_tokenizer

ROOT = Path(__file__).parent.parent.parent
LAUNCH = [sys.executable, "scripts/launch", "-n", "2", "--devices", "2"]
CONFIG = PPO(
    env=EnvConfig(num_envs=32, eval_episodes=4),
    total_steps=32 * 16 * 16,
    num_steps=16,
    normalize_obs=True,
    normalize_return=True,
    hidden=(16,),
    parallel=Parallel(data=4),
)
EVERY = ["--logs", "8", "--evals", "1", "--saves", "4", "--seed", "3"]
SCHEDULE = Schedule(logs=8, evals=1, saves=4)


def launched(words, *more, file="train"):
    return subprocess.Popen(
        [*LAUNCH, *more, f"experiments/{file}.py", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    out, told = process.communicate(timeout=600)
    assert process.returncode == 0, told
    return json.loads(out.splitlines()[-1]), told


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    save_config(CONFIG, path)
    return path


@pytest.fixture(scope="module")
def by_two(described, tmp_path_factory):
    """The figures and the directory of a run of two processes."""
    directory = tmp_path_factory.mktemp("two") / "run"
    return ended(launched([str(described), *EVERY, "--run-dir", str(directory)]))[0], directory


def rows_alike(a, b):
    a, b = (read_metrics(directory / "metrics.jsonl") for directory in (a, b))
    assert [row["step"] for row in a] == [row["step"] for row in b] and len(a) == 8
    for one, other in zip(a, b, strict=True):
        for name in ("entropy", "episode_length", "value_loss"):
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), (one["step"], name)


def without_newest(directory, copy):
    """A copy as it would be had the run been stopped before its last save."""
    shutil.copytree(directory, copy)
    newest = str(Checkpoints(copy / "checkpoints", read_only=True).steps()[-1])
    for path in [path for path in (copy / "checkpoints").rglob(newest) if path.is_dir()]:
        shutil.rmtree(path)
    return copy


def test_two_processes_compute_what_one_does_and_one_of_them_writes(by_two, tmp_path):
    figures, directory = by_two
    assert figures["devices"] == 4 and figures["processes"] == 2 and figures["run_dir"] == str(directory)
    alone = run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False)
    assert alone.figures["devices"] == 1 and alone.figures["processes"] == 1
    rows_alike(directory, tmp_path / "run")
    speeds = [row["steps_per_second"] for row in read_metrics(directory / "timing.jsonl")]
    assert max(speeds) < 50 * np.median(speeds)  # each row counts its own time, though no two programs overlap
    assert sorted(path.name for path in directory.iterdir()) == sorted(p.name for p in (tmp_path / "run").iterdir())


def test_two_processes_are_two_devices_of_one_bit_for_bit(described, tmp_path):
    """A sum of two numbers is the same in any order."""
    words = [str(described), *EVERY, "--data", "2", "--total-steps", str(32 * 16 * 8), "--run-dir"]
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=2"
    alone = [sys.executable, "experiments/train.py", *words, str(tmp_path / "one")]
    subprocess.run(alone, cwd=ROOT, check=True, timeout=300, env={**os.environ, "XLA_FLAGS": flags})
    ended(launched([*words, str(tmp_path / "two")], "--devices", "1"))
    one, two = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two and one.count(b"\n") == 8


def test_each_process_saves_what_its_devices_have_and_a_checkpoint_is_whole_with_all_parts(by_two, tmp_path):
    saves = by_two[1] / "checkpoints"
    old, new = Checkpoints(saves, read_only=True).steps()
    assert sorted(int(path.name) for path in (saves / "hosts" / "1").iterdir()) == [old, new]
    template = jax.eval_shape(program(CONFIG).init, jax.random.key(0))
    found = Checkpoints(saves, read_only=True).newest(template)
    assert found.step == new == int(found.tree.num_steps) and found.notes == []
    mine, theirs = (
        json.loads((saves / host / str(new) / "manifest" / "metadata").read_text()) for host in (".", "hosts/1")
    )
    dealt = {what[2] for what in mine["leaves"].values() if len(what) > 2}
    assert ".carry.env_state.elapsed" in dealt and not any(
        ".params" in path for path in dealt
    )  # they are the same on all
    assert dealt == {what[2] for what in theirs["leaves"].values()}


def gone(part, older):
    shutil.rmtree(part)


def cut(part, older):
    (part / "tree" / "arrays.npz").write_bytes(b"PK")


def other_numbers(part, older):
    file = part / "tree" / "arrays.npz"
    np.savez(file, **{name: 0 * x for name, x in np.load(file).items()})


def of_another_save(part, older):
    shutil.copytree(older, part, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (gone, "process 1 had not written its part"),
        (cut, "cannot be read"),
        (other_numbers, "is not what was saved"),
        (of_another_save, "the part of process 1 is of another save"),
    ],
)
def test_a_part_that_is_not_what_was_saved_is_gone_back_from(by_two, tmp_path, spoil, sentence):
    saves = tmp_path / "checkpoints"
    shutil.copytree(by_two[1] / "checkpoints", saves)
    made = Checkpoints(saves)
    old, new = made.steps()
    spoil(saves / "hosts" / "1" / str(new), saves / "hosts" / "1" / str(old))
    template = jax.eval_shape(program(CONFIG).init, jax.random.key(0))
    found = made.newest(template)
    assert found.step == old and sentence in found.notes[0] and "going on from" in found.notes[0]
    assert not list(saves.rglob(str(new)))  # every part of it is aside
    for step in (new, new + 1):
        made.save(step, found.tree)
    assert made.newest(template)[1:] == (new + 1, []) and made.steps() == [new, new + 1]
    assert not list((saves / "hosts" / "1").iterdir())  # one process clears away what the second has left


def test_what_two_have_saved_one_goes_on_with(by_two, tmp_path):
    _, directory = by_two
    copy = without_newest(directory, tmp_path / "run")
    with pytest.warns(UserWarning, match="devices was 4, is 1"):
        state = run(CONFIG, 3, copy, resume=True, schedule=SCHEDULE, progress=False).state
    assert int(state.num_steps) == CONFIG.total_steps
    rows_alike(directory, copy)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a process by its environment, as Linux does")
def test_where_one_is_killed_all_begin_again_from_what_one_process_had_saved(by_two, described, tmp_path):
    run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False)
    directory = without_newest(tmp_path / "run", tmp_path / "copy")
    process = launched([str(described), *EVERY, "--run-dir", str(directory), "--resume"], "--restarts", "1")
    killed = second(str(directory), process)
    os.kill(killed, signal.SIGKILL)
    figures, told = ended(process)
    assert "ended with 137; starting again, 0 more" in told
    assert figures["processes"] == 2 and figures["env_steps"] == CONFIG.total_steps
    rows_alike(by_two[1], directory)
    assert load_config(directory / "config.yaml", {"ppo": PPO}).parallel.data == 4


def second(directory, launcher):
    """The process of number 1 that works on this directory, once it has joined the other."""
    while launcher.poll() is None:
        for found in Path("/proc").glob("[0-9]*"):
            try:
                words = (found / "cmdline").read_bytes().split(b"\0")
                env = (found / "environ").read_bytes().split(b"\0")
                joined = "libjax" in (found / "maps").read_text()
            except OSError:  # gone, or another user's
                continue
            if directory.encode() in words and b"JAX_PROCESS_ID=1" in env and joined:
                return int(found.name)
        time.sleep(0.1)
    raise AssertionError(launcher.communicate()[1])


def test_two_processes_align_a_model_of_which_each_device_holds_a_part(tmp_path):
    tokenizer = byte_tokenizer()
    shape = ModelConfig(tokenizer.vocab_size + -tokenizer.vocab_size % 8, 16, 512, 2, 4, 2, 4, 64)
    save_model(tmp_path / "base", shape, language_model(shape).init(jax.random.key(0)), tokenizer)
    rows = [{"prompt": f"ab{i}", "chosen": f" yes{i}", "rejected": " no"} for i in range(16)]
    config = replace(DPO(parallel=ModelParallel(fsdp=2, tensor=2)), name=str(tmp_path / "base"), learning_rate=1e-3)
    config = replace(config, batch_size=4, max_updates=4, held_out=0.25, path=str(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    save_config(config, tmp_path / "dpo.yaml")
    words = [str(tmp_path / "dpo.yaml"), "--run-dir", str(tmp_path / "two"), "--seed", "3", "--samples", "2"]
    figures = ended(launched(words, file="finetune"))[0]
    assert figures["devices"] == 4 and figures["processes"] == 2
    alone = finetune(replace(config, parallel=ModelParallel()), seed=3, run_dir=tmp_path / "one", samples=2)
    assert alone.result.figures["loss"] == pytest.approx(figures["loss"], abs=1e-5)
    copy = without_newest(tmp_path / "two", tmp_path / "again")
    shutil.rmtree(copy / "model")
    with pytest.warns(UserWarning, match="devices was 4, is 1"):  # and each device's part of the model was saved by it
        finetune(replace(config, parallel=ModelParallel()), seed=3, run_dir=copy, samples=2, resume=True)
    one, *others = (jax.tree.leaves(load_model(tmp_path / n / "model").params) for n in ("one", "two", "again"))
    for other in others:
        for x, y in zip(one, other, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_bad_input_is_said_once(described, tmp_path):
    process = launched([str(described), "--num-envs", "30", "--run-dir", str(tmp_path / "run")])
    out, told = process.communicate(timeout=300)
    assert process.returncode == 2
    assert told.count("error: num_envs = 30 cannot be dealt to parallel.data = 4 shards; try 3") == 1
    assert "{" not in out and not (tmp_path / "run").exists()  # Gloo says that it is there
    save_config(CONFIG, tmp_path / "run.json")  # the first alone sees that somebody has been here
    process = launched([str(described), "--run-dir", str(tmp_path)])
    out, told = process.communicate(timeout=240)  # JAX's own end of one of several waits for 300 s
    assert process.returncode == 2 and told.count(f"error: {tmp_path} already holds a run") == 1
    refused = subprocess.run([*LAUNCH, "--restarts", "1", "x.py"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "give the file's --run-dir" in refused.stderr


def test_each_process_gets_its_share_of_the_gpus(tmp_path):
    launch = runpy.run_path("scripts/launch", run_name="launch")
    eight = launch["gpus"]({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"})
    shares = launch["shared"](eight, 4)
    assert [share["JAX_LOCAL_DEVICE_IDS"] for share in shares] == ["0,1", "2,3", "4,5", "6,7"]
    # By their own numbers, whichever of the machine's they are.
    assert launch["gpus"]({"CUDA_VISIBLE_DEVICES": "5,7"}) == ["0", "1"]
    assert launch["gpus"]({"CUDA_VISIBLE_DEVICES": "0", "JAX_PLATFORMS": "cpu"}) == []
    assert launch["gpus"]({"CUDA_VISIBLE_DEVICES": ""}) == [] and launch["shared"]([], 2) == [{}, {}]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: a)'; echo 'GPU 1: H200 (UUID: b)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES")}
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    refused = subprocess.run([*LAUNCH[:3], "3", "x.py"], cwd=ROOT, capture_output=True, text=True, env=env)
    assert refused.returncode == 2 and "2 GPUs cannot be dealt to 3 processes" in refused.stderr


def test_where_one_raises_in_the_middle_the_others_end_at_once(tmp_path):
    (tmp_path / "own.py").write_text(
        "from jaxrl.training.processes import agreed, initialize, is_first\n"
        "initialize()\n"
        "agreed(1)\n"
        "assert is_first(), 'only one of them raises'\n"
        "agreed(1)\n"
    )
    done = subprocess.run([*LAUNCH, str(tmp_path / "own.py")], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1 and "AssertionError: only one of them raises" in done.stderr
