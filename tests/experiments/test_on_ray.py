"""Two workers of a Ray cluster on this machine, where the extra is installed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.extra("ray")
ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "experiments/on_ray.py", "--workers", "2", "--devices", "2"]


def test_two_workers_train_cartpole(tmp_path):
    words = ["train", "ppo/cartpole", "--total-steps", "61_440", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["processes"] == 2 and figures["devices"] == 4 and figures["env_steps"] == 61_440
    assert figures["return"] > 400 and Path(figures["run_dir"]) == tmp_path / "run"


def test_what_is_refused_is_said_and_ends_all(tmp_path):
    words = ["train", "ppo/cartpole", "--num-envs", "30", "--data", "4", "--run-dir", str(tmp_path / "run")]
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert "num_envs = 30 cannot be dealt to parallel.data = 4 shards; try 3" in done.stdout + done.stderr
