"""Rows out of files: jsonl, JSON, parquet, and folders as Hugging Face `datasets` and its hub lay them out."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrl.lm.extras import package
from jaxrl.types import InputError

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")


def raw_rows(path: str | Path, split: str | None = None) -> Iterator[tuple[str, Any]]:
    """(where, row) of a file or folder, unchecked, where `where` reads as "reviews.jsonl, row 17"."""
    path = Path(path)
    if split is not None and (path.is_file() or (path / "state.json").is_file()):
        raise InputError(f"{path} has no parts to choose split = {split!r} from; leave split out")
    if path.is_dir():
        yield from _folder(path, split)
    elif path.suffix not in _SUFFIXES or not path.is_file():
        what = "no such file" if not path.exists() else f"a {path.suffix or 'nameless'} file"
        raise InputError(f"{path} is {what}; give one of {', '.join(_SUFFIXES)} or a datasets folder")
    elif path.suffix == ".parquet":
        yield from _named(path.name, _parquet(path))
    else:
        yield from _json(path)


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".json":
        try:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise InputError(f"{path.name} is not JSON: {error}; one object per line goes by .jsonl") from error
        if not isinstance(rows, list):
            raise InputError(f"{path.name} holds {type(rows).__name__}, not a list of objects")
        yield from _named(path.name, rows)
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path.name}, row {number}"
            try:
                text = line.decode("utf-8-sig").strip()
                row = json.loads(text) if text else None
            except ValueError as error:
                raise InputError(
                    f"{where}: {line[:60].decode(errors='replace')!r} is not JSON ({error}); write one object per line"
                ) from error
            if text:
                yield where, row


def _parquet(path: Path) -> list[Any]:
    pa = _arrow()
    try:
        return pa.parquet.read_table(path).to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(f"{path.name} is not parquet: {error}") from error


def _named(name: str, rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{name}, row {i}", row) for i, row in enumerate(rows, 1))


def _folder(path: Path, split: str | None) -> Iterator[tuple[str, Any]]:
    if (path / "state.json").is_file():  # what datasets' save_to_disk writes
        pa = _arrow()
        for entry in json.loads((path / "state.json").read_text(encoding="utf-8"))["_data_files"]:
            with pa.memory_map(str(path / entry["filename"])) as file:
                yield from _named(entry["filename"], pa.ipc.open_stream(file).read_all().to_pylist())
        return
    parts: dict[str, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        if file.name == "state.json":
            parts.setdefault(file.parent.name, []).append(file.parent)
        elif file.suffix in _SUFFIXES and file.name not in ("dataset_info.json", "dataset_dict.json"):
            # train-00000-of-00002.parquet and train/0000.parquet are both of "train"
            name = re.sub(r"[-_.]?\d+(-of-\d+)?$", "", file.stem)
            parts.setdefault(name or file.parent.name, []).append(file)
    if split is None and len(parts) == 1:
        split = next(iter(parts))
    if split not in parts:
        have = f"has {', '.join(map(repr, parts))}" if parts else f"holds no {', '.join(_SUFFIXES)} or .arrow files"
        raise InputError(f"{path} {have}; say which, as in split={next(iter(parts), 'train')!r}, not {split!r}")
    for file in parts[split]:
        yield from raw_rows(file)


def _arrow() -> Any:
    package("pyarrow.parquet", "parquet and arrow files")
    return package("pyarrow", "parquet and arrow files")
