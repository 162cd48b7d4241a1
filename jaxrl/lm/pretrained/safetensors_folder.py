"""A folder of safetensors: one file, or several with an index that says which array is in which."""

import contextlib
import json
import math
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.lm.extras import package
from jaxrl.lm.pretrained.tensors import Tensor
from jaxrl.types import InputError

MODEL, INDEX = "model.safetensors", "model.safetensors.index.json"


class SafeTensors(Mapping):
    """The arrays in a folder's safetensors files by name, read when asked for. model: the file, if there is but one."""

    def __init__(self, folder: Path, model: str = MODEL):
        safe_open, self._homes = package("safetensors", "pretrained weights").safe_open, {}
        for file in _files(folder, model):
            try:
                handle = safe_open(file, framework="np")
            except Exception as error:
                raise InputError(
                    f"{file} is not a safetensors file or is cut short ({error}); download it again"
                ) from error
            self._homes.update(dict.fromkeys(handle.keys(), handle))

    def __getitem__(self, name: str) -> np.ndarray:
        return self._homes[name].get_tensor(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape; nothing is read."""
        return tuple(self._homes[name].get_slice(name).get_shape())

    def part(self, name: str, part: tuple[slice, ...]) -> np.ndarray:
        """A part of it, which is all that is read."""
        return self._homes[name].get_slice(name)[part]

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


def _files(folder: Path, model: str) -> list[Path]:
    names = {model}
    if model == MODEL and not (folder / MODEL).is_file() and (folder / INDEX).is_file():
        names = set(read_json(folder / INDEX).get("weight_map", {}).values())
        if any(Path(name).name != name for name in names):
            raise InputError(f"{folder / INDEX} names files outside its folder; download it again")
    for name in sorted(names):
        if not (folder / name).is_file():
            pickled = ", only .bin files, and unpickling those could run code" if list(folder.glob("*.bin")) else ""
            raise InputError(f"{folder} has no {name}{pickled}; download it again, or save the model as safetensors")
    return [folder / name for name in sorted(names)]


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` at the end: that appears whole or not at all.

    Raises InputError if `folder` holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty; name a new folder, or remove it first")
    temporary = folder.absolute().parent / f".{folder.name}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.glob("*.safetensors"):  # that package lets nobody else read what it writes
            file.chmod(temporary.stat().st_mode & 0o666)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_tensors(folder: Path, tensors: Iterable[Tensor], itemsize: int, max_shard_bytes: float) -> None:
    """Write one file, or several of at most `max_shard_bytes` and their index; one file's arrays are held at a time."""
    save_file, shards, sizes = package("safetensors.numpy", "pretrained weights").save_file, [{}], [0]
    for name, shape, make in tensors:
        size = itemsize * math.prod(shape)
        if shards[-1] and sizes[-1] + size > max_shard_bytes:
            shards.append({})
            sizes.append(0)
        shards[-1][name] = make
        sizes[-1] += size
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    names = [MODEL] if len(shards) == 1 else names
    for file, shard in zip(names, shards, strict=True):
        save_file({name: make() for name, make in shard.items()}, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        homes = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": homes})


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError with a sentence if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        of_a_run = path.parent / "model"
        hint = f"; a run keeps its model in {of_a_run}" if of_a_run.is_dir() else "; a model's folder needs it"
        raise InputError(f"there is no {path}{hint}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold an object; download it again")
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write it indented."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
