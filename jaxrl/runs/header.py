"""The header of a run: on what, with which defaults, and at what cost it computes. Said once, and kept."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from jaxrl.ops.platform import tuning
from jaxrl.runs.directory import machine

HEADER = "header.json"


def run_header(seed: int, memory: dict[str, float], cache: str | None) -> dict[str, Any]:
    """What is worth knowing of a run before its first number. memory: MiB of the training program, as XLA forecasts;
    cache: where compiled programs are kept.
    """
    return {
        "jaxrl": own_version(),
        **machine(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "x64": jax.config.jax_enable_x64,
        "tuning": tuning()._asdict(),
        "seed": seed,
        "compilation_cache": cache,
        "memory_mib": memory,
    }


def own_version() -> str:
    """jaxrl's, or "not installed" for a checkout that is only on the path."""
    try:
        return version("jaxrl")
    except PackageNotFoundError:
        return "not installed"


def lines(about: dict[str, Any]) -> list[str]:
    """Two lines of it for people."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("jaxrl", "jax", "jaxlib", "flax", "optax", "python"))
    device = f"{about['devices']} × {about['device']}" + f" on {about['cores']} cores" * (about["platform"] == "cpu")
    precision = f"matmul precision {about['matmul_precision']}, x64 {'on' if about['x64'] else 'off'}"
    chosen = ", ".join(f"{name} {value}" for name, value in about["tuning"].items())
    total = about["memory_mib"].get("total")
    memory = "memory unknown" if total is None else f"training takes {total:,.1f} MiB"
    kept = f"kept in {about['compilation_cache']}" if about["compilation_cache"] else "not kept"
    return [
        f"{versions}; {device}; {precision}",
        f"seed {about['seed']}; {memory}; {chosen}; compiled programs are {kept}",
    ]
