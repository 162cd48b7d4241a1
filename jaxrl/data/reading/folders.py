"""What lies in a folder of data: splits, in shards, of several configurations or formats, as tools and hubs lay them
out. Nothing is read in part or twice: where more than one thing may be meant, it is asked.
"""

import json
import os.path
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxrl.data.reading.files import READERS, Raw, kind_of, read_file
from jaxrl.settings import closest
from jaxrl.types import InputError

# train-00000-of-00002-b42a775f407cee45, train-0001, 0001, part-00000-<uuid>-c000.snappy
_SHARD = re.compile(
    r"(?:(?P<name>.*?)[-_.])?(?P<number>\d+)(?:-of-(?P<of>\d+))?(?:-[0-9a-f]{16}|-[0-9a-f]{8}-[0-9a-f-]{27}.*)?"
)
_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_ASIDE = (".md", ".py", ".lock", ".yaml", ".yml")


class Part(NamedTuple):
    """Files that belong together: the shards of one split, of one kind ("jsonl", "csv.gz", "saved"), in one folder.

    numbers: which shards there are, of how many, where their names say so.
    """

    folder: str
    split: str
    kind: str
    files: list[Path]
    numbers: list[int]
    of: int | None


def raw_rows(path: str | Path, split: str | None = None) -> Raw:
    """The rows of a file or folder, unchecked, and what there is to say about how they were read.

    split: which part of a folder, as in "train"; "train+test" is both. A folder's name before it ("english/train"), or
    a kind after it ("train.jsonl"), tells apart what else is ambiguous. Raises InputError, naming what there is.
    """
    if not str(path):
        raise InputError("there is no file to read; give data.path (--path), or rows")
    path = Path(os.path.expanduser(path))
    if not os.path.exists(path):  # unlike Path.exists, it is no for any text
        near = closest(path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [])
        raise InputError(f"{path} is no such file or folder{near}; what lies on a hub has to be downloaded first")
    parts, notes = _parts(path) if path.is_dir() else ([_single(path)], [])
    rows = []
    for part in _chosen(parts, split, path):
        if path.is_dir():
            _check_shards(part)
        elif part.of not in (None, 1):
            notes.append(f"{path.name} is one shard of {part.of}; give its folder to read them all")
        if len(part.files) > 1:
            notes.append(f"{part.split!r} is {len(part.files)} files, {part.files[0].name} … {part.files[-1].name}")
        for file in part.files:
            read = read_file(file)
            rows += read.rows
            notes += read.notes
    return Raw(rows, notes)


def _single(file: Path) -> Part:
    match = _SHARD.fullmatch(_stem(file))
    name, of = (match["name"], match["of"]) if match else (None, None)
    return Part("", name or _stem(file), kind_of(file.name) or file.suffix, [file], [], of and int(of))


def _stem(file: Path) -> str:
    kind = kind_of(file.name)
    return file.name[: -len(kind) - 1] if kind else file.name


def _parts(root: Path) -> tuple[list[Part], list[str]]:
    """What a folder holds, and a sentence about files that may be data and are not read."""
    found: dict[tuple, Part] = {}
    aside = []
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root).parts
        if any(name.startswith(".") for name in inside) or not file.is_file():
            continue
        saved = (file.parent / "state.json").is_file()  # what datasets' save_to_disk writes
        if file.name == "state.json":
            found[(file,)] = _saved(file, inside[:-1])
        elif file.name in _ABOUT or saved or re.fullmatch(r"cache-[0-9a-f]+(_.*)?\.arrow", file.name):
            continue
        elif kind_of(file.name) is None:
            aside += [file.name] if file.suffix not in _ASIDE and file.suffix else []
        else:
            _add(found, file, inside[:-1])
    return list(found.values()), [f"not read: {', '.join(aside)}"] if aside else []


def _add(found: dict[tuple, Part], file: Path, folders: Sequence[str]) -> None:
    match, name = _SHARD.fullmatch(_stem(file)), _stem(file)
    numbered = match is not None
    if numbered:
        name = match["name"] or file.parent.name
        folders = folders if match["name"] else folders[:-1]  # train/0000.parquet is of "train"
    if file.suffix == ".arrow":
        name = _cached(name, file.parent / "dataset_info.json")
    of = int(match["of"]) if numbered and match["of"] else None
    folder = "/".join(folders)
    key = (file.parent, name, kind_of(file.name), numbered, of)
    part = found.setdefault(key, Part(folder, name, kind_of(file.name), [], [], of))
    part.files.append(file)
    part.numbers.extend([int(match["number"])] if numbered else [])


def _saved(state: Path, folders: Sequence[str]) -> Part:
    told = _object(state)
    files = [entry.get("filename") for entry in told.get("_data_files", []) if isinstance(entry, dict)]
    missing = [name for name in files if not isinstance(name, str) or not (state.parent / name).is_file()]
    if not files or missing or told.get("_indices_data_files"):
        what = f"lacks {missing[0]}" if missing else "selects rows by indices" if files else "names no files"
        raise InputError(f"{state.parent} {what}; save the data set again")
    split = str(folders[-1] if folders else told.get("_split") or state.parent.name)
    return Part("/".join(folders[:-1]), split, "saved", [state.parent / name for name in files], [], None)


def _cached(name: str, info: Path) -> str:
    """The split that NAME-SPLIT.arrow of a cache is of, by the description beside it."""
    splits = _object(info).get("splits") if info.is_file() else None
    return next((s for s in (splits if isinstance(splits, dict) else ()) if name.endswith(f"-{s}")), name)


def _object(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{file} is damaged: {error}; fetch or write it again") from error
    return value if isinstance(value, dict) else {}


def _forms(part: Part) -> list[str]:
    """What a part may be called, the plainest name first; the last one is like no other."""
    inside = [f"{part.folder}/{part.split}"] if part.folder else [part.split]
    names = [part.split, f"{part.split}.{part.kind}", *inside, f"{inside[0]}.{part.kind}"]
    return [*names, f"{part.folder}/{part.files[0].name}".lstrip("/")]


def _called(parts: Sequence[Part], name: str) -> list[Part]:
    hits = ([part for part in parts if _forms(part)[level] == name] for level in (-1, -2, -3, 1, 0))
    return next((found for found in hits if found), [])


def _chosen(parts: Sequence[Part], split: str | None, path: Path) -> list[Part]:
    if not parts:
        raise InputError(f"{path} holds no {', '.join(f'.{name}' for name in READERS)} files; give a folder that does")
    if split is None and len(parts) == 1:
        return [parts[0]]
    labels = [next(form for form in _forms(part) if _called(parts, form) == [part]) for part in parts]
    asked = [] if split is None else [split] if _called(parts, split) else split.split("+")
    found = [_called(parts, name) for name in asked]
    if asked and all(len(hits) == 1 for hits in found):
        return [part for i, (part,) in enumerate(found) if [part] not in found[:i]]
    one = next((label for label in labels if "train" in label), labels[0])
    remedy = f"say which, as in split = {one!r} (--split {one})" if len(parts) > 1 else f"leave split = {split!r} out"
    several = "; a + between joins several" if len(parts) > 1 else ""
    asked = f", not {split!r}" if split is not None else ""
    raise InputError(f"{path} has {', '.join(map(repr, labels))}{asked}; {remedy}{several}")


def _check_shards(part: Part) -> None:
    """Raises InputError unless every shard of N is there, once."""
    if part.of is None:
        return
    start = 1 if part.of in part.numbers else 0  # some count from one
    missing = sorted(set(range(start, start + part.of)) - set(part.numbers))
    if missing:
        name = f"{part.split}-{missing[0]:05}-of-{part.of:05}"
        raise InputError(f"{name} is missing from {part.files[0].parent}; fetch it again")
    if len(set(part.numbers)) < len(part.numbers):
        twice = next(n for n in part.numbers if part.numbers.count(n) > 1)
        name = f"{part.split}-{twice:05}-of-{part.of:05}"
        raise InputError(f"{name} is there twice in {part.files[0].parent}; remove the older one")
