"""Files as people bring them, read as training reads them: what is learned, or a sentence that names the row."""

import json

import pytest

from jaxrl.data import DataConfig, lint, prepare
from tests.helpers.tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()
USER, A, B = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "yes"), ("assistant", "no"))
)
ASKED = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
TERSE = "<|im_start|>system\nterse<|im_end|>\n" + ASKED
SYSTEM = {"role": "system", "content": "terse"}
PAIR = {"chosen": [USER, A], "rejected": [USER, B]}
SPOKEN = PAIR | {"prompt": "q", "prompt_id": "x", "messages": [USER, {"role": "assistant", "content": "best"}]}
KTO = {"prompt": "q", "completion": "yes"}
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}
NULLS = {"name": None, "tool_calls": None}


def learned(tmp_path, rows, learns_from, **options):
    """[(prompt, what is trained)] of the first sides of all rows; the report counts the same."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = DataConfig(str(file), held_out=0.0, **options)
    data, counts, notes = prepare(settings, TOKENIZER, learns_from=learns_from)
    assert f" {counts['kept']} of {counts['rows']} rows kept" in lint(settings, TOKENIZER, learns_from=learns_from)
    sides = data.train[0] if hasattr(data.train[0], "tokens") else data.train[0].chosen
    ids = [row[:n].tolist() for row, n in zip(sides.tokens, sides.length, strict=True)]
    cut = zip(ids, sides.prompt_length, strict=True)
    return [(TOKENIZER.decode(i[:p]), TOKENIZER.decode_after(i[:p], i[p:])) for i, p in cut], notes


END = "<|im_end|>"
TURN = END + "\n"


@pytest.mark.parametrize(
    "row, learns_from, prompt, trained",
    [
        (SPOKEN, "pairs", ASKED, "yes" + TURN),
        (SPOKEN, "answers", ASKED, "best" + TURN),
        (SPOKEN, "comparisons", ASKED, "yes" + END),  # where a policy ends, and its score is read
        ({"prompt": "q", "chosen": "yes", "rejected": "no"}, "comparisons", "q", "yes" + END),
        (KTO | {"label": 1}, "labels", "q", "yes" + END),
        (KTO | {"label": 1.0}, "labels", "q", "yes" + END),
        (KTO | {"label": True}, "answers", "q", "yes" + END),
        ({"prompt": [SYSTEM, USER], **PAIR}, "pairs", TERSE, "yes" + TURN),
        ({"prompt": [USER], "chosen": [USER | NULLS, A], "rejected": [USER | NULLS, B]}, "pairs", ASKED, "yes" + TURN),
        ({"prompt": "q", "system": "terse", **PAIR}, "pairs", TERSE, "yes" + TURN),
        ({"system": "terse", "question": "q", "chosen": "yes", "rejected": "no"}, "pairs", TERSE, "yes" + TURN),
        ({"messages": [USER | NULLS, A | NULLS], "tools": None}, "answers", ASKED, "yes" + TURN),
        (
            {"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "yes"}]},
            "any",
            ASKED,
            "yes" + TURN,
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "yes"}]},
            "any",
            ASKED,
            "yes" + TURN,
        ),
        ({"prompt": "Q: hi\nA: ", "completion": "yes  "}, "answers", "Q: hi\nA: ", "yes  " + END),
        ({"prompt": "👩‍👩‍👧 é", "chosen": " 🇨🇭", "rejected": "\u0000"}, "pairs", "👩‍👩‍👧 é", " 🇨🇭" + END),
    ],
)
def test_what_is_learned(tmp_path, row, learns_from, prompt, trained):
    assert learned(tmp_path, [row] * 3, learns_from)[0] == [(prompt, trained)] * 3


@pytest.mark.parametrize("options", [{"format": "hh"}, {"format": "orca"}])
def test_recipes_by_name(tmp_path, options):
    talk = "\n\nHuman: q\n\nAssistant:"
    rows = {"hh": {"chosen": f"{talk} yes", "rejected": f"{talk} no"}, "orca": {"system": "terse", "prompt": "q"}}
    rows["orca"] |= {"chosen": "yes", "rejected": "no"}
    expected = {"hh": (talk, " yes" + END), "orca": (TERSE, "yes" + TURN)}
    found, notes = learned(tmp_path, [rows[options["format"]]], "pairs", **options)
    assert found == [expected[options["format"]]] and f"taken as {options['format']}" in notes[0]
    with pytest.raises(ValueError, match=f"row 1 .*format = '{options['format']}'"):
        learned(tmp_path, [rows[options["format"]]], "pairs")


RENDERED = {"prompt": ASKED, "chosen": "yes" + TURN, "rejected": "no" + TURN}


def test_text_that_was_rendered_before_has_one_reading_which_is_told(tmp_path):
    (found,), _ = learned(tmp_path, [RENDERED], "pairs")
    assert found == (ASKED, "yes" + TURN + END)  # plain text, and its end after it
    (found,), _ = learned(tmp_path, [RENDERED], "pairs", markup="tokens")
    assert found == (ASKED, "yes" + TURN)  # its own end
    settings = DataConfig(str(tmp_path / "rows.jsonl"))
    assert " 1 rows spell a special token (kept, as plain text; data.markup = 'tokens'" in lint(settings, TOKENIZER)
    ids = [prepare(DataConfig(held_out=0.0, markup=m), TOKENIZER, [RENDERED]).data.train[0] for m in ("text", "tokens")]
    assert ids[0].chosen.tokens[0][0] == ord("<") and ids[1].chosen.tokens[0][0] == TOKENIZER.bos


def test_a_bos_that_a_text_spells_is_not_doubled():
    tokenizer = byte_tokenizer(adds_bos=True)
    for markup, count in (("text", 1), ("tokens", 2)):  # as tokens: the two of the text itself
        (rows,) = prepare(DataConfig(held_out=0.0, markup=markup), tokenizer, [RENDERED]).data.train
        assert rows.chosen.tokens[0].tolist().count(tokenizer.bos) == count


@pytest.mark.parametrize(
    "row, learns_from, message",
    [
        (KTO | {"label": "true"}, "labels", "row 2 has label 'true'; it must be true"),
        (KTO | {"label": "1"}, "labels", "row 2 has label '1'"),
        (KTO | {"label": -1}, "labels", "row 2 has label -1"),
        (KTO | {"label": None}, "labels", "row 2 is of completions .* first row is of labelled"),
        (KTO | {"label": 3}, "answers", "row 2 has label 3; .*drop the column if"),
    ],
)
def test_labels_that_say_nothing_name_the_row(tmp_path, row, learns_from, message):
    with pytest.raises(ValueError, match=message):
        learned(tmp_path, [KTO | {"label": True}, row], learns_from)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "q", "chosen": "x", "rejected": None}, "rows.jsonl, row 1 has no `rejected`"),
        ({"prompt": "q", "chosen": float("nan"), "rejected": "y"}, "rows.jsonl, row 1 has chosen nan"),
        ({"text": ASKED}, "row 1 has no `prompt`; it has text"),
        ({"messages": [USER, A, USER]}, "row 1 has `messages` that do not end with the assistant's"),
        ({"chosen": [USER, A, USER, A], "rejected": [USER, B]}, "row 1 has an answer of messages by assistant, user"),
        ({"messages": [A]}, "none of 1 rows is left .*empty_prompts 1"),
    ],
)
def test_rows_with_nothing_to_learn_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        learned(tmp_path, [row], "any")


def test_a_template_that_refuses_names_the_row_as_it_was_given(tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% if messages[0].content == 'odd' %}{{ raise_exception('no') }}{% endif %}x"
    rows = [PAIR, {"chosen": [USER | {"content": "odd"}, A], "rejected": [USER | {"content": "odd"}, B]}, PAIR]
    with pytest.raises(ValueError, match="row 2 the chat template refuses the messages: no"):
        prepare(DataConfig(), tokenizer, rows, learns_from="labels")
