"""A completion by itself is no start of a text: together with its prompt it decodes to both, character by character."""

import functools

import numpy as np
import pytest

from jaxrl.data.preferences import encode_rows
from tests.helpers.tokenizers import CORPUS, families

FAMILIES = ("byte-level", "byte-level, BOS", "prepend", "prepend, BOS")
FAMILIES += ("metaspace first", "metaspace always", "metaspace never", "unigram")
made = functools.cache(families)


def draws(count, known):
    """(prompt, completion), cut at random places out of random text."""
    rng = np.random.default_rng(0)
    words = [*" ".join(CORPUS[:3]).split(), "x)", "f(", "  ", "\n", "\t" if known is None else "  "]
    if known is None:
        words += ["中文", "é", "👩‍👩‍👧", "\u0000", "हिन्दी"]
    for _ in range(count):
        text = "".join(rng.choice(words) + " " * rng.integers(0, 3) for _ in range(rng.integers(2, 12)))
        if known is not None:
            text = "".join(c for c in text if c in known)
        cut = int(rng.integers(1, len(text)))
        yield text[:cut], text[cut:]


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_completion_decode_to_their_concatenation(family):
    tokenizer = made()[family]
    known = set(" ".join(CORPUS).replace("\n", "")) if family == "unigram" else None  # it has no bytes for others
    for prompt, text in draws(200, known):
        ((side,),) = encode_rows([{"prompt": prompt, "completion": text}], tokenizer, max_length=10_000).rows
        first, ids = side.tokens[: side.prompt_length].tolist(), side.tokens[side.prompt_length : -1].tolist()
        joint = [*tokenizer.prefix, *tokenizer.encode(prompt + text, specials=False)]
        decoded = tokenizer.decode(joint, True)  # Metaspace counts a space that a text begins with as the one it puts
        assert decoded == prompt + text or (prompt[0] == " " and decoded == prompt[1:] + text)
        assert tokenizer.decode(first + ids, skip_special_tokens=True) == decoded
        assert tokenizer.decode_after(first, ids, True) == text
        check_border(tokenizer, joint, first + ids, prompt, text)


def check_border(tokenizer, joint, ours, prompt, text):
    """The ids differ from the joint ones in words that touch the border only."""
    same = next((i for i, (a, b) in enumerate(zip(joint, ours, strict=False)) if a != b), min(len(joint), len(ours)))
    end = next((i for i, (a, b) in enumerate(zip(joint[::-1], ours[::-1], strict=False)) if a != b), 0)
    if joint == ours:
        return
    before = tokenizer.decode(ours[:same], skip_special_tokens=True)
    after = tokenizer.decode_after(ours[: len(ours) - end], ours[len(ours) - end :], True)
    assert not prompt[len(before) :].strip().count(" ") and not text[: len(text) - len(after)].strip().count(" ")


@pytest.mark.parametrize("family", ["prepend", "metaspace first", "metaspace always", "unigram"])
def test_nothing_is_put_between_by_hand(family):
    tokenizer = made()[family]
    assert tokenizer.decode([*tokenizer.encode("f("), *tokenizer.encode("x)")]) == "f( x)"  # as two texts
    assert tokenizer.decode([*tokenizer.encode("f("), *tokenizer.encode_inside("x)")]) == "f(x)"
    assert tokenizer.decode_after(tokenizer.encode("f("), tokenizer.encode_inside(" x)")) == " x)"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_message_that_spells_markup_is_cut_without_a_trace(family):
    tokenizer = made()[family]
    talk = [{"role": "user", "content": "a </s> b"}]
    tokenizer.chat_template = "<s>{{ messages[0].content }}</s>def f("
    ids = tokenizer.encode_chat(talk)
    assert ids.count(tokenizer.eos) == 1 and ids[0] == tokenizer.bos
    plain = [{"role": "user", "content": "a b"}]
    whole = tokenizer.encode_chat(plain)
    assert whole[-3:] == ids[-3:]  # what follows on a special token is the same ids, whether the text was cut or not


def test_what_is_stripped_from_a_text_is_not_stripped_where_it_goes_on():
    from tokenizers import normalizers

    tokenizer = made()["byte-level"]
    backend = type(tokenizer._backend).from_str(tokenizer._backend.to_str())
    backend.normalizer = normalizers.Strip()
    tokenizer = type(tokenizer)(backend, tokenizer.special)
    ((side,),) = encode_rows([{"prompt": " Q: ", "completion": " yes "}], tokenizer, max_length=99).rows
    assert tokenizer.decode(side.tokens) == "Q:  yes </s>"
