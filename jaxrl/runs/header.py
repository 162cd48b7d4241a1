"""The header of a run: on what, with which defaults, and at what cost it computes. Said once, and kept."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax

from jaxrl.ops.platform import cores, processor, tuning

HEADER = "header.json"


def run_header(seed: int, memory: dict[str, float], cache: str | None, devices: int) -> dict[str, Any]:
    """What is worth knowing of a run before its first number. memory: MiB of the training program, as XLA forecasts;
    cache: where compiled programs are kept; devices: how many of those that there are it takes.
    """
    return {
        "jaxrl": own_version(),
        **machine(),
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "x64": jax.config.jax_enable_x64,
        "tuning": tuning()._asdict(),
        "seed": seed,
        "devices_taken": devices,
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
    taken = f"{about['devices_taken']} of " * (about["devices_taken"] < about["devices"])
    device = f"{taken}{about['devices']} × {about['device']}" + f" on {about['cores']} cores" * (
        about["platform"] == "cpu"
    )
    precision = f"matmul precision {about['matmul_precision']}, x64 {'on' if about['x64'] else 'off'}"
    chosen = ", ".join(f"{name} {value}" for name, value in about["tuning"].items())
    total = about["memory_mib"].get("total")
    memory = "memory unknown" if total is None else f"training takes {total:,.1f} MiB"
    kept = f"kept in {about['compilation_cache']}" if about["compilation_cache"] else "not kept"
    return [
        f"{versions}; {device}; {precision}",
        f"seed {about['seed']}; {memory}; {chosen}; compiled programs are {kept}",
    ]


def machine() -> dict[str, Any]:
    """What exactness depends on: versions, device, processor, the cores this process may use, and XLA's flags."""
    packages = ("jax", "jaxlib", "flax", "optax", "brax", "gymnax")
    device = jax.devices()[0]
    about = {"platform": device.platform, "device": device.device_kind, "devices": jax.device_count()}
    return {
        **about,
        "processor": platform.machine(),
        **processor(),
        "cores": cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def git_revision() -> str | None:
    """What `git describe` says of the working directory, "-dirty" where it has changes; None where it is under no
    version control.
    """
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
