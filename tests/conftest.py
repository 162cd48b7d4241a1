"""Shared by all tests: shapes in jaxrl's signatures are checked at run time, and compiled programs are cached."""

from jaxtyping import install_import_hook

from tests.helpers import checking

CHECKED = ("ops", "networks", "evaluators.episodes", "spaces")
install_import_hook([f"jaxrl.{name}" for name in CHECKED], f"{checking.__name__}.functions").__enter__()

import jax  # noqa: E402
import pytest  # noqa: E402

from jaxrl.cli import enable_compilation_cache  # noqa: E402

enable_compilation_cache()


@pytest.fixture
def key():
    return jax.random.key(0)
