"""Rows out of one file: JSON and jsonl, csv, parquet and arrow, each as it is or compressed by gzip or zstd."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.data.reading.conversations import OURS, TALKS, is_message
from jaxrl.lm.extras import package
from jaxrl.types import InputError

_COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # what is in a file counts, whatever it is called
_TRUTH = dict.fromkeys(("true", "1", "1.0", "yes", "good", "pos", "positive", "desirable", "chosen"), True)
_TRUTH |= dict.fromkeys(("false", "0", "0.0", "no", "bad", "neg", "negative", "undesirable", "rejected"), False)


class Raw(NamedTuple):
    """Rows as (where, row), unchecked, where `where` reads as "reviews.jsonl, row 17". notes: sentences about them."""

    rows: list[tuple[str, Any]]
    notes: list[str]


def kind_of(name: str) -> str | None:
    """What a file's name says it is, as "jsonl" or "csv.gz"; None for what is not read."""
    stem, dot, last = name.lower().rpartition(".")
    packed = f".{last}" if dot + last in _COMPRESSED else ""
    last = stem.rpartition(".")[2] if packed else last
    return last + packed if last in READERS and "." in name else None


def read_file(path: Path) -> Raw:
    """The rows of one file. Raises InputError, with file and row number, for what cannot be read.

    Row numbers are line numbers in jsonl files, and count rows elsewhere.
    """
    kind = kind_of(path.name)
    if kind is None or not path.is_file():
        what = "not a file" if not path.is_file() else f"a {path.suffix or 'nameless'} file"
        raise InputError(
            f"{path} is {what}; give one of {', '.join(f'.{r}' for r in READERS)}, or a folder with such files"
        )
    rows, notes = READERS[kind.partition(".")[0]](_contents(path), path.name)
    if not isinstance(rows, dict):
        rows = dict(enumerate(rows, 1))
    return Raw([(f"{path.name}, row {number}", row) for number, row in rows.items()], notes)


def _contents(path: Path) -> bytes:
    """The bytes of a file, unpacked. Raises InputError where they are plainly not data."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    packed = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if packed:
        pa = package("pyarrow", "compressed files")
        try:
            data = pa.input_stream(pa.py_buffer(data), compression=packed).read()
        except OSError as error:
            raise InputError(f"{path.name} is cut short or damaged ({error}); fetch or write it again") from error
    head = data[:512].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if not data:
        raise InputError(f"{path.name} is empty, 0 bytes; fetch or write it again, or leave it out")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path.name} only points to data kept by git-lfs; run `git lfs pull` in its repository")
    if head.startswith((b"<!doctype", b"<html")):
        raise InputError(f"{path.name} is a web page, not data; download the file itself (its raw form), not its page")
    return data


def _utf8(data: bytes, name: str) -> bytes:
    """Text as UTF-8 without a mark at its head; UTF-16 and UTF-32 show by their zeros or their mark."""
    encoding = json.detect_encoding(data[:4])
    try:
        return data.removeprefix(b"\xef\xbb\xbf") if encoding.startswith("utf-8") else data.decode(encoding).encode()
    except ValueError as error:
        raise InputError(f"{name} is not text ({error}); save it as UTF-8") from error


def _json(data: bytes, name: str) -> tuple[Any, list[str]]:
    """Rows by line where every line is a value, else those of the one value that the file is."""
    data = _utf8(data, name)
    lines = {i: line for i, line in enumerate(data.splitlines(), 1) if line.strip(b"\xef\xbb\xbf \t")}
    by_line = kind_of(name).startswith(("jsonl", "ndjson"))
    try:
        first = _value(next(iter(lines.values()), b"[]"))
    except ValueError:  # a list or an object over several lines, or no JSON
        first = None
    if first is not None and len(lines) > 1:
        rows = {number: _line(line, f"{name}, row {number}") for number, line in lines.items()}
        return rows, [] if by_line else [f"{name} holds one object per line, and is read so"]
    try:
        value = first if first is not None else _value(data)
    except ValueError as error:
        if by_line and not data.lstrip().startswith(b"["):
            return {number: _line(line, f"{name}, row {number}") for number, line in lines.items()}, []
        raise InputError(
            f"{name} is not JSON: {error}; it must be a list of objects, or one object per line"
        ) from error
    if isinstance(value, dict):
        return _of_object(value, name, by_line)
    if not isinstance(value, list):
        raise InputError(f"{name} holds {type(value).__name__}, not a list of objects")
    return [value] if by_line and value and is_message(value[0]) else value, []


def _line(line: bytes, where: str) -> Any:
    try:
        return _value(line)
    except ValueError as error:
        shown = line[:60].decode(errors="replace")
        raise InputError(f"{where}: {shown!r} is not JSON ({error}); write one object per line, in UTF-8") from error


def _value(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _of_object(value: dict[str, Any], name: str, by_line: bool) -> tuple[list[Any], list[str]]:
    known = [value.get(name) for name in (*OURS, *TALKS, "instruction", "question")]
    if any(isinstance(v, str) or (isinstance(v, list) and v and is_message(v[0])) for v in known):
        return [value], []  # one row
    lists = [k for k, v in value.items() if isinstance(v, list) and v and all(isinstance(x, dict) for x in v)]
    if len(lists) != 1 and by_line:
        return [value], []
    if len(lists) != 1:
        found = f"an object of {', '.join(map(repr, list(value)[:9])) or 'nothing'}"
        raise InputError(
            f"{name} holds {found}, not a list of objects; save the rows alone, as a list or one object per line"
            " (pandas: to_json(path, orient='records', lines=True))"
        )
    return value[lists[0]], [f"{name} holds an object; its list {lists[0]!r} is read"]


def _csv(data: bytes, name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """All columns are text, but a `label` that says true or false. Comma, semicolon or tab, as the header has it."""
    try:
        text = _utf8(data, name).decode()
    except ValueError as error:
        raise InputError(f"{name} is not UTF-8 text ({error}); save it as UTF-8") from error
    header = text.lstrip().partition("\n")[0]
    limit = csv.field_size_limit(len(text) + 1)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
        columns, *rows = [line for line in lines if line] or [[]]
    except csv.Error as error:
        raise InputError(f"{name} is not csv: {error}; quote fields, and double the quotes within") from error
    finally:
        csv.field_size_limit(limit)
    if len(set(columns)) < len(columns):
        raise InputError(f"{name} has two columns of one name: {', '.join(columns)}; rename one")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise InputError(
                f"{name}, row {number} has {len(row)} fields, not {len(columns)}; quote fields with commas"
            )
    made = [dict(zip(columns, row, strict=True)) for row in rows]
    return [
        row | {"label": _TRUTH.get(row["label"].lower(), row["label"])} if "label" in row else row for row in made
    ], []


def _parquet(data: bytes, name: str) -> tuple[list[Any], list[str]]:
    pq = package("pyarrow.parquet", "parquet files")
    return _plain_table(lambda pa: pq.read_table(pa.BufferReader(data)), name, "parquet"), []


def _arrow(data: bytes, name: str) -> tuple[list[Any], list[str]]:
    """Both of arrow's formats: files, which begin with their magic, and streams, as `datasets` writes them."""

    def table(pa: Any) -> Any:
        opened = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
        return opened(pa.BufferReader(data)).read_all()

    return _plain_table(table, name, "arrow"), []


def _plain_table(read: Callable[[Any], Any], name: str, kind: str) -> list[dict[str, Any]]:
    pa = package("pyarrow", "parquet and arrow files")
    try:
        table = read(pa)
        table.validate(full=True)  # damage is an error here, and a crash of the process further down
        if "[ns" in str(table.schema):  # Python's times end at microseconds
            table = table.cast(pa.schema([f.with_type(_micro(f.type, pa)) for f in table.schema]), safe=False)
        rows, classes = table.to_pylist(), _classes(table)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{name} is not {kind}, or damaged: {error}; fetch or write it again") from error
    for column, names in classes.items():
        for row in rows:
            row[column] = _class(column, row[column], names)
    return rows


def _classes(table: Any) -> dict[str, list[str]]:
    """The names of classes, by column, where `datasets` wrote a description of such columns beside the data."""
    described = json.loads((table.schema.metadata or {}).get(b"huggingface", b"null"))
    try:
        features = {} if described is None else described["info"]["features"] or {}
        kept = {column: features[column] for column in features if column in table.column_names}
        return {column: kind["names"] for column, kind in kept.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its description is of no known kind ({error})") from error


def _micro(kind: Any, pa: Any) -> Any:
    """The arrow type with microseconds for nanoseconds, however deep."""
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_micro(f.type, pa)) for f in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_micro(kind.value_type, pa)))
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return {pa.time64("ns"): pa.time64("us"), pa.duration("ns"): pa.duration("us")}.get(kind, kind)


def _class(column: str, number: int | None, names: list[str]) -> Any:
    """The name that a class stands for; of a `label` true or false where the name says so, whatever its number is."""
    name = names[number] if number is not None and 0 <= number < len(names) else None
    return _TRUTH.get(str(name).lower(), name) if column == "label" else name


READERS = {
    "jsonl": _json, "ndjson": _json, "json": _json, "csv": _csv, "tsv": _csv, "parquet": _parquet, "arrow": _arrow
}  # fmt: skip
