"""The directory of a run: what was run, on what, and whether a resume is of the same run."""

import dataclasses
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.config_file import load_config, save_config
from jaxrl.types import InputError

_ABOUT, _CONFIG = "run.json", "config.yaml"


def as_run(config: Any, overrides: Mapping[str, Any]) -> Any:
    """The config with the settings that something given stood in for: paths such as "env.name" -> values."""
    for path, value in overrides.items():
        config = _set(config, path.split("."), value)
    return config


def check_run_dir(run_dir: Path | None, seed: int, config: Any, given: dict[str, Any], resume: bool) -> None:
    """For a resume, that the directory holds this very run; else that it can be made. Nothing is written.

    Raises InputError for a directory that already holds a run, or a resume with anything else than it was begun with.
    """
    if resume and run_dir is None:
        raise InputError("resume needs the run_dir to go on in")
    if run_dir is None:
        return
    file = next((path for path in (run_dir, *run_dir.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise InputError(f"run_dir = {run_dir}: {file} is a file; name a directory")
    if resume:
        _same_run(run_dir, seed, config, given)
    elif (run_dir / _ABOUT).exists():
        raise InputError(
            f"{run_dir} already holds a run; pass resume=True (--resume) to go on with it, or another run_dir"
        )


def begin_run(run_dir: Path | None, label: str, seed: int, config: Any, given: dict[str, Any]) -> Path:
    """Make the directory, by default a new one under runs/, and write what is run, and on what."""
    run_dir = _new_directory(f"{label}_s{seed}_{time.strftime('%Y%m%d-%H%M%S')}") if run_dir is None else run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, run_dir / _CONFIG)
    about = {"seed": seed, "given": given, **machine()}
    try:
        with (run_dir / _ABOUT).open("x") as file:
            file.write(json.dumps(about, indent=1) + "\n")
    except FileExistsError:  # somebody else began a run here since it was looked at
        raise InputError(f"{run_dir} already holds a run; pass another run_dir") from None
    return run_dir


def _new_directory(name: str) -> Path:
    for number in range(1, 1000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run began in the same second
            continue
        return path
    raise InputError(f"runs/ holds a thousand runs called {name}; name a run_dir")


def _same_run(run_dir: Path, seed: int, config: Any, given: dict[str, Any]) -> None:
    if not (run_dir / _ABOUT).exists():
        raise InputError(f"{run_dir} holds no run to resume; leave resume out to start one there")
    saved = load_config(run_dir / _CONFIG, {type(config).__name__.lower(): type(config)})
    for name, old, new in _differences(saved, config):
        raise InputError(f"{run_dir} was run with {name} = {old}, not {new}; resume with its own config.yaml")
    then = json.loads((run_dir / _ABOUT).read_text())
    if then["seed"] != seed:
        raise InputError(f"{run_dir} was run with seed = {then['seed']}, not {seed}; resume with that seed")
    for name in sorted({*then["given"], *given}):
        was, now = then["given"].get(name), given.get(name)
        if was != now:
            raise InputError(f"{run_dir} was run with {_called(name, was)}, not {_called(name, now)}; resume with that")
    changed = [f"{name} was {then.get(name)}, is {now}" for name, now in machine().items() if then.get(name) != now]
    if changed:
        warnings.warn(f"resuming where {'; '.join(changed)}: it goes on, but not bit for bit", stacklevel=5)


def _called(name: str, what: dict[str, str] | None) -> str:
    return f"no {name} of its own" if what is None else f"the {name} {what['is']} ({what['sha256'][:8]})"


def _differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    for f in dataclasses.fields(new):
        was, now = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(now):
            yield from ((f"{f.name}.{name}", *values) for name, *values in _differences(was, now))
        elif np.any(was != now) if f.type is float else was != now:
            yield f.name, was, now


def _set(settings: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    value = _set(getattr(settings, name), rest, value) if rest else value
    return dataclasses.replace(settings, **{name: value})


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


def cores() -> int:
    """How many this process may use."""
    # A process pinned to one core computes other bits than one on two: XLA splits its sums by the threads it has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> dict[str, str]:
    """Model and a hash of the instruction sets, where Linux tells them: XLA compiles for both."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"model": platform.processor()}
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = told.get("flags", told.get("Features", ""))
    return {"model": told.get("model name", platform.processor()), "flags": sha256(flags.encode()).hexdigest()[:12]}
