"""Damaged rows and files: a sentence each and status 2, never a traceback, and nothing is written."""

import copy
import gzip
import json

import hypothesis
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import strategies as st

from jaxrl.algorithms import DPO, KTO, SFT
from jaxrl.cli.experiment import sentences
from jaxrl.data import DataConfig
from jaxrl.lm import LMConfig, Pretrained
from jaxrl.runs import finetuning
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
GOOD = [
    (SFT, {"prompt": "p", "completion": "c"}),
    (SFT, {"messages": [USER, ANSWER], "tools": [{"name": "f"}], "system": "s"}),
    (DPO, {"prompt": "p", "chosen": "a", "rejected": "b"}),
    (DPO, {"chosen": [USER, ANSWER], "rejected": [USER, ANSWER | {"content": "No"}]}),
    (KTO, {"prompt": [USER], "completion": [ANSWER], "label": True}),
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["<|im_end|>", "\ud83d", "", "user", "assistant", "system", "human", "[{", "content", "role"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
QUIET = hypothesis.settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def places(value, path=()):
    """The path of every value in it."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, x in inner:
        yield from places(x, (*path, key))


@st.composite
def damaged(draw):
    """(algorithm, rows) of which one has a value, anywhere, that does not belong there, or lacks one."""
    Config, row = draw(st.sampled_from(GOOD))
    rows = [copy.deepcopy(row) for _ in range(4)]
    which = draw(st.integers(0, 3))
    path = draw(st.sampled_from(list(places(row))))
    if not path:
        rows[which] = draw(VALUES)
        return Config, rows
    inside = rows[which]
    for key in path[:-1]:
        inside = inside[key]
    if draw(st.booleans()):
        inside[path[-1]] = draw(VALUES)
    else:
        del inside[path[-1]]
    return Config, rows


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """outcome(config, rows) -> the status: 0 where training would begin."""
    folder, config = tmp_path_factory.mktemp("out"), config_of("llama", vocab_size=259)
    base = Pretrained(config, params_of(config), byte_tokenizer())

    class Begun(Exception):
        pass

    def run(*args, **kwargs):
        raise Begun

    def status(config, rows):
        try:
            with sentences():
                finetuning.finetune(config, rows, run_dir=folder / "run")
        except Begun:
            return 0
        except SystemExit as end:
            return end.code
        finally:
            assert not list(folder.iterdir())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "load_model", lambda name, **options: base)
        patch.setattr(finetuning, "run", run)
        yield status


@hypothesis.settings(QUIET, max_examples=1000)
@hypothesis.given(damaged())
def test_a_thousand_damaged_rows(outcome, found):
    Config, rows = found
    status = outcome(Config(lm=LMConfig("tiny"), data=DataConfig(held_out=0.25)), rows)
    assert status in (0, 2)
    hypothesis.event(str(status))


def test_undamaged_rows_train(outcome):
    for Config, row in GOOD:
        different = [json.loads(json.dumps(row).replace('"p"', f'"p{i}"').replace("Hi", f"Hi{i}")) for i in range(4)]
        assert outcome(Config(lm=LMConfig("tiny"), data=DataConfig(held_out=0.25)), different) == 0


def written(folder):
    """One good file of each kind, as bytes, by name."""
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(8)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    pa.parquet.write_table(table, folder / "rows.parquet")
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    csv = "prompt,completion\n" + "".join(f"p{i},c\n" for i in range(8))
    files = {name: (folder / name).read_bytes() for name in ("rows.parquet", "rows.arrow")}
    files |= {"rows.jsonl": lines, "rows.json": json.dumps(rows).encode(), "rows.csv": csv.encode()}
    return files | {"rows.jsonl.gz": gzip.compress(lines, mtime=0)}


@st.composite
def spoilt(draw, files):
    """(name, bytes): cut short, or with some bytes replaced."""
    name = draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return name, bytes(content[: draw(st.integers(0, len(content)))])


def test_three_hundred_damaged_files(outcome, tmp_path):
    files = written(tmp_path)

    @hypothesis.settings(QUIET, max_examples=300)
    @hypothesis.given(spoilt(files))
    def each(found):
        name, content = found
        (tmp_path / name).write_bytes(content)
        data = DataConfig(str(tmp_path / name), held_out=0.25)
        status = outcome(SFT(lm=LMConfig("tiny"), data=data), None)
        assert status in (0, 2)
        hypothesis.event(f"{name} {status}")

    each()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert outcome(SFT(lm=LMConfig("tiny"), data=DataConfig(str(tmp_path / name), held_out=0.25)), None) == 0
