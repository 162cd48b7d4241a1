"""Every block of Python in README and the documentation runs as it stands: those of a page one after the other, as a
reader would paste them, in an empty folder."""

import os
import subprocess
import sys

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name, write_files

LANGUAGES = {"python", "sh", "yaml", "json", "text", "bibtex"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES, "an unnamed block is run by nothing"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python_runs_as_it_stands(page, tmp_path):
    write_files(page, tmp_path)
    script = [f"# line {block.line} of {name(page)}\n{block.text}" for block in blocks(page, "python")]
    (tmp_path / "page.py").write_text("\n".join(script))
    env, run = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}, [sys.executable, "page.py"]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
