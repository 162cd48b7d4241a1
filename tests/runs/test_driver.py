"""The host driver: equal to `train`, exact after any stop, and never overwriting what is there."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, Algorithm, EnvConfig, Program, Schedule, cli, config, program, replace, rollouts, run, train
from jaxrl.config_file import load_config
from jaxrl.envs.registry import from_config
from jaxrl.networks import actor_critic
from jaxrl.ops.platform import compiler_options
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import Diverged, driver, load_divergence
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import begin_run
from jaxrl.runs.header import machine
from jaxrl.runs.session import Session
from jaxrl.spaces import Spaces
from jaxrl.types import InputError
from tests.helpers.compare import compile_events, same_bytes
from tests.helpers.environments import Counter

CONFIG = PPO(
    env=EnvConfig(num_envs=4, eval_episodes=4),
    total_steps=4 * 16 * 12,
    num_steps=16,
    num_minibatches=2,
    normalize_obs=True,
    normalize_return=True,
)
SPACES = Spaces(Counter.observation_space, Counter.action_space)
SCHEDULE = Schedule(logs=6, evals=2, saves=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return run(CONFIG, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False)


@pytest.mark.computes
def test_chunked_run_equals_one_scan_bit_for_bit(tmp_path):
    whole = run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False)
    state, metrics = jax.jit(train, compiler_options=compiler_options(0, brief=False))(CONFIG, jax.random.key(3))
    assert same_bytes(whole.state, state)
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    first = jax.tree.map(lambda x: float(x[:2].sum()), metrics["value_loss"])  # a row covers two updates
    np.testing.assert_allclose(rows[0]["value_loss"], first.total / first.count, rtol=1e-6)


def test_rows_that_come_fast_are_written_several_at_a_time(tmp_path, monkeypatch):
    at_once, rows_of = [], Session._rows

    def counted(self, rows, *rest):
        at_once.append(len(rows))
        rows_of(self, rows, *rest)

    monkeypatch.setattr(Session, "_rows", counted)
    config = replace(CONFIG, total_steps=4 * 16 * 96)
    run(config, 3, tmp_path / "run", schedule=Schedule(logs=96, evals=0, saves=0), progress=False)
    assert sum(at_once) == len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 96
    assert max(at_once) > 4


def test_evaluation_leaves_training_bitwise_unchanged(whole, tmp_path):
    often = run(CONFIG, 3, tmp_path / "run", schedule=replace_schedule(evals=6, logs=12), progress=False)
    assert same_bytes(whole.state, often.state)


def replace_schedule(**changes):
    import dataclasses

    return dataclasses.replace(SCHEDULE, **changes)


def test_everything_a_person_keeps_is_there(whole):
    assert {p.name for p in whole.run_dir.iterdir()} == {
        ".lock", "checkpoints", "config.yaml", "curve.png", "header.json", "metrics.csv", "metrics.jsonl",
        "result.json", "run.json", "tensorboard", "timing.jsonl",
    }  # fmt: skip
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows] == [128, 256, 384, 512, 640, 768]
    assert [row["step"] for row in rows if "eval_return" in row] == [384, 768]
    assert not {"train_seconds", "steps_per_second"} & set(rows[0])
    figures = json.loads((whole.run_dir / "result.json").read_text())
    wanted = "return return_std episode_length invalid_steps zero_action_return random_return env_steps train_seconds"
    assert set(wanted.split()) | {"compile_seconds", "steps_per_second", "run_dir"} <= set(figures)
    assert figures["env_steps"] == CONFIG.total_steps
    assert figures["return"] == rows[-1]["eval_return"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from jaxrl import Schedule, cli, run
    from jaxrl.runs import checkpoints, logs
    from jaxrl.config_file import load_config
    cli.enable_compilation_cache()
    directory, kill_at, resume = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume"
    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logs.Logger.row = row
    save = checkpoints.Checkpoints.save
    checkpoints.Checkpoints.save = lambda self, *rest: (save(self, *rest), self.wait())
    config = load_config(directory.parent / "config.yaml", cli.ALGORITHMS)
    schedule = Schedule(logs=6, evals=2, saves=2)
    run(config, 3, directory, resume=resume, schedule=schedule, progress=False)
"""


def child(directory, kill_at, how):
    code = textwrap.dedent(KILLED)
    return subprocess.run(
        [sys.executable, "-c", code, directory, str(kill_at), how], capture_output=True, text=True, timeout=600
    )


PENDULUM = replace(
    CONFIG,
    env=EnvConfig(
        "brax/inverted_pendulum", num_envs=4, eval_episodes=4, backend="spring", resets="pool", time_limit=50
    ),
)


@pytest.mark.parametrize("config", [CONFIG, PENDULUM], ids=["cartpole", "brax"])
def test_killed_between_saves_and_resumed_in_a_new_process_is_byte_identical(config, tmp_path):
    from jaxrl.config_file import save_config

    save_config(config, tmp_path / "config.yaml")
    run(config, 3, tmp_path / "whole", schedule=Schedule(logs=6, evals=2, saves=2), progress=False)
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
    from jaxrl.runs import logs

    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        events.append(step)

    # Lowered, which each program is right before it is compiled: what evaluates is compiled beside what trains, and may
    # be ready after the first chunk.
    events: list = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: events.append("lowered") if event.endswith("jaxpr_to_mlir_module_duration") else None
    )
    monkeypatch.setattr(logs.Logger, "row", row)
    schedule = replace_schedule(evals=0, saves=0)
    run(replace(CONFIG, learning_rate=0.01), 0, tmp_path / "run", schedule=schedule, progress=False)
    steps = [e for e in events if e != "lowered"]
    first, last = events.index(steps[0]), events.index(steps[-1])
    after_first = events[first:last].count("lowered")
    assert events[:first].count("lowered") > 0
    assert after_first == 0


def test_restore_compiles_no_further_step(whole, tmp_path):
    p = program(CONFIG)
    step = jax.jit(p.step)
    state = jax.jit(p.init)(jax.random.key(3))
    jax.block_until_ready(step(state))
    template = jax.eval_shape(p.init, jax.random.key(3))
    restored = Checkpoints(whole.run_dir / "checkpoints").restore(template)
    assert compile_events(lambda: jax.block_until_ready(step(restored))) == 0


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before_to_the_same_end(whole, tmp_path):
    shutil.copytree(whole.run_dir, tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    newest = max((tmp_path / "run" / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    largest = max((f for f in newest.rglob("*") if f.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=f"the checkpoint of step {newest.name} in .*; going on from step 384"):
        again = run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False)
    assert same_bytes(again.state, whole.state) and (tmp_path / "run" / "metrics.jsonl").read_bytes() == rows
    assert [path.name for path in (tmp_path / "run" / "damaged").iterdir()] == [f"{newest.name}-0"]


def test_a_directory_that_holds_a_run_is_not_overwritten(whole):
    with pytest.raises(ValueError, match="already holds a run; pass resume=True"):
        run(CONFIG, 3, whole.run_dir, progress=False)


@pytest.mark.parametrize("left", ["checkpoints", "metrics.jsonl"])
def test_what_another_run_has_left_is_not_taken_for_its_own(tmp_path, left):
    (tmp_path / left / "64").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=f"has {left} of something that was begun there before, and its run.json is gone"
    ):
        run(CONFIG, 3, tmp_path, progress=False)


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


def test_a_resume_with_another_environment_or_network_of_equal_shapes_is_refused(tmp_path):
    short = replace(CONFIG, total_steps=4 * 16 * 2, env=replace(CONFIG.env, time_limit=20, options={"gravity": 5.0}))
    own = {"env": Counter(), "network": actor_critic(SPACES, hidden=(8,), activation="tanh")}
    quick = {"schedule": Schedule(logs=1, evals=1, saves=1), "progress": False}
    result = run(short, 0, tmp_path / "run", **own, **quick)
    about = json.loads((tmp_path / "run" / "run.json").read_text())["given"]
    assert about["env"]["is"] == "tests.helpers.environments:Counter"
    assert "name: tests.helpers.environments:Counter" in (tmp_path / "run" / "config.yaml").read_text()
    assert "options: {}" in (tmp_path / "run" / "config.yaml").read_text(), "those of the one that it replaces"
    again = run(short, 0, tmp_path / "run", resume=True, **own, **quick)
    assert same_bytes(again.state, result.state)

    slower, other = Counter(jnp.asarray(0.5)), actor_critic(SPACES, hidden=(8,), activation="relu")
    for changed, words in (
        ({"env": slower}, "was run with the env tests.helpers.environments:Counter"),
        ({"network": other}, "was run with the network"),
        (
            {"env": None, "network": None},
            "was run with env.name = tests.helpers.environments:Counter, not gymnax/CartPole-v1",
        ),
        ({"network": None}, "was run with the network .* not no network of its own"),
    ):
        with pytest.raises(ValueError, match=words):
            run(short, 0, tmp_path / "run", resume=True, **{**own, **changed}, **quick)


def test_with_its_changes_accepted_a_run_goes_on_as_something_else_and_both_are_written_down(whole, tmp_path):
    own = shutil.copytree(whole.run_dir, tmp_path / "run")
    longer = replace(CONFIG, gamma=0.9, lr_final=1.0, total_steps=2 * CONFIG.total_steps)
    options = {"schedule": SCHEDULE, "progress": False, "resume": True}
    with pytest.raises(InputError) as refused:
        run(longer, 4, tmp_path / "run", **options)
    for line in ("gamma = 0.99, not 0.9", "lr_final = 0.0, not 1.0", "total_steps = ", "seed = 3, not 4"):
        assert line in str(refused.value), "every field that differs is named"
    assert "--accept-changes" in str(refused.value)
    result = run(longer, 4, tmp_path / "run", accept_changes=True, **options)
    assert result.figures["env_steps"] == longer.total_steps
    about = json.loads((own / "run.json").read_text())
    assert about["seed"] == 4 and about["changes"][0]["seed"] == 3 and len(about["changes"][0]["changes"]) == 4
    assert about["changes"][0]["command"] == [sys.executable, *sys.argv]
    assert load_config(own / "config-1.yaml", cli.ALGORITHMS) == CONFIG
    assert load_config(own / "config.yaml", cli.ALGORITHMS) == longer
    with pytest.raises(InputError, match="has learned from .* environment steps, and total_steps = .*; give at least"):
        run(CONFIG, 3, tmp_path / "run", accept_changes=True, **options)
    with pytest.raises(InputError, match="accept_changes = True is about a resume"):
        run(CONFIG, 3, tmp_path / "new", accept_changes=True, schedule=SCHEDULE, progress=False)


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
@pytest.mark.parametrize("damage", [lambda f: f.write_text(""), lambda f: f.write_text("{"), Path.unlink])
def test_what_a_disk_has_lost_of_a_run_is_written_again_from_its_checkpoint(whole, tmp_path, name, damage):
    own = shutil.copytree(whole.run_dir, tmp_path / "run")
    before = (own / name).read_text()
    damage(own / name)
    with pytest.warns(UserWarning, match=rf"{name} could not be read; it is written again"):
        again = run(CONFIG, 3, own, schedule=SCHEDULE, progress=False, resume=True)
    assert (own / name).read_text() == before and again.figures == {**whole.figures, "run_dir": str(own)}
    shutil.rmtree(own / "checkpoints")
    damage(own / name)
    with pytest.raises(InputError, match=r"run.json cannot be read|holds no run|config"):
        run(CONFIG, 3, tmp_path / "run", schedule=SCHEDULE, progress=False, resume=True)


def test_a_run_that_diverges_says_so_and_keeps_its_last_good_checkpoint(tmp_path):
    def probe(state, key):
        seen.append(int(state.num_steps))
        return {"half": 0.5}

    seen: list = []
    wild = replace(CONFIG, learning_rate=1e30, max_grad_norm=float("inf"), normalize_advantage=False)
    good = run(replace(CONFIG, total_steps=128), 0, tmp_path / "good", schedule=SCHEDULE, progress=False, probe=probe)
    assert seen and "eval_half" in read_metrics(good.run_dir / "metrics.jsonl")[-1], "probe is asked for control too"
    with pytest.raises(Diverged, match=r"no gradient of the last 1\d updates was finite after .* good checkpoint is"):
        run(wild, 0, tmp_path / "run", schedule=replace_schedule(saves=6), progress=False)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [128]
    assert "diverged" in json.loads((tmp_path / "run" / "result.json").read_text())
    p, state, batch = load_divergence(tmp_path / "run")
    assert jax.jit(p.step)(state)[1]["skipped_updates"].value == 1, "as the last ten"
    assert same_bytes(batch, jax.jit(p.batch)(state))
    with pytest.raises(InputError, match="no checkpoint in .*diverged"):
        load_divergence(good.run_dir)
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        run(wild, 0, tmp_path / "again", schedule=SCHEDULE, progress=False)
    assert stopped.value.code == 3


def test_what_is_infinite_from_the_start_is_meant_to_be(tmp_path):
    class Best(NamedTuple):
        inner: tuple
        best: jax.Array

    @config
    class WithBest:
        env: EnvConfig = EnvConfig(num_envs=4, eval_episodes=2)

        def program(self) -> Program:
            p = program(replace(CONFIG, env=self.env, total_steps=64))
            inner = p.algorithm

            def update(key, learner, batch):
                learner_, metrics = inner.update(key, learner.inner, batch)
                return Best(learner_, learner.best), metrics

            def policy(learner, *rest):
                return inner.policy(learner.inner, *rest)

            algorithm = Algorithm(lambda key: Best(inner.init(key), -jnp.inf * jnp.ones(())), update, policy)
            return p._replace(algorithm=algorithm, source=rollouts(from_config(self.env), algorithm, 16), evaluators=())

    result = run(WithBest(), 0, tmp_path / "run", schedule=Schedule(1, 1, 1), progress=False)
    assert result.state.learner.best == -jnp.inf


def test_a_picture_that_fails_is_a_warning_and_the_run_is_kept(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError("no room for pictures")

    def export(state, run_dir):
        order.append((run_dir / "result.json").exists())
        assert Checkpoints(run_dir / "checkpoints").steps()[-1] == 128

    order: list = []
    monkeypatch.setattr(driver, "learning_curve", broken)
    with pytest.warns(UserWarning, match="could not be drawn: OSError"):
        run(replace(CONFIG, total_steps=128), 0, tmp_path / "run", schedule=SCHEDULE, progress=False, export=export)
    assert order == [False] and (tmp_path / "run" / "result.json").exists()


def test_two_runs_begun_in_one_second_have_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    dirs = [begin_run(None, "cartpole_ppo", 0, CONFIG, {}, {}) for _ in range(3)]
    assert [str(d) for d in dirs] == [f"runs/cartpole_ppo_s0_now{end}" for end in ("", "-2", "-3")]


def test_a_directory_below_a_file_and_a_seed_out_of_range_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run_dir = .*file/run: .*file is a file; name a directory"):
        run(CONFIG, 0, tmp_path / "file" / "run", progress=False)
    for seed in (2**32, -1):
        with pytest.raises(ValueError, match=rf"seed = {seed} is out of range; it must be between 0 and 4294967295"):
            run(CONFIG, seed, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="seed = 3.0 is no whole number; give an int"):
        run(CONFIG, 3.0, tmp_path / "run", progress=False)


def test_a_seed_may_be_an_integer_of_numpy(tmp_path):
    short = replace(CONFIG, total_steps=64)
    run(short, np.int64(3), tmp_path / "run", schedule=Schedule(1, 0, 0), progress=False)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 3


def test_no_listener_is_left_behind_by_a_resume_that_fails(whole, tmp_path):
    from jax._src import monitoring

    shutil.copytree(whole.run_dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "768")
    (tmp_path / "run" / "checkpoints" / "384" / "manifest" / "metadata").write_text("{}")
    before = len(monitoring.get_event_duration_listeners())
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017  # of whatever kind Orbax chooses
            run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False)
    assert len(monitoring.get_event_duration_listeners()) == before


def test_the_machine_is_told_by_what_decides_the_bits(whole, tmp_path):
    about = machine()
    assert about["cores"] == len(os.sched_getaffinity(0)) and about["model"] and len(about["flags"]) == 12
    shutil.copytree(whole.run_dir, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "cores": 64}))
    with pytest.warns(UserWarning, match=r"cores was 64, is \d+: it goes on, but not bit for bit"):
        run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False)


def test_a_diverging_configuration_is_refused_where_infinity_means_nothing(tmp_path):
    with pytest.raises(ValueError, match="learning_rate = inf is not finite, and infinity means nothing here"):
        run(replace(CONFIG, learning_rate=float("inf")), 0, tmp_path / "run", progress=False)
