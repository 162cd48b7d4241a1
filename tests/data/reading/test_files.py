"""What files hold, whatever they are called and however they were packed; and what is said of those that hold none."""

import csv
import datetime
import gzip
import io
import json
import random

import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxrl.data.reading.files import kind_of, read_file
from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.rows import read, read_rows
from jaxrl.types import InputError

ROWS = [{"prompt": f'q, "{i}"; Ü', "completion": f"line\n{i}"} for i in range(3)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def table(rows, **schema):
    made = pa.Table.from_pylist(rows)
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": schema}})}) if schema else made


def parquet(rows, **schema):
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(table(rows, **schema), sink)
    return sink.getvalue().to_pybytes()


def arrow(rows, new=pa.ipc.new_stream):
    sink, made = pa.BufferOutputStream(), table(rows)
    with new(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue().to_pybytes()


def separated(rows, by=","):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=by)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


@pytest.mark.parametrize(
    "name, content",
    {
        "a.jsonl": lines(ROWS),
        "a.ndjson": lines(ROWS),
        "A.JSONL": lines(ROWS).replace(b"\n", b"\r\n"),
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "array.jsonl": json.dumps(ROWS, indent=1).encode(),
        "one_line.jsonl": json.dumps(ROWS).encode(),
        "a.parquet": parquet(ROWS),
        "stream.arrow": arrow(ROWS),
        "file.arrow": arrow(ROWS, pa.ipc.new_file),
        "a.csv": separated(ROWS),
        "semicolon.csv": separated(ROWS, ";"),
        "a.tsv": separated(ROWS, "\t"),
        "a.jsonl.gz": gzip.compress(lines(ROWS), mtime=0),
        "members.jsonl.gz": gzip.compress(lines(ROWS[:1]), mtime=0) + gzip.compress(lines(ROWS[1:]), mtime=0),
        "a.json.gz": gzip.compress(json.dumps(ROWS).encode(), mtime=0),
        "a.csv.gz": gzip.compress(separated(ROWS), mtime=0),
        "a.jsonl.zst": zstd(lines(ROWS)),
        "packed_all_the_same.jsonl": gzip.compress(lines(ROWS), mtime=0),
        "unpacked_on_the_way.jsonl.gz": lines(ROWS),
        "mark.jsonl": b"\xef\xbb\xbf" + lines(ROWS),
        "mark.csv": b"\xef\xbb\xbf" + separated(ROWS),
        "utf16.jsonl": lines(ROWS).decode().encode("utf-16"),
        "utf16.json": json.dumps(ROWS).encode("utf-16-le"),
        "utf16.csv": separated(ROWS).decode().encode("utf-16"),
    }.items(),
)
def test_the_same_rows_from_every_kind_of_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == (ROWS, [])


def test_unpacking_tells_rows_by_their_lines(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(ROWS) + b"\n\n{oops\n"))
    with pytest.raises(InputError, match="^a.jsonl.gz, row 6: '{oops' is not JSON"):
        read_file(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize(
    "name, content, note",
    [
        ("x.json", lines(ROWS), "x.json holds one object per line, and is read so"),
        (
            "x.json",
            json.dumps({"version": 1, "data": ROWS}).encode(),
            "x.json holds an object; its list 'data' is read",
        ),
        ("x.json", json.dumps({"data": ROWS}, indent=1).encode(), "x.json holds an object; its list 'data' is read"),
    ],
)
def test_what_is_plainly_meant_is_read_and_said(tmp_path, name, content, note):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == (ROWS, [note])


def test_an_object_may_be_a_row(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "x.json").write_text(json.dumps(row, indent=1))
    assert read_rows(tmp_path / "x.json") == [row]
    for row in ({"text": "t"}, {"a": ROWS, "b": ROWS}):
        (tmp_path / "x.jsonl").write_text(json.dumps(row))
        assert read_file(tmp_path / "x.jsonl").rows == [("x.jsonl, row 1", row)]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("x.txt", b"a", "x.txt is a .txt file; give one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow"),
        ("x.jsonl.bz2", b"a", "is a .bz2 file"),
        ("jsonl", b"a", "is a nameless file"),
        ("x.json", b"{oops", "^x.json is not JSON"),
        ("x.json", b"{}", "^x.json holds an object of nothing, not a list of objects"),
        ("x.json", b"3", "^x.json holds int, not a list"),
        ("x.json", json.dumps({"train": ROWS, "test": ROWS}).encode(), "an object of 'train', 'test', not a list"),
        ("x.json", b'{"prompt": {"0": "a"}}', "an object of 'prompt', .*orient='records', lines=True"),
        ("x.jsonl", lines(ROWS)[:-9], "^x.jsonl, row 3: '{\"prompt.* is not JSON"),
        ("x.jsonl", b"[" * 99_999, "^x.jsonl is not JSON: it is nested too deeply"),
        ("x.jsonl", b"\xff\n", "^x.jsonl, row 1: .* is not JSON .*in UTF-8"),
        ("x.jsonl", b"", "^x.jsonl is empty, 0 bytes"),
        ("x.arrow", b"", "^x.arrow is empty, 0 bytes"),
        ("x.parquet", b"oops", "^x.parquet is not parquet, or damaged"),
        ("x.parquet", parquet(ROWS)[:-9], "^x.parquet is not parquet, or damaged"),
        ("x.arrow", arrow(ROWS)[:-99], "^x.arrow is not arrow, or damaged"),
        (
            "x.jsonl.gz",
            gzip.compress(lines(ROWS), mtime=0)[:-9],
            "^x.jsonl.gz is cut short or damaged .*fetch or write it again",
        ),
        ("x.jsonl.zst", zstd(lines(ROWS))[:-9], "^x.jsonl.zst is cut short or damaged"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "points to data kept by git-lfs; run `git lfs"),
        ("x.jsonl", b"\n<!DOCTYPE html>\n<html>", "^x.jsonl is a web page, not data; download the file itself"),
        ("x.csv", b'prompt,completion\na,"b', "^x.csv is not csv: unexpected end of data; quote fields"),
        ("x.csv", b"prompt,completion\na,b,c\n", "^x.csv, row 1 has 3 fields, not 2"),
        ("x.csv", b"prompt,prompt\na,b\n", "^x.csv has two columns of one name: prompt, prompt"),
        ("x.csv", "prompt,completion\nä,b\n".encode("latin-1"), "^x.csv is not UTF-8 text"),
        ("x.json", b"[1]\0\0\0", "^x.json is not"),
    ],
)
def test_files_that_cannot_be_read_are_named_with_a_remedy(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message.replace("^", "^(.*/)?")):
        raw_rows(tmp_path / name)


def test_all_of_csv_is_text_but_labels(tmp_path):
    content = b"prompt,completion,label\n007,1e5,True\ntrue,,0\nx,2024-01-01,1.0\n"
    (tmp_path / "x.csv").write_bytes(content)
    assert [tuple(row.values()) for row in read_rows(tmp_path / "x.csv")] == [
        ("007", "1e5", True), ("true", "", False), ("x", "2024-01-01", True)
    ]  # fmt: skip
    (tmp_path / "x.csv").write_bytes(content.replace(b"True", b"perhaps"))
    with pytest.raises(InputError, match="x.csv, row 1 has label 'perhaps'"):
        read_rows(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes(b"prompt,completion\nlong," + b"x" * 200_000)
    assert len(read_rows(tmp_path / "x.csv")[0]["completion"]) == 200_000 and csv.field_size_limit() < 200_000


@pytest.mark.parametrize("names, first", [(["good", "bad"], True), (["bad", "good"], False), (["0", "1"], False)])
def test_a_class_label_is_what_its_name_says(tmp_path, names, first):
    rows = [{"prompt": "p", "completion": "c", "label": i, "source": i} for i in (0, 1)]
    classes = {
        "label": {"names": names, "_type": "ClassLabel"},
        "source": {"names": ["no", "b"], "_type": "ClassLabel"},
    }
    (tmp_path / "x.parquet").write_bytes(parquet(rows, **classes))
    made = read_rows(tmp_path / "x.parquet")
    assert [row["label"] for row in made] == [first, not first] and [row["source"] for row in made] == ["no", "b"]
    classes["label"]["names"] = ["cats", "dogs"]
    (tmp_path / "x.parquet").write_bytes(parquet(rows, **classes))
    with pytest.raises(InputError, match="row 1 has label 'cats'; it must be true"):
        read_rows(tmp_path / "x.parquet")


def test_times_of_nanoseconds_however_deep(tmp_path):
    time = pa.array([1_000_000_001], pa.timestamp("ns", "UTC"))
    inside = pa.ListArray.from_arrays([0, 1], pa.StructArray.from_arrays([time], ["at"]))
    made = pa.table({"prompt": ["p"], "completion": ["c"], "log": inside, "took": pa.array([1500], pa.duration("ns"))})
    pa.parquet.write_table(made, tmp_path / "x.parquet")
    (row,) = read_rows(tmp_path / "x.parquet")
    assert row["log"] == [{"at": "1970-01-01T00:00:01+00:00"}] and row["took"] == str(
        datetime.timedelta(microseconds=1)
    )


def test_kinds_by_name():
    names = ("a.jsonl", "a.b.csv.gz", "a.JSON.zst", "jsonl", ".jsonl.gz", "a.gz", "a.parquet", "a.txt", "a.tar.gz")
    assert [kind_of(name) for name in names] == [
        "jsonl", "csv.gz", "json.zst", None, "jsonl.gz", None, "parquet", None, None
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_damage_is_a_sentence_and_never_a_crash(tmp_path, seed):
    rng = random.Random(seed)
    kinds = {"jsonl": lines, "json": lambda r: json.dumps(r).encode(), "csv": separated, "parquet": parquet}
    kinds |= {"arrow": arrow, "jsonl.gz": lambda r: gzip.compress(lines(r)), "jsonl.zst": lambda r: zstd(lines(r))}
    for kind, write in kinds.items():
        whole = write(ROWS)
        for _ in range(10):
            at, data = rng.randrange(len(whole)), bytearray(whole)
            how = rng.randrange(3)
            data[at : at + (0, 1, len(whole))[how]] = rng.randbytes((9, 1, 0)[how])
            (tmp_path / f"x.{kind}").write_bytes(data)
            try:
                rows = read_rows(tmp_path / f"x.{kind}")
            except InputError as error:
                assert str(error).startswith(f"x.{kind}") or "has no rows" in str(error)
            else:
                assert 1 <= len(rows) <= 4
