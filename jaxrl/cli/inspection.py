"""jaxrl list and env: what there is to train, and on what it would run."""

import itertools
import json
import os
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import jax
from tyro.conf import Positional

from jaxrl.algorithms import ALGORITHMS
from jaxrl.cli.experiment import CONFIGS, names
from jaxrl.envs import registry
from jaxrl.runs.header import machine
from jaxrl.training.compilation_cache import enable_compilation_cache

_PACKAGES = ("jaxrl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "brax", "gymnax")
_GIB = 2**30


def listing(what: Positional[Literal["all", "environments", "algorithms", "configs"]] = "all") -> None:
    """List what there is: environments, algorithms, and the configs that ship with jaxrl.

        jaxrl list
        jaxrl list environments

    Args:
        what: Which of the three.
    """
    found: dict[str, Any] = {}
    if what in ("all", "environments"):
        found |= {"environments": registry.names(), "unavailable": registry.unavailable()}
        _table("environments", {name: "" for name in found["environments"]})
        _table("registered, and not available", found["unavailable"])
    if what in ("all", "algorithms"):
        found["algorithms"] = {name: _about(cls) for name, cls in ALGORITHMS.items()}
        _table("algorithms", found["algorithms"])
    if what in ("all", "configs"):
        found["configs"] = {name: _header(name) for name in names()}
        _table("configs", found["configs"])
    print(json.dumps(found))


def surroundings() -> None:
    """Versions, devices, memory, the cache of compiled programs, and what would be worth setting on this machine.

    jaxrl env
    """
    cache = enable_compilation_cache()
    files = [file.stat().st_size for file in Path(cache).glob("*-cache")] if cache else []
    about = machine()
    found = {
        "versions": {"python": about["python"], **{name: _version(name) for name in _PACKAGES}},
        "platform": about["platform"],
        "devices": [str(device) for device in jax.devices()],
        "device": about["device"],
        "processor": about["model"],
        "cores": about["cores"],
        "memory_gib": round(_memory() / _GIB, 1),
        "device_memory_gib": _device_memory(),
        "compilation_cache": {"path": cache, "programs": len(files), "mib": round(sum(files) / 2**20, 1)},
        "xla_flags": about["xla_flags"],
        "recommended": recommended(about["platform"], dict(os.environ), shutil.which("nvidia-smi") is not None, cache),
    }
    for name, value in found.items():
        if value is None:
            continue
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name.replace('_', ' '):18} {', '.join(shown) or 'none' if isinstance(shown, list) else shown}")
    print(json.dumps(found))


def recommended(platform: str, environ: dict[str, str], sees_gpu: bool, cache: str | None) -> list[str]:
    """What would be worth doing before a run here, as sentences; often nothing. sees_gpu: whether there is one."""
    found = []
    if platform == "cpu" and sees_gpu and environ.get("JAX_PLATFORMS", "") != "cpu":
        found.append("there is a GPU that this JAX cannot use: pip install 'jaxrl[cuda]'")
    memory = {"XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_ALLOCATOR"}
    if platform == "gpu" and not memory & set(environ):
        found.append(
            "JAX takes 75 % of the GPU's memory at its start: XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 takes more where a "
            "run does not fit, XLA_PYTHON_CLIENT_PREALLOCATE=false as little as it needs where others use this GPU too"
        )
    if cache is None:
        found.append(
            "compiled programs are not kept, so that every start compiles: name a directory of your own, "
            "JAXRL_CACHE=DIR (and leave JAX_ENABLE_COMPILATION_CACHE unset)"
        )
    return found


def _table(title: str, rows: dict[str, str]) -> None:
    width = max(map(len, rows), default=0)
    print(f"{title}:")
    print("".join(f"  {f'{name:{width}}  {text}'.rstrip()}\n" for name, text in rows.items()))


def _about(cls: type) -> str:
    """What the module that tells an algorithm begins with."""
    return _begins(sys.modules[cls.__module__].__doc__, r"(?<!al)\. ")


def _header(name: str) -> str:
    """What a config's header begins with: what to expect, or what it is for."""
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    comments = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return _begins(" ".join(line.lstrip("# ") for line in comments), r"[.:] ")


def _begins(text: str, end: str) -> str:
    return re.split(end, " ".join(text.split()))[0].rstrip(".")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # jaxrl itself, as a checkout on the path
        return "not installed"


def _memory() -> int:
    """Bytes that this process may use: the machine's, or the limit of its control group."""
    limit = Path("/sys/fs/cgroup/memory.max")
    told = limit.read_text().strip() if limit.is_file() else "max"
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole if told == "max" else min(whole, int(told))


def _device_memory() -> float | None:
    stats = jax.devices()[0].memory_stats() or {}
    return round(stats["bytes_limit"] / _GIB, 1) if "bytes_limit" in stats else None
