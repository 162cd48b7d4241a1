"""The directory of a run is written by one process at a time, and by whoever comes after one that was killed."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl import PPO, EnvConfig, Schedule, run
from jaxrl.runs import directory
from jaxrl.runs.directory import alone
from jaxrl.sweeps import Plan, sweep
from jaxrl.types import InputError

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 2, num_steps=16, num_minibatches=2)
SCHEDULE = Schedule(logs=1, evals=1, saves=1)
HOLDER = """
import sys, time
from pathlib import Path
from jaxrl.runs.directory import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path):
    """(directory, process): another process writes to it."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield tmp_path, process
    process.kill()
    process.wait()


def trained(run_dir, **options):
    return run(CONFIG, 0, run_dir, schedule=SCHEDULE, progress=False, **options)


def swept(run_dir, **options):
    plan = Plan(seeds=1, schedule=SCHEDULE, devices=1)
    return sweep(CONFIG, {"learning_rate": "1e-3"}, plan, run_dir, progress=False, **options)


def test_who_writes_is_named_and_a_killed_one_holds_nothing(held):
    run_dir, process = held
    sentence = re.escape(f"{run_dir} is being written by process {process.pid} on")
    with pytest.raises(InputError, match=sentence), alone(run_dir):
        raise AssertionError("two at once")
    process.kill()
    process.wait()
    with alone(run_dir):
        assert f"process {os.getpid()} on" in (run_dir / directory.LOCK).read_text()


@pytest.mark.parametrize("begin", [trained, swept])
def test_what_is_under_way_is_not_gone_on_with(begin, tmp_path):
    begin(tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    with alone(tmp_path / "run"), pytest.raises(InputError, match=f"is being written by process {os.getpid()} on"):
        begin(tmp_path / "run", resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    assert begin(tmp_path / "run", resume=True).run_dir == tmp_path / "run"


def test_a_run_holds_its_directory_from_its_start(tmp_path, monkeypatch):
    seen = []

    def probe(state, key):
        with pytest.raises(InputError, match="is being written by"):
            trained(tmp_path / "run", resume=True)
        seen.append(1)
        return {}

    trained(tmp_path / "run", probe=probe)
    assert seen


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_the_file_system_knows_no_locks_it_goes_on_without(code, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(code, "no locks")

    monkeypatch.setattr(directory.fcntl, "flock", refuse)
    with alone(tmp_path):
        pass


def test_a_home_is_meant_and_no_name_is_none():
    assert directory.as_path("~/runs/mine") == Path.home() / "runs/mine"
    with pytest.raises(InputError, match="run_dir = '' is no directory; name one"):
        run(CONFIG, run_dir="")
