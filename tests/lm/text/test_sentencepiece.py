"""SentencePiece's BPE out of GGUF metadata: the ids are those of sentencepiece itself (golden/pieces.json)."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxrl.lm.text.tokenizer import Tokenizer

MODELS = json.loads((Path(__file__).parent / "golden" / "pieces.json").read_text(encoding="utf-8"))["models"]


def tokenizer_of(model, **changes):
    """As from a file that says no more than it must: the ids of BOS, EOS and unknown are the format's own."""
    keys = {k: model[k] for k in ("tokens", "scores", "token_type", "add_space_prefix")} | {"model": "llama"} | changes
    fields = {f"tokenizer.ggml.{k}": SimpleNamespace(contents=lambda v=v: v) for k, v in keys.items()}
    return Tokenizer.from_gguf(SimpleNamespace(fields=fields))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["name"])
def test_ids_are_those_of_sentencepiece(model):
    tokenizer = tokenizer_of(model)
    assert len(model["strings"]) > 200
    for text, ids in model["strings"]:
        assert tokenizer.encode(text) == ids, text
        if model["name"] != "without bytes":  # which has no piece for some characters
            assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_ids_by_role():
    tokenizer = tokenizer_of(MODELS[0])
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad, tokenizer.prefix, tokenizer.stops) == (1, 2, None, [1], {2})
    assert tokenizer.encode("<s>") == [1] and 1 not in tokenizer.encode("<s>", specials=False)
    assert tokenizer_of(MODELS[0], add_bos_token=False).prefix == []


def test_merges_by_hand():
    # "abc": b+c has the better score (-1) than a+b (-2), so that a, bc are left, and abc is a + bc only
    tokens, types = ["<unk>", "<s>", "</s>", "a", "b", "c", "ab", "bc", "abc"], [2, 3, 3, *[1] * 6]
    keys = {"tokens": tokens, "token_type": types, "add_space_prefix": False}
    assert tokenizer_of({**keys, "scores": [0, 0, 0, -4, -5, -6, -2.0, -1.0, -3.0]}).encode("abc") == [8]
    assert tokenizer_of({**keys, "scores": [0, 0, 0, -4, -5, -6, -1.0, -2.0, -3.0]}).encode("abcab") == [8, 6]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"scores": [-0.5 * i for i in range(500)]},
            "scores are log-probabilities: .* unigram model; put the model's own",
        ),
        ({"scores": [-1000.0] * 500}, "scores are all -1000.0, which tells no order"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces changes the text"),
        ({"add_space_prefix": True, "token_type": [2, 3, 3, *[4] * 497]}, "user-defined pieces with spaces beside"),
        ({"unknown_token_id": 500}, "unknown_token_id = 500, but there are 500 tokens"),
    ],
)
def test_what_the_keys_cannot_tell_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        tokenizer_of(MODELS[0], **changes)
