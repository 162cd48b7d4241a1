"""`scripts/test --python` and `--extra`: which environment is made, of which Python, and which tests run in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """#!/bin/sh
echo "$VENV | ${PYTHON:-} | $NEEDS | $*"
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose `scripts/run` only says how it was called."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "scripts" / "test", tmp_path / "scripts")
    (tmp_path / "scripts" / "run").write_text(RUN)
    (tmp_path / "scripts" / "run").chmod(0o755)
    (tmp_path / "tests" / "test_it.py").write_text('@pytest.mark.extra("wandb")\ndef test(): ...\n')
    return tmp_path


def called(checkout, *argv, **environ):
    environ = {**os.environ, "PYENV_ROOT": str(checkout / "pyenv"), **environ}
    environ.pop("PYTHON", None)
    done = subprocess.run(["scripts/test", *argv], cwd=checkout, env=environ, capture_output=True, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


def python(path, version):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_without_options_the_whole_suite_runs_in_the_usual_environment(checkout):
    _, out, _ = called(checkout, "-k", "name")
    ran = [line.split(" | dev lm sentiment | -m ") for line in out]
    assert {environment for environment, _ in ran} == {".venv | "}
    python = checkout / ".venv/bin/python"
    assert [command for _, command in ran] == [
        "ruff check .",
        "ruff format --check .",
        f"pyright --pythonpath {python}",
        "pytest -n 2 --dist loadfile -k name",
    ]


def test_another_python_is_found_and_has_an_environment_of_its_own(checkout):
    python(checkout / "pyenv/versions/3.1.4/bin/python", "3.1.4")
    mine = python(checkout / "pyenv/versions/3.14.2/bin/python", "3.14.2")
    _, out, _ = called(checkout, "--python", "3.14", "-x")
    assert out[-1] == f".venv-3.14 | {mine} | dev lm sentiment | -m pytest -n 2 --dist loadfile -x"
    python(checkout / "bin/python3.14", "3.14.0")
    _, out, _ = called(checkout, "--python", "3.14", PATH=f"{checkout / 'bin'}:{os.environ['PATH']}")
    assert out[-1].startswith(".venv-3.14 | python3.14 |")


def test_a_python_that_is_not_there_is_a_sentence(checkout):
    python(checkout / "pyenv/versions/3.99.1/bin/python", "3.98.0")
    status, out, err = called(checkout, "--python", "3.99")
    assert (status, out) == (2, []) and "there is no Python 3.99 here" in err


def test_an_extra_has_an_environment_and_its_tests_only(checkout):
    _, out, _ = called(checkout, "--extra", "wandb", "-x")
    assert out == [".venv-wandb |  | dev wandb | -m pytest --extra wandb tests/test_it.py -x"]
    status, out, err = called(checkout, "--extra", "wanda")
    assert (status, out) == (2, []) and 'no test is marked extra("wanda"); there are those of: wandb' in err


def test_tests_of_extras_are_left_out_by_name_and_said_so(tmp_path):
    (tmp_path / "tests").mkdir()
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    conftest = re.sub(r"(?m)^(from jaxtyping|from tests|install_import_hook|from jaxrl|enable_comp).*$", "", conftest)
    (tmp_path / "tests" / "conftest.py").write_text(conftest)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["extra(name): of an extra"]\n')
    marked = 'import pytest\n\n\n@pytest.mark.extra("wandb")\ndef test_a(): ...\n\n\ndef test_b(): ...\n'
    (tmp_path / "tests" / "test_it.py").write_text(marked)

    def ran(*options):
        command = [sys.executable, "-m", "pytest", "-v", *options, "tests"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True).stdout

    out = ran("-n", "1")  # where the process that writes the summary collects nothing
    assert "1 passed" in out and "test_b" in out and "test_a" not in out
    assert "left out, for they need extras that are not installed by default: scripts/test --extra wandb" in out
    out = ran("--extra", "wandb")
    assert "1 passed" in out and "test_a" in out and "test_b" not in out and "left out" not in out
