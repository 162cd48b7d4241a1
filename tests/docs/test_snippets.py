"""Every block of Python in README and the documentation runs as it stands: those of a page one after the other, as a
reader would paste them, in an empty folder."""

import os
import runpy
import subprocess
import sys

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name, write_files

LANGUAGES = {"python", "sh", "yaml", "json", "text", "bibtex"}
# What JAX takes only before its first operation needs a process of its own. All other pages share this one: thirty
# processes would each import and compile what it has, for twice the time.
FIRST = ("jax_num_cpu_devices", "jax_enable_x64", "os.environ")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_what_it_is(page):
    assert {block.language for block in blocks(page)} <= LANGUAGES, "an unnamed block is run by nothing"


# README's trains for 1.6 million steps, longer than it compiles; the guide's alignment is by README's programs.
COMPUTES = ("README.md", "docs/guides/alignment.md")
RUN = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=[pytest.mark.computes] * (name(p) in COMPUTES), id=name(p)) for p in RUN]
)
def test_python_runs_as_it_stands(page, tmp_path, monkeypatch):
    write_files(page, tmp_path)
    script = "\n".join(f"# line {block.line} of {name(page)}\n{block.text}" for block in blocks(page, "python"))
    (tmp_path / "page.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    if any(word in script for word in FIRST):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "page.py"], env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        runpy.run_path("page.py", run_name="__main__")
    finally:
        for module in set(sys.modules) - before:  # two pages may call a file alike
            if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[module]
