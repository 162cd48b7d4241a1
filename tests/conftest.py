"""Shared by all tests: shapes in jaxrl's signatures are checked at run time, programs compiled lightly and cached."""

import os

# Most of the suite's time is compiling, and most programs run once, on few rows: two files of tests that
# compile much (algorithms/test_dpo.py, training/test_trial.py) take 144 s of processor so, and 237 s without the last
# setting (an EPYC's core, 2026-11-30). Tests marked `computes`, which run for longer than they compile, do without it:
# algorithms/test_rlhf_optimum.py takes 151 s, and not 196 s. `XLA_FLAGS= scripts/test` leaves compiling to XLA, as
# scripts/on_accelerator.sh does.
_LIGHT = "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false"
if os.environ.setdefault("XLA_FLAGS", _LIGHT) == _LIGHT:
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Where in our source an operation stands is kept of one frame and not of ten, in each program: a twentieth of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "1")

from jaxtyping import install_import_hook  # noqa: E402

from tests.helpers import checking  # noqa: E402

CHECKED = ("ops", "networks", "evaluators.episodes", "spaces")
install_import_hook([f"jaxrl.{name}" for name in CHECKED], f"{checking.__name__}.functions").__enter__()

import gc  # noqa: E402
import re  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxrl.cli import enable_compilation_cache  # noqa: E402

enable_compilation_cache()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # single operations are not worth a file
_EXTRA = re.compile(r'(?:^@|^pytestmark = |marks=)pytest\.mark\.extra\("(\w+)"\)', re.MULTILINE)


_MOST_MAPS = 25_000
_LIGHTEST = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before what a test needs is made, which compiles too; for the processes that it starts as well."""
    lightest = _LIGHTEST and item.get_closest_marker("computes") is None
    jax.config.update("jax_disable_most_optimizations", lightest)
    if _LIGHTEST:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(lightest))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """After a file, let go of compiled programs where there are very many: each is mapped into memory in several
    pieces, Linux allows a process 65,530 of them, and XLA crashes at the next. What is kept, for long, is not looked
    through for garbage again and again: a tenth of the time, in the end."""
    maps = Path("/proc/self/maps")
    if nextitem is not None and nextitem.path == item.path:
        return
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.unfreeze()
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--extra", help="only the tests that need this optional extra, which is not installed by default")


def pytest_collection_modifyitems(config, items):
    """Tests marked extra(NAME) run where they are asked for by name, and nothing else does then."""
    asked, kept, left = config.getoption("extra"), [], []
    for item in items:
        mark = item.get_closest_marker("extra")
        (kept if (mark and mark.args[0]) == asked else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(terminalreporter, config):
    # Of the files, and not of what was collected: workers of pytest-xdist collect, and this process writes.
    texts = [path.read_text() for path in Path(__file__).parent.rglob("test_*.py")]
    extras = sorted({name for text in texts for name in _EXTRA.findall(text)})
    if extras and not config.getoption("extra"):
        commands = ", ".join(f"scripts/test --extra {name}" for name in extras)
        terminalreporter.write_line(f"left out, for they need extras that are not installed by default: {commands}")


@pytest.fixture
def key():
    return jax.random.key(0)
