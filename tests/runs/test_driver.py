"""The host driver: equal to `train`, exact after any stop, and never overwriting what is there."""

import json
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, Schedule, replace, run, train
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.training.programs import program
from tests.helpers.compare import compile_events, same_bytes

CONFIG = PPO(
    env=EnvConfig(num_envs=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2, normalize_obs=True,
    normalize_return=True,
)  # fmt: skip
SCHEDULE = Schedule(logs=6, evals=2, saves=2, eval_episodes=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return run(CONFIG, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False)


def test_chunked_run_equals_one_scan_bit_for_bit(whole):
    state, metrics = jax.jit(train)(CONFIG, jax.random.key(3))
    assert same_bytes(whole.state, state)
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    first = jax.tree.map(lambda x: float(x[:2].sum()), metrics["value_loss"])  # a row covers two updates
    np.testing.assert_allclose(rows[0]["value_loss"], first.total / first.count, rtol=1e-6)


def test_evaluation_leaves_training_bitwise_unchanged(whole, tmp_path):
    often = run(CONFIG, 3, tmp_path / "run", schedule=replace_schedule(evals=6, logs=12), progress=False)
    assert same_bytes(whole.state, often.state)


def replace_schedule(**changes):
    import dataclasses

    return dataclasses.replace(SCHEDULE, **changes)


def test_everything_a_person_keeps_is_there(whole):
    assert {p.name for p in whole.run_dir.iterdir()} == {
        "checkpoints", "config.yaml", "curve.png", "metrics.jsonl", "result.json", "run.json", "tensorboard",
        "timing.jsonl",
    }  # fmt: skip
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [128, 256, 384, 512, 640, 768]
    assert [row["step"] for row in rows if "eval_return" in row] == [384, 768]
    assert not {"train_seconds", "steps_per_second"} & set(rows[0])
    figures = json.loads((whole.run_dir / "result.json").read_text())
    wanted = "return return_std episode_length episodes zero_action_return random_return env_steps train_seconds"
    assert set(wanted.split()) | {"compile_seconds", "steps_per_second", "run_dir"} <= set(figures)
    assert figures["env_steps"] == CONFIG.total_steps and figures["episodes"] == 4
    assert figures["return"] == rows[-1]["eval_return"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from jaxrl import Schedule, cli, run
    from jaxrl.runs import logger
    from jaxrl.config_file import load
    cli.enable_compilation_cache()
    directory, kill_at, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
    write = logger.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logger.Logger.row = row
    config = load(directory.parent / "config.yaml", cli.ALGORITHMS)
    schedule = Schedule(logs=6, evals=2, saves=2, eval_episodes=4)
    run(config, 3, directory, resume=resume, schedule=schedule, progress=False)
"""


def child(directory, kill_at, how):
    code = textwrap.dedent(KILLED)
    return subprocess.run(
        [sys.executable, "-c", code, directory, str(kill_at), how], capture_output=True, text=True, timeout=600
    )


PENDULUM = replace(
    CONFIG, env=EnvConfig("brax/inverted_pendulum", num_envs=4, backend="spring", resets="pool", time_limit=50)
)


@pytest.mark.parametrize("config", [CONFIG, PENDULUM], ids=["cartpole", "brax"])
def test_killed_between_saves_and_resumed_in_a_new_process_is_byte_identical(config, tmp_path):
    from jaxrl.config_file import save_config

    save_config(config, tmp_path / "config.yaml")
    assert child(tmp_path / "whole", -1, "start").returncode == 0
    rollout = config.env.num_envs * config.num_steps
    stopped = child(tmp_path / "stopped", 10 * rollout, "start")  # saves come after updates 6 and 12
    assert stopped.returncode == -9, stopped.stderr
    assert Checkpoints(tmp_path / "stopped" / "checkpoints").steps() == [6 * rollout]
    assert len(read_metrics(tmp_path / "stopped" / "metrics.jsonl")) == 5
    resumed = child(tmp_path / "stopped", -1, "resume")
    assert resumed.returncode == 0, resumed.stderr

    whole, stopped = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped
    template = jax.eval_shape(program(config).init, jax.random.key(3))
    states = [Checkpoints(tmp_path / name / "checkpoints").restore(template) for name in ("whole", "stopped")]
    assert same_bytes(*states)
    assert states[0].num_steps == config.total_steps


def test_a_run_compiles_before_its_first_chunk_and_never_again(tmp_path, monkeypatch):
    from jaxrl.runs import logger

    write = logger.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        events.append(step)

    events: list = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append("compile") if event.endswith("backend_compile_duration") else None
    )
    monkeypatch.setattr(logger.Logger, "row", row)
    schedule = replace_schedule(evals=0, saves=0)
    run(replace(CONFIG, learning_rate=0.01), 0, tmp_path / "run", schedule=schedule, progress=False)
    steps = [e for e in events if e != "compile"]
    first, last = events.index(steps[0]), events.index(steps[-1])
    after_first = events[first:last].count("compile")
    assert events[:first].count("compile") > 0
    assert after_first == 0


def test_restore_compiles_no_further_step(whole, tmp_path):
    p = program(CONFIG)
    step = jax.jit(p.step)
    state = jax.jit(p.init)(jax.random.key(3))
    jax.block_until_ready(step(state))
    template = jax.eval_shape(p.init, jax.random.key(3))
    restored = Checkpoints(whole.run_dir / "checkpoints").restore(template)
    assert compile_events(lambda: jax.block_until_ready(step(restored))) == 0


def test_a_directory_that_holds_a_run_is_not_overwritten(whole):
    with pytest.raises(ValueError, match="already holds a run; pass resume=True"):
        run(CONFIG, 3, whole.run_dir, progress=False)


def test_resume_with_another_config_or_seed_is_refused(whole, tmp_path):
    with pytest.raises(ValueError, match=r"was run with gamma = 0\.99, not 0\.9;"):
        run(replace(CONFIG, gamma=0.9), 3, whole.run_dir, resume=True, progress=False)
    with pytest.raises(ValueError, match="was run with seed = 3, not 4"):
        run(CONFIG, 4, whole.run_dir, resume=True, progress=False)
    with pytest.raises(ValueError, match="holds no run to resume"):
        run(CONFIG, 3, tmp_path, resume=True, progress=False)


def test_a_bad_config_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="not a multiple"):
        run(replace(CONFIG, total_steps=7), 0, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="logs = 0"):
        run(CONFIG, 0, tmp_path / "run", schedule=replace_schedule(logs=0), progress=False)
    with pytest.raises(ValueError, match="needs a time limit"):
        run(replace(CONFIG, env=EnvConfig("probe/match", num_envs=4)), 0, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
