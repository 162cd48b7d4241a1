"""Who may import whom: the house has an inside and an outside, and this keeps it so."""

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jaxrl
from jaxrl.envs.registry import EXTRAS

ROOT = Path(jaxrl.__file__).parent
# Every import points to a folder further up: one total order.
ORDER = (
    "types",
    "spaces",
    "settings",
    "config_file",
    "ops",
    "networks",
    "envs",
    "lm",
    "data",
    "sources",
    "evaluators",
    "algorithms",
    "training",
    "reports",
    "runs",
    "sweeps",
    "benchmarks",
    "cli",
    "__main__",
)
MOST_FILES = 12
ONLY_IN = {
    "gymnax": {"envs/suites/gymnax.py"},
    "brax": {"envs/suites/brax.py"},
    "flax": {
        "networks/mlp.py",
        "networks/recurrent.py",
        "networks/torsos.py",
        "lm/transformer.py",
        "lm/lora.py",
        "lm/vocabulary.py",
    },
    "orbax": {"runs/checkpoints/files.py", "runs/checkpoints/numbers.py"},
    "tyro": {
        f"cli/{name}.py"
        for name in "experiment command dataset inspection models rendering reporting sweeping training trials".split()
    },
    "yaml": {"config_file.py"},
    "rich": {"runs/logs/progress.py", "cli/benchmark.py"},
    "tensorboardX": {"runs/logs/tensorboard.py"},
    "wandb": {"runs/logs/weights_and_biases.py"},
    "matplotlib": {"reports/curve.py", "reports/throughput.py", "reports/sweep/figure.py"},
    "PIL": {"reports/video.py", "reports/drawing/canvas.py"},
    "mujoco": {"reports/animation.py", "envs/suites/mjcf.py", "envs/suites/playground.py"},
    "mujoco_playground": {"envs/suites/playground.py"},
    "gymnasium": {
        "runs/exporting/play.py",
        *(f"envs/suites/gymnasium/{name}.py" for name in "__init__ bodies exported mask spaces trial".split()),
    },
    **{suite: {f"envs/suites/extras/{suite}.py"} for suite in ("jumanji", "craftax", "xminigrid", "pgx", "envpool")},
    "onnx": {"runs/exporting/graph.py"},
    "tokenizers": {"lm/text/tokenizer.py", "lm/text/bpe.py", "lm/text/sentencepiece.py"},
    "jinja2": {"lm/text/templates.py"},
    "pyarrow": {"data/reading/files.py", "sweeps/table.py"},
}
PACKAGES = {suite: suite for suite in EXTRAS} | {"playground": "mujoco_playground"}  # of a suite that is an extra
FORBIDDEN = {"pickle", "distrax", "rlax", "torch", "transformers", "trl"}


def imported(path: Path, root: Path = ROOT) -> set[str]:
    """Full names of all modules that a file imports, relative imports resolved."""
    package = ["jaxrl", *path.relative_to(root).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def violations(path: Path, root: Path = ROOT) -> list[str]:
    relative = path.relative_to(root)
    folder = relative.parts[0].removesuffix(".py")
    found = []
    for name in imported(path, root):
        top, *rest = name.split(".")
        if top == "jaxrl" and (not rest or rest[0] not in ORDER or ORDER.index(rest[0]) > ORDER.index(folder)):
            found.append(f"{relative} imports {name}, which lies further out")
        # algorithms/programs.py puts them together with what they run in
        if folder == "algorithms" and relative.name != "programs.py" and name.startswith("jaxrl.envs"):
            found.append(f"{relative} imports {name}: algorithms see spaces and batches only")
        of_arrays = relative.as_posix().startswith(("ops/losses", "ops/returns"))
        if of_arrays and top == "jaxrl" and rest[0] != "types" and rest[:2] != ["ops", "losses"]:
            found.append(f"{relative} imports {name}: losses and returns are functions of arrays")
        if top in FORBIDDEN or name.startswith("brax.training"):
            found.append(f"{relative} imports {name}")
        if top in ONLY_IN and relative.as_posix() not in ONLY_IN[top]:
            found.append(f"{relative} imports {name}; only {', '.join(ONLY_IN[top])} may")
    return found


MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_inwards(path):
    assert not violations(path)


def test_every_folder_has_its_place_and_nothing_else_lies_at_the_top():
    assert {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in MODULES} == set(ORDER)
    assert {p.stem for p in ROOT.glob("*.py")} == {"__init__", "types", "spaces", "settings", "config_file", "__main__"}


def test_no_folder_has_more_files_than_a_person_can_look_over():
    folders = {p.parent for p in ROOT.rglob("*.py")}
    counts = {str(f.relative_to(ROOT)): sum(p.is_file() for p in f.iterdir()) for f in folders}
    assert not {folder: count for folder, count in counts.items() if count > MOST_FILES}


@pytest.mark.parametrize(
    "line",
    [
        "import brax",
        "from ..training.loop import train",
        "from jaxrl.envs import make",
        "from jaxrl import train",
        "import pickle",
        "import flax",
    ],
)
def test_the_walk_finds_what_it_forbids(tmp_path, line):
    file = tmp_path / "algorithms" / "new.py"
    file.parent.mkdir()
    file.write_text(line)
    assert violations(file, tmp_path)


def test_no_module_shares_its_name_with_what_its_package_exports():
    for module in pkgutil.walk_packages(jaxrl.__path__, "jaxrl."):
        parent, _, name = module.name.rpartition(".")
        if (
            parent.startswith("jaxrl.envs.suites")
            and name in EXTRAS
            and importlib.util.find_spec(PACKAGES[name]) is None
        ):
            continue  # of an extra that is not installed
        loaded = importlib.import_module(module.name)
        assert getattr(importlib.import_module(parent), name) is loaded, f"{module.name} is hidden by a function"
        assert not callable(getattr(loaded, name, None)), f"{module.name} exports a function of its own name"


def test_import_of_jaxrl_takes_nothing_heavy_along():
    heavy = ("brax", "gymnax", "mujoco", "matplotlib", "tyro", "tensorboardX", "tokenizers", "gguf", "pyarrow", "spacy")
    heavy += ("scipy.stats", "scipy.special")
    code = f"import sys, jaxrl; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_windows_is_told_to_take_wsl():
    code = "import sys; sys.modules['fcntl'] = None; import jaxrl"  # Python has no such module there
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stderr.endswith(
        "ImportError: jaxrl runs on Linux and macOS; on Windows, install and run it within WSL\n"
    )


def test_library_code_does_not_print():
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        prints = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        # play.py is a program of its own, which an exported policy is played with
        assert not prints or path.parent.name == "cli" or path.name == "play.py", f"{path} prints"


UNPICKLE = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def executes(text: str) -> list[str]:
    """What in a file could run code that another one holds: modules that unpickle, eval, exec, YAML's full loader."""
    tree, found = ast.parse(text), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += {name.split(".")[0] for name in names} & {
                "pickle",
                "dill",
                "cloudpickle",
                "joblib",
                "shelve",
                "marshal",
            }
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        pickled = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
        if name in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load") or pickled:
            found.append(name)
    return found


def test_loading_executes_nothing():
    assert not {str(path): found for path in MODULES if (found := executes(path.read_text()))}
    for line in (
        "import pickle",
        "eval('1')",
        "yaml.load(f)",
        "np.load(f, allow_pickle=True)",
        "from joblib import load",
    ):
        assert executes(line)
    assert not executes("np.load(f, allow_pickle=False); yaml.safe_dump(x); config.evaluate(x)")
