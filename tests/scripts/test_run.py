"""`scripts/run` makes the environment once, whoever else asks for it at the same time and whoever was killed before."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Stands for Python: makes environments of itself, and takes half a second to "install", which it writes down.
PYTHON = f"""#!/bin/sh
case "$2" in
venv) rm -rf "$4"; sleep .2; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
pip) echo begin >>installs; sleep .5; [ -x .venv/bin/python ] || exit 3; echo end >>installs ;;
*) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts `scripts/run` in a checkout without an environment, in a process group of its own."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "run", tmp_path / "scripts")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)

    def begin(needs=""):
        return subprocess.Popen(
            ["scripts/run", "-c", "print('ran')"],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(python), "NEEDS": needs, "VENV": ".venv"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return begin


def installs(checkout):
    file = checkout / "installs"
    return file.read_text().split() if file.exists() else []


def test_two_first_uses_at_once_install_once(start, tmp_path):
    both = [start(), start()]
    said = [run.communicate(timeout=60) for run in both]
    assert [(run.returncode, out) for run, (out, _) in zip(both, said, strict=True)] == [(0, "ran\n")] * 2, said
    assert installs(tmp_path) == ["begin", "end"]
    assert sum("waiting for another scripts/run" in err for _, err in said) == 1


def test_two_extras_at_once_are_both_there_afterwards(start, tmp_path):
    start().communicate(timeout=60)
    both = [start("lm"), start("dev")]
    assert [run.communicate(timeout=60)[0] for run in both] == ["ran\n"] * 2
    assert installs(tmp_path) == ["begin", "end"] * 3
    assert sorted((tmp_path / ".venv" / ".installed").read_text().split("\n")[1:]) == ["", "dev", "lm"]


def test_a_killed_installation_leaves_no_lock_behind(start, tmp_path):
    killed = start()
    deadline = time.monotonic() + 30
    while not installs(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=10)
    after = start()
    assert after.communicate(timeout=60)[0] == "ran\n"
    assert installs(tmp_path) == ["begin", "begin", "end"]
