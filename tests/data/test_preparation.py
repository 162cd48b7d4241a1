"""From rows to arrays, in one call: what is held out, and what is refused."""

import numpy as np
import pytest

from jaxrl.data import DataConfig, prepare
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
    assert len(train) == 18 and len(held_out) == 2 and not train & held_out and not notes
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
