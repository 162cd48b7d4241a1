"""Being asked to stop: everything is saved, and the run goes on as if it had never been."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from jaxrl import PPO, EnvConfig, Schedule, run
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import judging, preemption, session
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.preemption import Interrupts, Stopped
from tests.helpers.compare import same_bytes

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2)
STEP = 4 * 16  # of an update
SCHEDULE = Schedule(logs=2, evals=1, saves=1)  # a row is six updates


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(CONFIG, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False)


def stopped(monkeypatch, directory, after, number=signal.SIGTERM, **options):
    """A run that gets a signal while its update number `after` is under way; it asks after each."""
    pieces, ready = [], jax.block_until_ready

    def waited(x):
        pieces.append(x)
        if len(pieces) == after:
            signal.raise_signal(number)
        return ready(x)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as end:
        patch.setattr(session, "_POLL", 0.0)
        patch.setattr(session.jax, "block_until_ready", waited)
        run(CONFIG, 3, directory, schedule=SCHEDULE, progress=False, **options)
    return end.value


@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_run_that_is_stopped_in_the_middle_of_a_row_ends_in_the_same_bytes(whole, tmp_path, monkeypatch, after):
    end = stopped(monkeypatch, tmp_path / "run", after)
    update = after + after // 6  # at the end of a row nobody waits
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [update * STEP]
    assert f"stopped by SIGTERM after {update * STEP:,} of 768 environment steps" in str(end) and end.code == 0
    assert f"--run-dir {tmp_path / 'run'} --resume" in str(end)
    again = run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False)
    assert same_bytes(again.state, whole.state)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole.run_dir / "metrics.jsonl").read_bytes()


def test_a_run_may_be_stopped_twice_in_one_row(whole, tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path / "run", 1, signal.SIGINT)
    stopped(monkeypatch, tmp_path / "run", 1, resume=True)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [STEP, 2 * STEP]
    run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole.run_dir / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("evaluation", [1, 2, 3], ids=["along", "last", "zero action"])
def test_a_run_that_is_stopped_in_an_evaluation_makes_it_again_and_ends_in_the_same_bytes(
    tmp_path, monkeypatch, evaluation
):
    """The device is said to be still at work, whenever it is looked at, until the signal has been heard."""
    schedule, asked = Schedule(logs=4, evals=2, saves=2), []
    whole = run(CONFIG, 3, tmp_path / "whole", schedule=schedule, progress=False)
    measure = judging.Judge._measured

    def measured(self, *rest):
        asked.append(1)
        if len(asked) == evaluation:
            signal.raise_signal(signal.SIGTERM)
            monkeypatch.setattr(preemption, "_ready", lambda found: False)
        return measure(self, *rest)

    with monkeypatch.context() as patch, pytest.raises(Stopped) as end:
        patch.setattr(judging.Judge, "_measured", measured)
        run(CONFIG, 3, tmp_path / "run", schedule=schedule, progress=False)
    monkeypatch.undo()
    assert end.value.busy
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == {1: 6, 2: 12, 3: 12}[evaluation] * STEP
    rows = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert rows[-1] == {1: 3, 2: 9, 3: 12}[evaluation] * STEP, "its row lacks the evaluation, and is not written"
    for _ in range(2):  # the second time it has ended
        again = run(CONFIG, 3, tmp_path / "run", resume=True, schedule=schedule, progress=False)
        assert same_bytes(again.state, whole.state)
        assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole.run_dir / "metrics.jsonl").read_bytes()
    saves = [Checkpoints(path / "checkpoints") for path in (tmp_path / "run", whole.run_dir)]
    assert saves[0].steps() == saves[1].steps() and saves[0].best() == saves[1].best()


def test_rows_in_pieces_are_rows_in_one(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "_POLL", 0.0)
    again = run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False)
    assert same_bytes(again.state, whole.state)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (whole.run_dir / "metrics.jsonl").read_bytes()


def test_how_long_a_piece_is_follows_the_time_that_it_takes(tmp_path, monkeypatch):
    seen, advance = [], session.Session._advance

    def watched(self, leaves, count):
        found = advance(self, leaves, count)
        seen.append(self.piece)
        return found

    monkeypatch.setattr(session.Session, "_advance", watched)
    run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False)
    assert seen[0] > 6  # five seconds of updates of a few milliseconds


def test_the_second_signal_acts_as_ever():
    found = signal.signal(signal.SIGINT, signal.default_int_handler)  # which some test runners take away
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        assert interrupts.asked is None
        signal.raise_signal(signal.SIGINT)
        assert interrupts.asked == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, found) is before


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def inside():
        with Interrupts() as interrupts:
            found.append((interrupts.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [(None, signal.getsignal(signal.SIGTERM))]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_program_that_is_asked_to_stop_ends_with_status_0_and_says_how_to_go_on(tmp_path, number):
    root, directory = Path(__file__).parents[2], tmp_path / "run"
    command = [sys.executable, "experiments/train.py", "ppo/cartpole", "--total-steps", "204800000", "--evals", "1"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(directory)],
        cwd=root,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    until = time.monotonic() + 120
    while not (directory / "header.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"stopped by {number.name} after" in err and "--resume" in err and "Traceback" not in err
