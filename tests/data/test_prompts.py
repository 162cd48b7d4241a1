import json

import numpy as np
import pytest

from jaxrl.data.prompts import encode_prompts, keep_end, read_prompts, with_prompts

EOS, BOS = 257, 256  # "a" is 97: see conftest


def test_prompts_by_hand(tokenizer):
    prompts = encode_prompts([{"prompt": "Hi"}, {"prompt": "x"}], tokenizer, max_length=9)
    np.testing.assert_array_equal(prompts.tokens, [[72, 105], [120, EOS]])  # padding is EOS here
    np.testing.assert_array_equal(prompts.length, [2, 1])
    assert prompts.tokens.dtype == prompts.length.dtype == np.int32


def test_messages_end_where_the_assistant_begins_to_speak(tokenizer):
    rows = [{"prompt": [{"role": "user", "content": "<|im_end|>"}]}]
    prompts = encode_prompts(rows, tokenizer, max_length=99)
    text = [BOS, *b"user\n<|im_end|>", EOS, *b"\n", BOS, *b"assistant\n"]
    np.testing.assert_array_equal(prompts.tokens, [text])
    np.testing.assert_array_equal(encode_prompts(rows, tokenizer, max_length=12).tokens, [text[-12:]])


def test_too_long_a_prompt_keeps_its_end_and_bos(tokenizer, bos_tokenizer):
    assert encode_prompts([{"prompt": "12345"}], tokenizer, max_length=3).tokens.tolist() == [[*b"345"]]
    assert encode_prompts([{"prompt": "12345"}], bos_tokenizer, max_length=3).tokens.tolist() == [[BOS, *b"45"]]


def test_every_row_is_told_with_its_prompt():
    asked, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    spoken = {"messages": [asked, answer], "answer": 4}
    both = {"chosen": [asked, answer], "rejected": [asked, {"role": "assistant", "content": "b"}]}
    text = {"prompt": "q", "completion": "a"}
    found = with_prompts([spoken, both, text])
    assert found == [{**spoken, "prompt": [asked]}, {**both, "prompt": [asked]}, text]
    with pytest.raises(ValueError, match="row 1 has no `prompt`"):
        with_prompts([{"answer": 4}])


@pytest.mark.parametrize("room", range(1, 9))
@pytest.mark.parametrize("prefix", [[], [0]])
def test_keeping_the_end(room, prefix):
    ids = [*prefix, 1, 2, 3, 4, 5]
    kept = keep_end(ids, room, prefix)
    assert len(kept) == min(room, len(ids)) and kept[-1] == 5
    assert kept[: len(prefix)] == prefix or room == 1
    assert [i for i in kept if i] == list(range(6 - len([i for i in kept if i]), 6))


def test_an_empty_prompt_needs_a_bos(tokenizer, bos_tokenizer):
    assert encode_prompts([{"prompt": ""}], bos_tokenizer, max_length=3).tokens.tolist() == [[BOS]]
    with pytest.raises(ValueError, match="row 2 has an empty prompt, and the tokenizer adds no BOS"):
        encode_prompts([{"prompt": "x"}, {"prompt": ""}], tokenizer, max_length=3)


def test_reading(tmp_path):
    file = tmp_path / "p.jsonl"
    talk = [{"role": "user", "content": "a"}]
    rows = [{"prompt": "x"}, {"prompt": talk}, {"messages": [*talk, {"role": "assistant", "content": "b"}]}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_prompts(file) == rows
    file.write_text('{"prompt": "x"}\n{"text": "x"}\n')
    with pytest.raises(ValueError, match="p.jsonl, row 2 has no `prompt`; it has text"):
        read_prompts(file)
    with pytest.raises(ValueError, match="max_length = 0 leaves no token"):
        encode_prompts(rows, None, max_length=0)
