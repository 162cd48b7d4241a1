"""Who may import whom: the house has an inside and an outside, and this keeps it so."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "jaxrl"
LAYERS = [
    {"types", "spaces", "config", "config_file"},
    {"distributions", "returns", "losses", "minibatch", "normalize", "metrics", "schedule", "optimizer"},
    {"networks", "envs", "lm"},
    {"rollout", "data"},
    {"algorithms"},
    {
        "train",
        "evaluate",
        "checkpoint",
        "logs",
        "report",
        "animation",
        "replay",
        "judge",
        "run_dir",
        "run",
        "samples",
        "tune",
    },
    {"cli", "commands"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "gymnax": {"envs/gymnax.py"},
    "brax": {"envs/brax.py"},
    "flax": {"networks/mlp.py", "lm/transformer.py", "lm/lora.py"},
    "orbax": {"checkpoint.py"},
    "tyro": {"cli.py", "commands.py"},
    "yaml": {"config_file.py"},
    "rich": {"logs.py"},
    "tensorboardX": {"logs.py"},
    "matplotlib": {"report.py"},
    "mujoco": {"animation.py"},
    "tokenizers": {"lm/tokenizer.py", "lm/bpe.py"},
    "jinja2": {"lm/tokenizer.py"},
    "pyarrow": {"data/files.py"},
}
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
    own = LEVEL[relative.parts[0].removesuffix(".py")]
    found = []
    for name in imported(path, root):
        top, *rest = name.split(".")
        if top == "jaxrl" and rest and LEVEL.get(rest[0], 0) > own:
            found.append(f"{relative} imports {name}, which lies further out")
        if relative.parts[0] == "algorithms" and name.startswith("jaxrl.envs"):
            found.append(f"{relative} imports {name}: algorithms see spaces and batches only")
        if relative.parts[0] in ("losses", "returns.py") and top == "jaxrl" and rest[0] not in ("types", "losses"):
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


def test_every_module_has_its_layer():
    assert {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in MODULES} == set(LEVEL)


@pytest.mark.parametrize(
    "line", ["import brax", "from ..train import train", "from jaxrl.envs import make", "import pickle", "import flax"]
)
def test_the_walk_finds_what_it_forbids(tmp_path, line):
    file = tmp_path / "algorithms" / "new.py"
    file.parent.mkdir()
    file.write_text(line)
    assert violations(file, tmp_path)


def test_import_of_jaxrl_takes_no_environment_package_along():
    heavy = ("brax", "gymnax", "mujoco", "matplotlib", "tyro", "tensorboardX", "tokenizers", "gguf", "pyarrow", "spacy")
    code = f"import sys, jaxrl; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_library_code_does_not_print():
    for path in MODULES:
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        prints = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "print"]
        assert not prints or path.name in ("cli.py", "commands.py"), f"{path} prints"
