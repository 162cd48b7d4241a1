"""A learner of a third kind, neither of environments nor of rows, told in this one file: it fits a line to made-up
points. It goes through every driver and the command line, and nothing else knows of it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import Algorithm, Program, Schedule, Source, axes, cli, config, program, replace, run, stack, static, train
from jaxrl.ops import metrics as m
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import Diverged, logs
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.types import Evaluator, InputError, Line, Panel, Unit
from tests.helpers.compare import same_bytes

ROOT = Path(__file__).parents[2]


class Points(NamedTuple):
    x: jax.Array
    y: jax.Array


class Fitted(NamedTuple):
    slope: jax.Array
    updates: jax.Array


@config
class LineFit:
    """Least squares by gradient steps."""

    learning_rate: float = 0.1
    """Step size."""
    noise: float = 0.1
    """Of the points that are made up."""
    total_points: int = static(96)
    """Points of the whole run."""
    batch_size: int = static(8)
    """Points per update."""

    def program(self, truth=None) -> Program:
        """truth: the slope of the points."""
        if truth is None:
            raise InputError("LineFit needs the truth")

        def update(key, learner, points):
            error = learner.slope * points.x - points.y
            slope = learner.slope - self.learning_rate * jnp.mean(error * points.x)
            return Fitted(slope, learner.updates + 1), {"error": m.mean(jnp.square(error))}

        def collect(key, learner, drawn):
            k_x, k_noise = jax.random.split(key)
            x = jax.random.normal(k_x, (self.batch_size,))
            y = truth * x + self.noise * jax.random.normal(k_noise, x.shape)
            return drawn + self.batch_size, Points(x, y)

        return Program(
            Algorithm(lambda key: Fitted(jnp.zeros(()), jnp.zeros((), jnp.int32)), update),
            Source(lambda key: jnp.zeros((), jnp.int32), collect),
            total_steps=self.total_points,
            steps_per_update=self.batch_size,
            unit=Unit("points_seen", "points"),
            evaluators=(
                Evaluator(
                    name="slopes",
                    measure=lambda key, learner, case: jnp.abs(learner.slope - jnp.stack([truth, 0.0])[case]),
                    read=lambda case, distance: {f"distance_{case}": float(distance)},
                    cases=("truth", "zero"),
                    at_start=True,
                    before=("distance_truth",),
                    keep=lambda distance: [{"says": f"{distance:.3f} away"}],
                    panels=(Panel("distance", (Line("eval_distance_truth", "to the truth"),)),),
                    references={"from zero": "distance_zero"},
                ),
            ),
            headline={"distance": ("eval_distance_truth",)},
            label="points_line",
        )


CONFIG, TRUTH = LineFit(), jnp.float32(3.0)
SCHEDULE = Schedule(logs=12, evals=3, saves=2)


def test_it_trains_and_its_seeds_and_rates_are_mapped():
    state, metrics = jax.jit(lambda c, k, t: train(c, k, truth=t))(CONFIG, jax.random.key(0), TRUTH)
    assert state.num_steps == 96 and state.carry == 96 and metrics["error"].value.shape == (12,)
    assert abs(state.learner.slope - 3) < 1.5
    rates = stack([replace(CONFIG, learning_rate=rate) for rate in (0.0, 0.1, 0.3)])
    slopes = jax.vmap(lambda c, k: train(c, k, truth=TRUTH)[0].learner.slope, (axes(rates), None))
    slopes = slopes(rates, jax.random.key(0))
    assert slopes[0] == 0 and jnp.abs(slopes[2] - 3) < jnp.abs(slopes[1] - 3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(CONFIG, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False, truth=TRUTH)


def test_a_run_is_the_same_training_with_all_that_a_person_keeps(whole):
    assert same_bytes(whole.state, jax.jit(lambda k: train(CONFIG, k, truth=TRUTH))(jax.random.key(3))[0])
    figures, rows = whole.figures, read_metrics(whole.run_dir / "metrics.jsonl")
    assert figures["points_seen"] == 96 and figures["distance_truth_before"] == 3
    np.testing.assert_allclose(figures["distance_truth"] + figures["distance_zero"], 3, rtol=1e-6)
    assert [row["step"] for row in rows if "eval_distance_truth" in row] == [0, 32, 64, 96]
    kept = [json.loads(line) for line in (whole.run_dir / "slopes.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept] == [0, 32, 64, 96] and kept[0]["slopes"] == [{"says": "3.000 away"}]
    assert (whole.run_dir / "curve.png").stat().st_size > 5_000


def test_without_evaluations_along_the_way_the_final_figures_are_of_the_end(whole, tmp_path):
    never = Schedule(logs=2, evals=0, saves=0)
    result = run(CONFIG, 3, tmp_path / "run", schedule=never, progress=False, truth=TRUTH)
    np.testing.assert_allclose(result.figures["distance_truth"], whole.figures["distance_truth"], rtol=1e-6)
    assert result.figures["distance_truth_before"] == 3


def killed_at(step: int, directory: str) -> None:
    """In a process of its own: a run that is killed when the row of `step` is written."""
    write = logs.Logger.row

    def row(self, at, *rest):
        write(self, at, *rest)
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    logs.Logger.row = row
    run(CONFIG, 3, directory, schedule=SCHEDULE, progress=False, truth=TRUTH)


def test_killed_and_resumed_it_ends_in_the_same_bytes(whole, tmp_path):
    code = f"from tests.training.test_third_kind import killed_at; killed_at(80, {str(tmp_path / 'run')!r})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=600).returncode == -9
    again = run(CONFIG, 3, tmp_path / "run", resume=True, schedule=SCHEDULE, progress=False, truth=TRUTH)
    assert same_bytes(again.state, whole.state)
    for name in ("metrics.jsonl", "slopes.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (whole.run_dir / name).read_bytes()
    with pytest.raises(ValueError, match="was run with the truth .* resume with that"):
        run(CONFIG, 3, tmp_path / "run", resume=True, progress=False, truth=jnp.float32(2.0))


def test_it_has_a_command_line(tmp_path, capsys):
    argv = ["--learning-rate", "0.2", "--total-points", "16", "--run-dir", str(tmp_path / "run"), "--seed", "1"]
    cli.launch(CONFIG, "Fit a line.", argv, truth=TRUTH)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["points_seen"] == 16 and figures["distance_truth"] < 3
    assert "learning_rate: 0.2" in (tmp_path / "run" / "config.yaml").read_text()
    with pytest.raises(SystemExit) as stopped:
        cli.launch(CONFIG, "Fit a line.", ["--total-points", "20"], truth=TRUTH)
    assert stopped.value.code == 2
    assert "total_steps = 20 is not a multiple of the 8 steps of an update; try 16 or 24" in capsys.readouterr().err


def test_what_it_is_given_is_what_its_program_takes():
    with pytest.raises(ValueError, match="LineFit does not take env; it takes truth"):
        program(CONFIG, env=None)
    with pytest.raises(ValueError, match="did you mean 'truth'"):
        program(CONFIG, truths=1.0)
    with pytest.raises(ValueError, match="is a dict, not a config of an algorithm"):
        program({"truth": 1.0})
    with pytest.raises(ValueError, match="total_steps = 4 is not a multiple of the 8 steps of an update; try 8"):
        program(replace(CONFIG, total_points=4), truth=TRUTH)
    with pytest.raises(ValueError, match="overflows the 32-bit counter of steps; try 2147483640 or fewer"):
        program(replace(CONFIG, total_points=2**31), truth=TRUTH)


def test_a_run_that_diverges_late_keeps_its_last_good_checkpoint(tmp_path):
    # each step multiplies the distance by about ten thousand: float32 ends after nine or ten of the twelve
    wild, often = replace(CONFIG, learning_rate=1e4), Schedule(logs=12, evals=0, saves=12)
    with pytest.raises(Diverged, match=r"learner.slope is not finite after \d+ points; the last good checkpoint is of"):
        run(wild, 0, tmp_path / "run", schedule=often, progress=False, truth=TRUTH)
    saves = Checkpoints(tmp_path / "run" / "checkpoints")
    assert 32 <= saves.steps()[-1] < 96
    restored = saves.restore(jax.eval_shape(program(wild, truth=TRUTH).init, jax.random.key(0)))
    assert jnp.isfinite(restored.learner.slope)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["step"] == saves.steps()[-1] + 8, "the row of the update that broke is kept"
