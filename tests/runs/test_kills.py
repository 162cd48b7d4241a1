"""Runs that are killed at random moments, saves included, end in the same bytes. A slice here; all of it by

JAXRL_KILLS=50 scripts/test tests/runs/test_kills.py      (of each kind; a quarter of an hour)
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from jaxrl import SFT, LMConfig, cli, replace
from jaxrl.data import DataConfig, prepare
from jaxrl.lm import language_model, load_model, save_model
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.training import program
from tests.helpers.compare import same_bytes
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

pytestmark = pytest.mark.computes
KILLS = int(os.environ.get("JAXRL_KILLS", "0"))
SLICE = {"ppo": 2, "a2c with a pool": 1, "sft": 1}
ROWS = [{"prompt": f"{a}+{b}=", "completion": f"{a + b}"} for a in range(20) for b in range(20)]
LONG = {"ppo": {"total_steps": 102_400}, "a2c with a pool": {"total_steps": 256_000}}
CHILD = """
import sys
from pathlib import Path
from jaxrl import Schedule, cli, run
from tests.runs.test_kills import made
cli.enable_compilation_cache()
kind, home, directory, resume = sys.argv[1:]
config, given = made(kind, Path(home))
schedule = Schedule(logs=20, evals=4, saves=20)
run(config, 3, directory, resume=resume == "resume", schedule=schedule, progress=False, **given)
"""


def made(kind, home):
    """Its config and what it is given; a model is kept in `home`."""
    if kind != "sft":
        base = cli.named("ppo/cartpole" if kind == "ppo" else "a2c/cartpole")
        resets = "fresh" if kind == "ppo" else "pool"
        return replace(base, env=replace(base.env, resets=resets, eval_episodes=16), **LONG[kind]), {}
    if not (home / "model").exists():
        config = config_of("llama", vocab_size=259)
        save_model(home / "model", config, params_of(config), byte_tokenizer())
    base = load_model(str(home / "model"))
    config = SFT(lm=LMConfig(str(home / "model")), data=DataConfig(held_out=0.1))
    config = replace(config, epochs=80, batch_size=20, learning_rate=1e-3)
    data = prepare(config.data, base.tokenizer, ROWS, learns_from=config.learns_from, model=base.config)[0]
    return config, {"network": language_model(base.config), "params": base.params, "data": data}


def child(kind, home, directory, how="begin"):
    command = [sys.executable, "-c", CHILD, kind, home, directory, how]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def begun(process, directory, since):
    """Wait until it trains; whether it still does."""
    header = directory / "header.json"
    while process.poll() is None and not (header.exists() and header.stat().st_mtime > since):
        time.sleep(0.01)
    return process.poll() is None


@pytest.mark.parametrize("kind", SLICE)
def test_killed_at_random_moments_and_resumed_it_ends_in_the_same_bytes(kind, tmp_path):
    left, rng = KILLS or SLICE[kind], random.Random(KILLS)
    config, given = made(kind, tmp_path)
    template = jax.eval_shape(program(config, **given).init, jax.random.key(0))
    whole, began = tmp_path / "whole", time.time()
    process = child(kind, tmp_path, whole)
    begun(process, whole, began)
    began = time.time()
    assert process.wait() == 0, process.stderr.read()
    lasts, number, seen = time.time() - began, 0, []
    ended = Checkpoints(whole / "checkpoints", read_only=True).newest(template)
    while left:
        directory, number, how = tmp_path / f"run-{number}", number + 1, "begin"
        while True:
            since = time.time()
            process = child(kind, tmp_path, directory, how)
            if left and begun(process, directory, since):
                time.sleep(rng.uniform(0, lasts / 2))
                process.kill()
                left -= 1
            _, err = process.communicate()
            if process.returncode == 0:
                break
            assert process.returncode == -9, err
            seen.append(loaded(directory, template))
            how = "resume"
        assert (directory / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
        again = Checkpoints(directory / "checkpoints", read_only=True).newest(template)
        assert again.step == ended.step and not again.notes and same_bytes(again.tree, ended.tree)
    print(f"{kind}: {lasts:.1f} s of training; killed with newest checkpoints {seen}")


def loaded(directory: Path, template) -> int:
    """The step of the newest checkpoint, which is whole; 0 where there is none yet."""
    saves = Checkpoints(directory / "checkpoints", read_only=True)
    if not saves.steps():
        return 0
    found = saves.newest(template)
    assert not found.notes
    return found.step
