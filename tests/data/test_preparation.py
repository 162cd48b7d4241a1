"""From rows to arrays, in one call: what is held out, and what is refused."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jaxrl.algorithms import SFT
from jaxrl.data import DataConfig, lint, prepare
from jaxrl.settings import check
from tests.helpers.tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()


def texts(side):
    """Prompt and completion of each row, as text."""
    return [
        (TOKENIZER.decode(row[:start]), TOKENIZER.decode(row[start:end], True))
        for row, start, end in zip(side.tokens, side.prompt_length, side.length, strict=True)
    ]


def test_a_prompt_is_trained_on_or_measured_never_both():
    rows = [{"prompt": f"question {i}", "completion": f"answer {j}"} for i in range(20) for j in range(3)]
    data, counts, notes = prepare(DataConfig(held_out=0.1), TOKENIZER, rows)
    train, held_out = ({prompt for prompt, _ in texts(part[0])} for part in data)
    assert len(train) == 18 and len(held_out) == 2 and not train & held_out
    assert notes == (
        "held-out figures (eval_*) are of 6 rows alone and say little: data.held_out = 0.1 of 60; hold out more",
    )
    assert (counts["rows"], counts["kept"], counts["held_out"]) == (60, 60, 6)
    again = prepare(DataConfig(held_out=0.1), TOKENIZER, rows).data
    np.testing.assert_array_equal(again.held_out[0].tokens, data.held_out[0].tokens)


@pytest.mark.parametrize("prompts", [1, 5])
def test_where_prompts_are_too_few_rows_are_held_out(prompts):
    rows = [{"prompt": f"question {i % prompts}", "completion": f"answer {i}"} for i in range(40)]
    train, held_out = prepare(DataConfig(held_out=0.1), TOKENIZER, rows).data
    assert len(held_out[0].length) == 4 and len(train[0].length) == 36
    assert not set(texts(train[0])) & set(texts(held_out[0]))


def test_messages_are_grouped_by_what_comes_before_the_answer():
    say = lambda role, text: {"role": role, "content": text}  # noqa: E731
    rows = [
        {"messages": [say("user", f"question {i}"), say("assistant", f"answer {j}")]} for i in range(10) for j in (0, 1)
    ]
    train, held_out = prepare(DataConfig(held_out=0.2), TOKENIZER, rows).data
    prompts = [{prompt for prompt, _ in texts(part[0])} for part in (train, held_out)]
    assert [len(p) for p in prompts] == [8, 2] and not prompts[0] & prompts[1]


def test_a_bad_row_is_named_by_its_own_number():
    rows = [{"prompt": f"question {i}", "completion": "yes"} for i in range(30)]
    rows[16] = {"prompt": "question 16"}
    with pytest.raises(ValueError, match="^row 17 has no `completion`"):
        prepare(DataConfig(), TOKENIZER, rows)


def test_no_file_and_no_rows_is_a_sentence():
    with pytest.raises(ValueError, match="there is no file to read; give data.path"):
        prepare(DataConfig(), TOKENIZER)


def test_generators_and_tables_of_times_train(tmp_path):
    say = lambda role, text, at: {"role": role, "content": text, "at": at}  # noqa: E731
    times = [datetime.datetime(2024, 1, day) for day in range(1, 31)]
    rows = [{"messages": [say("user", f"q{t.day}", t), say("assistant", "a", t)]} for t in times]
    train, held_out = prepare(DataConfig(held_out=0.1), TOKENIZER, (row for row in rows)).data
    assert len(train[0].length) == 27 and len(held_out[0].length) == 3
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    read = prepare(DataConfig(str(tmp_path / "x.parquet"), held_out=0.1), TOKENIZER)
    np.testing.assert_array_equal(read.data.train[0].tokens, train[0].tokens)
    apart = prepare(DataConfig(), TOKENIZER, iter(rows[3:]), held_out=iter(rows[:3])).data
    assert [len(part[0].length) for part in apart] == [27, 3]
    assert not prepare(DataConfig(), TOKENIZER, rows, held_out=[]).data.held_out


def test_split_and_format_are_those_of_the_report(tmp_path):
    for split, n in (("train", 6), ("test", 4)):
        rows = [
            {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "a"}]} for i in range(n)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataConfig(str(tmp_path), split="test", format="sharegpt", held_out=0.0)
    _, counts, notes = prepare(settings, TOKENIZER)
    report = lint(settings, TOKENIZER)
    assert counts["kept"] == counts["rows"] == 4 and " 4 of 4 rows kept" in report and notes[0] in report
    given = prepare(DataConfig(held_out=0.0), TOKENIZER, [*rows, *rows])
    assert given.notes == notes and given.counts["rows"] == 8
    beside = prepare(settings, TOKENIZER, held_out=rows[:2])  # the split of the file is no matter of theirs
    assert (beside.counts["kept"], beside.counts["held_out"]) == (6, 2)
    with pytest.raises(ValueError, match="split = 'test' chooses from a file, and rows are given"):
        prepare(settings, TOKENIZER, rows)
    with pytest.raises(ValueError, match="data.format = 'sharegtp' is not one of .*did you mean 'sharegpt'"):
        check(SFT(data=DataConfig(format="sharegtp")))
