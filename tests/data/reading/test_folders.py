"""Folders as tools and hubs lay them out: all of a split, once, or the question which."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxrl.data.linting import lint
from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.rows import read, read_rows
from jaxrl.types import InputError


def pair(n):
    return {"prompt": "p", "chosen": "good", "rejected": "bad", "n": n}


def write(file, *names):
    """A file with one row for each name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [pair(name) for name in names or (file.name,)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if file.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".arrow":
        stream(file, rows)
    else:
        file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)


def stream(file, rows):
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def save_to_disk(folder, *shards, **state):
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
    for name, n in zip(names, shards, strict=True):
        stream(folder / name, [pair(n)])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names], **state}))
    (folder / "dataset_info.json").write_text("{}")


def found(path, split=None):
    return [row["n"] for row in read_rows(path, split)]


def test_shards_by_split(tmp_path):
    write(tmp_path / "data" / "train-00000-of-00002.parquet", 0)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", 1)
    write(tmp_path / "data" / "test_prefs-00000-of-00001.parquet", 2)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "dataset_infos.json").write_text("{}")
    (tmp_path / ".cache" / "hub").mkdir(parents=True)
    write(tmp_path / ".cache" / "hub" / "train.jsonl")
    assert found(tmp_path, "train") == [0, 1] and found(tmp_path, "test_prefs") == [2]
    assert found(tmp_path, "test_prefs+train") == [2, 0, 1] and found(tmp_path, "train+train") == [0, 1]
    has = "has 'test_prefs', 'train'"
    with pytest.raises(InputError, match=f"{has}; say which, as in split = 'train' .--split train.; a . between joins"):
        read_rows(tmp_path)
    for unknown in ("valid", "train+valid", "", "train[:10%]"):
        with pytest.raises(InputError, match=has) as error:
            read_rows(tmp_path, unknown)
        assert f", not {unknown!r}; say which" in str(error.value)


@pytest.mark.parametrize(
    "first, second",
    [
        ("train-00000-of-00002-b42a775f407cee45.parquet", "train-00001-of-00002-1dbc5fd3d8c2b7aa.parquet"),
        ("train-00001-of-00002.jsonl", "train-00002-of-00002.jsonl"),
        ("train_0.jsonl.gz", "train_1.jsonl.gz"),
        ("train/0000.parquet", "train/0001.parquet"),
        (
            "train/part-00000-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f-c000.snappy.parquet",
            "train/part-00001-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f-c000.snappy.parquet",
        ),
    ],
)
def test_names_of_shards(tmp_path, first, second):
    write(tmp_path / first, 0)
    write(tmp_path / second, 1)
    rows, notes = read(tmp_path)
    assert [row["n"] for row in rows] == [0, 1] and "is 2 files, " in notes[0]


def test_a_shard_too_few_or_too_many_is_named(tmp_path):
    write(tmp_path / "train-00000-of-00003-b42a775f407cee45.parquet", 0)
    write(tmp_path / "train-00002-of-00003-1dbc5fd3d8c2b7aa.parquet", 2)
    with pytest.raises(InputError, match="train-00001-of-00003 is missing from .*; fetch it again"):
        read_rows(tmp_path)
    (shard,) = raw_rows(tmp_path / "train-00000-of-00003-b42a775f407cee45.parquet").notes
    assert shard.endswith(".parquet is one shard of 3; give its folder to read them all")
    write(tmp_path / "train-00001-of-00003-1dbc5fd3d8c2b7aa.parquet", 1)
    assert found(tmp_path) == [0, 1, 2]
    write(tmp_path / "train-00001-of-00003-ffffffffffffffff.parquet", 1)
    with pytest.raises(InputError, match="train-00001-of-00003 is there twice .*; remove the older one"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    "files, labels",
    {
        ("train.jsonl", "train-more.jsonl.gz"): ["train-more", "train"],
        ("train.jsonl", "train.parquet"): ["train.jsonl", "train.parquet"],
        ("train.jsonl", "train.jsonl.gz"): ["train.jsonl", "train.jsonl.gz"],
        ("train.jsonl", "train-1.jsonl"): ["train-1.jsonl", "train.jsonl"],
        ("train.jsonl", "data/train.jsonl"): ["data/train", "train"],
        ("pairs_v1.jsonl", "pairs_v2.jsonl"): ["pairs_v1", "pairs_v2"],
        ("helpful/train.jsonl", "harmless/train.jsonl"): ["harmless/train", "helpful/train"],
        ("a/train/0.jsonl", "b/train/0.jsonl", "b/test/0.jsonl"): ["a/train", "test", "b/train"],
        ("a/train/0.jsonl", "a/train-0.jsonl"): ["a/0.jsonl", "a/train-0.jsonl"],
        ("train-00000-of-00001.jsonl", "train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"): [
            "train-00000-of-00001.jsonl", "train-00000-of-00002.jsonl"
        ],
    }.items(),
)  # fmt: skip
def test_what_may_be_meant_twice_is_asked_and_each_answer_works(tmp_path, files, labels):
    for file in files:
        write(tmp_path / file)
    with pytest.raises(InputError) as error:
        read_rows(tmp_path)
    assert f"has {', '.join(map(repr, labels))}; say which" in str(error.value)
    each = [found(tmp_path, label) for label in labels]
    every = [name for names in each for name in names]
    assert sorted(every) == sorted(file.rpartition("/")[2] for file in files)
    assert found(tmp_path, "+".join(labels)) == every


def test_a_file_is_its_only_part(tmp_path):
    write(tmp_path / "train-00000-of-00001.parquet", 0)
    write(tmp_path / "reviews.jsonl", 1)
    assert found(tmp_path / "train-00000-of-00001.parquet", "train") == [0]
    with pytest.raises(InputError, match="reviews.jsonl has 'reviews', not 'train'; leave split = 'train' out"):
        read_rows(tmp_path / "reviews.jsonl", "train")


def test_folders_of_save_to_disk(tmp_path):
    save_to_disk(tmp_path / "d" / "train", 0, 1)
    save_to_disk(tmp_path / "d" / "test", 2)
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert found(tmp_path / "d", "train") == [0, 1] and found(tmp_path / "d" / "test") == [2]
    assert found(tmp_path / "d" / "test", "test") == [2]
    with pytest.raises(InputError, match="has 'test', not 'train'; leave split = 'train' out"):
        read_rows(tmp_path / "d" / "test", "train")
    save_to_disk(tmp_path / "mine", 3, _split="validation")
    assert found(tmp_path / "mine", "validation") == [3]


@pytest.mark.parametrize(
    "state, message",
    [
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "d lacks gone.arrow; save the data set again"),
        ("{}", "d names no files; save"),
        ('{"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{}]}', "d selects rows by indices; save"),
        ("{oops", "state.json is damaged"),
    ],
)
def test_saved_folders_that_are_not_whole(tmp_path, state, message):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "a.arrow")
    (tmp_path / "d" / "state.json").write_text(state)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / "d")


def test_a_cache_of_arrow_files(tmp_path):
    inside = tmp_path / "org___foo" / "default" / "0.0.0" / "3f2a"
    write(inside / "foo-train-00000-of-00002.arrow", 0)
    write(inside / "foo-train-00001-of-00002.arrow", 1)
    write(inside / "foo-test.arrow", 2)
    write(inside / "cache-0a1b2c3d.arrow", 3)  # of a map
    write(inside / "cache-0a1b2c3d_00000_of_00002.arrow", 3)
    info = {"splits": {"train": {}, "test": {}}, "dataset_name": "foo"}
    (inside / "dataset_info.json").write_text(json.dumps(info))
    assert found(tmp_path, "test") == [2] and found(tmp_path, "train") == [0, 1]
    (inside / "dataset_info.json").write_text("{}")
    assert found(tmp_path, "foo-test") == [2]
    (inside / "foo-test.arrow").write_bytes(b"")
    with pytest.raises(InputError, match="foo-test.arrow is empty, 0 bytes"):
        read_rows(tmp_path, "foo-test")


def test_what_is_not_read_is_said(tmp_path):
    write(tmp_path / "train.jsonl")
    (tmp_path / "train-more.jsonl.bz2").write_bytes(b"BZh")
    (tmp_path / "README.md").write_text("about")
    assert read(tmp_path).notes == ["not read: train-more.jsonl.bz2"]


def test_missing_and_empty(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no .jsonl, .ndjson, .* files; give a folder that does"):
        read_rows(tmp_path)
    write(tmp_path / "train.jsonl", 0)
    with pytest.raises(InputError, match="trian.jsonl is no such file or folder; did you mean 'train.jsonl'"):
        read_rows(tmp_path / "trian.jsonl")
    for path in ("organisation/name", "x" * 5000, "/gone/gone.jsonl"):
        with pytest.raises(
            InputError, match="is no such file or folder; what lies on a hub has to be downloaded first"
        ):
            read_rows(path)
    with pytest.raises(InputError, match="there is no file to read; give data.path"):
        read_rows("")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("~/train.jsonl") == [0]


def test_the_report_counts_what_is_read(tmp_path, tokenizer):
    write(tmp_path / "train.jsonl", *range(10))
    write(tmp_path / "train-more.jsonl.gz", *range(7))
    report = lint(tmp_path, tokenizer, max_length=50, split="train+train-more")
    assert ": 17 rows of pairs" in report and " 17 of 17 rows kept" in report
