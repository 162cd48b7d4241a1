"""The directory of a run: what was run, on what, and whether a resume is of the same run."""

import dataclasses
import hashlib
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.config_file import load_config, save_config
from jaxrl.types import PyTree


def run_name(config: Any, seed: int, resume: bool = False) -> Path:
    """A new directory under runs/, named after what is run and when. Raises ValueError if it is to be resumed."""
    if resume:
        raise ValueError("resume needs the run_dir to go on in")
    what = config.env.name if hasattr(config, "env") else Path(config.lm.name).name
    name = f"{what.replace('/', '-')}_{type(config).__name__.lower()}_s{seed}"
    return Path("runs") / f"{name}_{time.strftime('%Y%m%d-%H%M%S')}"


def open_run(config: Any, seed: int, run_dir: Path | None, resume: bool, network: Any, arrays: PyTree) -> Path:
    """The run's directory, made or recognised. network, arrays: the model, parameters and data that the run is given.

    Raises ValueError for a directory that already holds a run, or a resume with another config, seed or given things.
    """
    run_dir = run_name(config, seed, resume) if run_dir is None else run_dir
    model = {"model": f"{network.config} {network.dtype}"} if hasattr(network, "config") else {}
    about, described = run_dir / "run.json", {"seed": seed, **model, **fingerprints(arrays), **machine()}
    if resume:
        _same_run(config, run_dir, about, described)
    elif about.exists():
        raise ValueError(f"{run_dir} already holds a run; pass resume=True to go on with it, or another run_dir")
    else:
        run_dir.mkdir(parents=True, exist_ok=True)
        save_config(config, run_dir / "config.yaml")
        about.write_text(json.dumps(described, indent=1) + "\n")
    return run_dir


def _same_run(config: Any, run_dir: Path, about: Path, described: dict[str, Any]) -> None:
    if not about.exists():
        raise ValueError(f"{run_dir} holds no run to resume; leave resume out to start one there")
    saved = load_config(run_dir / "config.yaml", {type(config).__name__.lower(): type(config)})
    for name, old, new in _differences(saved, config):
        raise ValueError(f"{run_dir} was run with {name} = {old}, not {new}; resume with its own config.yaml")
    then = json.loads(about.read_text())
    if then["seed"] != described["seed"]:
        now = described["seed"]
        raise ValueError(f"{run_dir} was run with seed = {then['seed']}, not {now}; resume with that seed")
    for name in ("model", "params", "data"):
        if then.get(name) != described.get(name):
            raise ValueError(f"{run_dir} was run with other {name}; resume with those it was started with")
    changed = [f"{name} was {then.get(name)}, is {now}" for name, now in machine().items() if then.get(name) != now]
    if changed:
        warnings.warn(f"resuming where {'; '.join(changed)}: it goes on, but not bit for bit", stacklevel=4)


def _differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    for f in dataclasses.fields(new):
        was, now = getattr(old, f.name), getattr(new, f.name)
        if dataclasses.is_dataclass(now):
            yield from ((f"{f.name}.{name}", *values) for name, *values in _differences(was, now))
        elif was != now:
            yield f.name, was, now


def fingerprints(arrays: dict[str, PyTree]) -> dict[str, str]:
    """name -> sha256 over paths, shapes, types and bytes of its leaves, for every tree that has any."""
    return {name: _fingerprint(tree) for name, tree in arrays.items() if jax.tree.leaves(tree)}


def _fingerprint(tree: PyTree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype}{leaf.shape}".encode())
        digest.update(leaf.view(np.uint8).data)
    return digest.hexdigest()


def machine() -> dict[str, Any]:
    """What exactness depends on: versions, device, processor and core count."""
    packages = ("jax", "jaxlib", "flax", "optax", "brax", "gymnax")
    device = jax.devices()[0]
    about = {"platform": device.platform, "device": device.device_kind, "devices": jax.device_count()}
    return {**about, "processor": platform.machine(), "cores": os.cpu_count(), **{p: version(p) for p in packages}}
