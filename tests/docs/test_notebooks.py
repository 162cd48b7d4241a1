"""Every notebook is kept without outputs, and its cells run one after the other in an empty folder on CPU: as plain
Python, without Jupyter.
"""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT, name

NOTEBOOKS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))
_MAGIC = re.compile(r"^( *)[%!].*$", re.MULTILINE)
# Before the cell that shows something, for packages look for IPython as they are imported: what is shown must be there.
SHOWN = """
import sys, types

def _image(filename):
    with open(filename, "rb") as file:
        assert file.read(3) == b"GIF", f"{filename} is no GIF"

sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython.display"] = types.SimpleNamespace(Image=_image)
"""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    """A cell's text, which is kept as a list of lines."""
    return "".join(cell["source"])


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def script(path):
    """The code of all cells. Where the first one would install something, this raises instead."""
    first, *others = code(read(path))
    install = _MAGIC.sub(r"\1raise AssertionError('jaxrl is there, and would be installed')", source(first))
    found = [f"# cell {first['id']} of {name(path)}\n{install}"]
    for cell in others:
        text = source(cell)
        found.append(f"# cell {cell['id']} of {name(path)}\n{SHOWN * ('IPython' in text)}{text}")
    return "\n".join(found)


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_is_kept_without_what_running_it_leaves(path):
    notebook = read(path)
    assert notebook["nbformat"] == 4 and notebook["nbformat_minor"] >= 5
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w-]{1,64}", id) for id in ids)
    for cell in code(notebook):
        assert cell["outputs"] == [] and cell["execution_count"] is None, f"cell {cell['id']} was run: strip it"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_says_what_it_is_and_then_installs_what_is_missing(path):
    about, install, *others = read(path)["cells"]
    assert about["cell_type"] == "markdown" and source(about).startswith("# ")
    assert install["cell_type"] == "code" and 'find_spec("jaxrl") is None' in source(install)
    assert len(_MAGIC.findall(source(install))) == 1
    for cell in others:
        assert cell["cell_type"] != "code" or not _MAGIC.search(source(cell)), f"cell {cell['id']} is no plain Python"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_cells_run_in_order(path, tmp_path):
    (file := tmp_path / "notebook.py").write_text(script(path), encoding="utf-8")
    (empty := tmp_path / "empty").mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"}
    run = [sys.executable, file]
    done = subprocess.run(run, cwd=empty, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
