import numpy as np
import pytest

from jaxrl.data.fingerprints import fingerprint
from jaxrl.data.kinds import unpair
from jaxrl.data.preferences import Completions, Pairs, bucketed, encode_rows

EOS, BOS, AB = 257, 256, 258  # "a" is 97: see conftest


def ids(text):
    return list(text.encode())


def one(row, tokenizer, **options):
    (sides,) = encode_rows([row], tokenizer, **{"max_length": 100, **options}).rows
    return sides


def completion(prompt, text):
    return {"prompt": prompt, "completion": text}


def parts(side):
    return side.tokens[: side.prompt_length].tolist(), side.tokens[side.prompt_length :].tolist()


def test_prompt_completion_and_end_by_hand(tokenizer):
    # "Hi" = 72 105, "yo" = 121 111, then EOS
    (side,) = one(completion("Hi", "yo"), tokenizer)
    np.testing.assert_array_equal(side.tokens, [72, 105, 121, 111, EOS])
    assert side.tokens.dtype == np.int32 and side.prompt_length == 2 and side.label is None


def test_no_token_spans_the_boundary(tokenizer):
    assert tokenizer.encode("xaby") == [120, AB, 121]  # tokenised together, "ab" is one token
    (side,) = one(completion("xa", "by"), tokenizer)
    assert parts(side) == ([120, 97], [98, 121, EOS])


@pytest.mark.parametrize("prompt", ["p", "ends in a", "", "trailing ", "中"])
@pytest.mark.parametrize("text", ["b", " word", "\n", "ab<|im_end|>", "é"])
def test_always_the_prompts_ids_then_the_completions_then_end(prompt, text, bos_tokenizer):
    (side,) = one(completion(prompt, text), bos_tokenizer)
    assert parts(side) == ([BOS, *bos_tokenizer.encode(prompt)], [*bos_tokenizer.encode(text, specials=False), EOS])


def test_nothing_is_put_before_a_response_and_bos_stands_before_the_prompt_only(bos_tokenizer):
    chosen, rejected = one({"prompt": "p", "chosen": "good", "rejected": "bad"}, bos_tokenizer)
    assert parts(chosen) == ([BOS, *ids("p")], [*ids("good"), EOS])
    assert parts(rejected) == ([BOS, *ids("p")], [*ids("bad"), EOS])


def test_common_opening_words_of_both_answers_belong_to_the_answers(tokenizer):
    chosen, rejected = one({"prompt": "p", "chosen": "It is good", "rejected": "It is bad"}, tokenizer)
    assert chosen.prompt_length == rejected.prompt_length == 1
    assert parts(chosen)[1] == [*ids("It is good"), EOS]


def test_messages_go_through_the_template_and_the_answer_is_its_content(tokenizer):
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yo"}]}
    (side,) = one(row, tokenizer)
    prompt = [BOS, *ids("user\nHi"), EOS, *ids("\n"), BOS, *ids("assistant\n")]
    assert parts(side) == (prompt, [*ids("yo"), EOS, *ids("\n")])  # the template writes its end, and a line after it


def test_markup_in_text_or_messages_stays_text_and_is_counted(tokenizer):
    evil = "x<|im_end|>"
    rows = [completion(evil, evil)]
    (side,) = encode_rows(rows, tokenizer, max_length=100).rows[0]
    assert parts(side) == (ids(evil), [*ids(evil), EOS])
    talk = [{"messages": [{"role": "user", "content": evil}, {"role": "assistant", "content": evil}]}]
    encoded = encode_rows(talk, tokenizer, max_length=100)
    assert encoded.rows[0][0].tokens.tolist().count(EOS) == 2  # the end of the user's turn, the end of the answer
    assert encoded.counts["markup"] == 1
    assert encode_rows([completion("p", "c")], tokenizer, max_length=9).counts["markup"] == 0


# Truncation. 10 tokens of prompt "0123456789", 6 of "abcdef" + EOS would be: "ab" is one token, so "ghijkl" is used.
PROMPT, ANSWER = "0123456789", "ghijkl"


@pytest.mark.parametrize(
    "max_length, max_prompt_length, prompt, answer",
    [
        (17, None, PROMPT, [*ids(ANSWER), EOS]),  # 10 + 6 + 1: it all fits
        (16, None, PROMPT[1:], [*ids(ANSWER), EOS]),  # the completion leaves 9, half is 8
        (13, None, PROMPT[4:], [*ids(ANSWER), EOS]),  # the completion leaves 6, half is 6
        (10, None, PROMPT[5:], ids(ANSWER[:5])),  # half is 5: more than the 3 left
        (2, None, PROMPT[9:], ids(ANSWER[:1])),
        (17, 4, PROMPT[6:], [*ids(ANSWER), EOS]),
        (16, 15, PROMPT, ids(ANSWER)),  # room for all but the EOS: it is truncated
        (12, 10, PROMPT, ids(ANSWER[:2])),
        (10, 9, PROMPT[1:], ids(ANSWER[:1])),
    ],
)
def test_how_space_is_split(tokenizer, max_length, max_prompt_length, prompt, answer):
    encoded = encode_rows(
        [completion(PROMPT, ANSWER)], tokenizer, max_length=max_length, max_prompt_length=max_prompt_length
    )
    assert parts(encoded.rows[0][0]) == (ids(prompt), answer)
    assert encoded.counts["truncated_prompts"] == (prompt != PROMPT)
    assert encoded.counts["truncated_completions"] == (answer[-1] != EOS)


def test_the_longer_side_of_a_pair_decides_how_far_the_prompt_of_both_is_cut(tokenizer):
    # 10 tokens of prompt, 1 + EOS and 6 + EOS of answers in 15: the longer answer leaves 8
    row = {"prompt": PROMPT, "chosen": "g", "rejected": ANSWER}
    chosen, rejected = one(row, tokenizer, max_length=15)
    assert parts(chosen) == (ids(PROMPT[2:]), [*ids("g"), EOS])
    assert parts(rejected) == (ids(PROMPT[2:]), [*ids(ANSWER), EOS])


def test_properties_of_truncation(tokenizer):
    rng = np.random.default_rng(0)
    for _ in range(300):
        p, c, r, length = rng.integers(1, 30, 4)
        limit = None if rng.random() < 0.5 or length == 1 else int(rng.integers(1, length + 1))
        row = {"prompt": "p" * p, "chosen": "c" * c, "rejected": "r" * r}
        chosen, rejected = one(row, tokenizer, max_length=int(length) + 1, max_prompt_length=limit)
        assert chosen.prompt_length == rejected.prompt_length == min(p, chosen.prompt_length) >= 1
        if limit is None and p < length // 2:
            assert chosen.prompt_length == p
        for side, whole in ((chosen, c), (rejected, r)):
            answer = parts(side)[1]
            assert 1 <= len(answer) <= length + 1 - side.prompt_length
            assert (answer[-1] == EOS) == (len(answer) == whole + 1)
            assert len(answer) == whole + 1 or len(side.tokens) == length + 1  # cut only where space ran out


def test_a_long_chat_keeps_its_generation_prompt(tokenizer):
    row = {"messages": [{"role": "user", "content": "x" * 200}, {"role": "assistant", "content": "yo"}]}
    (side,) = one(row, tokenizer, max_length=40)
    prompt, answer = parts(side)
    assert prompt[-11:] == [BOS, *ids("assistant\n")] and len(side.tokens) == 40
    assert answer == [*ids("yo"), EOS, *ids("\n")]


def test_a_cut_prompt_keeps_the_bos_that_the_tokenizer_adds(bos_tokenizer):
    (side,) = one(completion(PROMPT, "g"), bos_tokenizer, max_length=6)
    assert parts(side) == ([BOS, *ids("789")], [*ids("g"), EOS])


def test_end_counts_as_a_real_token_although_padding_is_the_same_id(tokenizer):
    assert tokenizer.pad == tokenizer.eos
    (batch,) = bucketed(encode_rows([completion("p", "yo"), completion("p", "y")], tokenizer, max_length=9), [8])
    np.testing.assert_array_equal(batch.length, [4, 3])
    np.testing.assert_array_equal(batch.tokens[1], [112, 121, EOS, EOS, EOS, EOS, EOS, EOS])
    trained = (np.arange(8) >= batch.prompt_length[:, None]) & (np.arange(8) < batch.length[:, None])
    np.testing.assert_array_equal(trained.sum(1), [3, 2])
    assert (batch.tokens[trained] == EOS).sum() == 2


def test_what_is_dropped_and_what_is_counted(tokenizer):
    pair = {"prompt": "p", "chosen": "c", "rejected": "r"}
    rows = [
        pair,
        pair,
        {**pair, "rejected": "c"},
        {**pair, "rejected": ""},
        {**pair, "prompt": ""},
        {**pair, "chosen": "long" * 9 + "x", "rejected": "long" * 9 + "y"},  # alike once they are cut
    ]
    encoded = encode_rows(rows, tokenizer, max_length=20)
    expected = {"rows": 6, "kept": 2, "duplicates": 1, "identical": 2, "empty_completions": 1, "empty_prompts": 1}
    assert encoded.counts == {"truncated_prompts": 0, "truncated_completions": 0, "markup": 0, "unknown": 0} | expected


def test_an_empty_prompt_needs_a_bos(tokenizer, bos_tokenizer):
    (side,) = one(completion("", "c"), bos_tokenizer)
    assert parts(side) == ([BOS], [*ids("c"), EOS])
    with pytest.raises(ValueError, match="none of 1 rows is left .*empty_prompts 1"):
        encode_rows([completion("", "c")], tokenizer, max_length=9)


def test_prompt_ids_are_equal_for_equal_prompts_whatever_the_truncation(tokenizer):
    rows = [completion("q" * 8, "c"), completion("other", "c"), completion("q" * 8, "d" * 9)]
    (batch,) = bucketed(encode_rows(rows, tokenizer, max_length=10), [10])
    assert batch.prompt_length[0] != batch.prompt_length[2]
    np.testing.assert_array_equal(batch.prompt_id, [0, 1, 0])


def test_each_row_lies_in_the_smallest_bucket_that_holds_it(tokenizer):
    rows = [completion("p", "c" * n) for n in (1, 2, 3, 6, 5)]  # 3, 4, 5, 8, 7 tokens
    short, long = bucketed(encode_rows(rows, tokenizer, max_length=99), [8, 4, 6, 16])[::2]
    np.testing.assert_array_equal(short.length, [3, 4])
    np.testing.assert_array_equal(long.length, [8, 7])
    assert short.tokens.shape == (2, 4) and long.tokens.shape == (2, 8)
    assert [b.tokens.shape[1] for b in bucketed(encode_rows(rows, tokenizer, max_length=99), [4, 8, 16])] == [4, 8]


def test_pairs_go_by_the_longer_side_and_stay_together(tokenizer):
    rows = [{"prompt": "p", "chosen": "c", "rejected": "r" * n} for n in (1, 5)]
    short, long = bucketed(encode_rows(rows, tokenizer, max_length=99), [3, 7])
    assert isinstance(short, Pairs) and isinstance(short.chosen, Completions)
    assert short.chosen.tokens.shape == (1, 3) and long.chosen.tokens.shape == long.rejected.tokens.shape == (1, 7)
    np.testing.assert_array_equal(long.rejected.length, [7])
    np.testing.assert_array_equal(long.chosen.tokens, [[112, 99, EOS, EOS, EOS, EOS, EOS]])
    assert long.chosen.label is None


def test_a_row_too_long_for_every_bucket_is_an_error(tokenizer):
    encoded = encode_rows([completion("p", "c" * 9)], tokenizer, max_length=99)
    with pytest.raises(ValueError, match=r"longest row has 11 tokens, more than buckets = \[8, 4\] hold; add 11"):
        bucketed(encoded, [8, 4])


def test_labels_become_ones_and_zeros(tokenizer):
    rows = unpair([{"prompt": "p", "chosen": "good", "rejected": "bad"}], seed=0)
    (batch,) = bucketed(encode_rows(rows, tokenizer, max_length=9), [9])
    words = [bytes(t[1 : n - 1].astype(np.uint8)) for t, n in zip(batch.tokens, batch.length, strict=True)]
    told = dict(zip(words, batch.label, strict=True))
    assert told == {b"good": 1.0, b"bad": 0.0} and batch.label.dtype == np.float32
    np.testing.assert_array_equal(batch.prompt_id, [0, 0])


def test_a_fingerprint_changes_with_tokens_boundary_label_and_order_only(tokenizer):
    def mark(*rows):
        return fingerprint(encode_rows(rows, tokenizer, max_length=20).rows)

    a, b = completion("pq", "c"), completion("p", "d")
    assert mark(a, b) == mark(a, b | {"movie": 3})
    good, bad = a | {"label": True}, a | {"label": False}
    assert len({mark(a, b), mark(b, a), mark(a), mark(completion("p", "qc")), mark(good), mark(bad)}) == 6


@pytest.mark.parametrize(
    "rows, options, message",
    [
        ([completion("p", "c"), {"prompt": "p"}], {}, "row 2 has no `completion`; it has prompt"),
        (
            [completion("p", "c"), completion("p", "c") | {"label": True}],
            {},
            "row 2 is of labelled .*encode them apart",
        ),
        ([completion("p", "c")], {"max_length": 1}, "max_length = 1 holds no prompt and completion"),
        ([completion("p", "c")], {"max_prompt_length": 9}, "max_prompt_length = 9 leaves no room; .*less than .* 9"),
        ([completion("p", "c")], {"max_prompt_length": 0}, "max_prompt_length = 0 leaves no room"),
    ],
)
def test_mistakes_are_sentences(tokenizer, rows, options, message):
    with pytest.raises(ValueError, match=message):
        encode_rows(rows, tokenizer, **{"max_length": 9, **options})


def test_a_template_that_refuses_is_named_with_its_row(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(ValueError, match="row 1 .*refuses the messages: roles must alternate"):
        encode_rows([row], tokenizer, max_length=9)
