"""The wheel that `pip install .` makes of a clean folder holds all that the command needs, and needs no checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from jaxrl import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What a wheel of this checkout puts on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    clean, out = folder / "clean", folder / "out"
    clean.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clean)
    for name in ("jaxrl", "configs"):
        shutil.copytree(ROOT / name, clean / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, clean]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "there")
    return folder / "there"


def test_all_that_is_read_beside_the_code_is_inside_once(unpacked):
    inside = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {f"jaxrl/presets/{name}.yaml" for name in cli.names()} | {"jaxrl/reports/viewer.html"} <= inside
    assert {path for path in inside if not path.startswith("jaxrl")} == set(), "neither tests nor configs at the top"
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxrl").rglob("*") if "__pycache__" not in path.parts}
    assert {name for name in ours if (ROOT / name).is_file()} <= inside


def test_the_command_trains_a_preset_outside_of_any_checkout(unpacked, tmp_path):
    small = "--total-steps 2048 --logs 1 --evals 0 --saves 1 --eval-episodes 4 --run-dir mine".split()
    command = [sys.executable, "-m", "jaxrl", "train", "ppo/cartpole", *small]
    environ = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["env_steps"] == 2048
    assert (tmp_path / "mine" / "curve.png").is_file()
