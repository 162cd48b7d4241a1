"""Which rows an algorithm learns from: the table of jaxrl/data/kinds.py, cell by cell."""

import pytest

from jaxrl.data.kinds import rows_for

TEXT = {"prompt": "p", "chosen": "good", "rejected": "bad", "score": 3}
USER = {"role": "user", "content": "q"}


def said(text):
    return [{"role": "assistant", "content": text}]


def talk(text):
    return [USER, *said(text)]


SPOKEN = {"prompt": "q", "chosen": talk("good"), "rejected": talk("bad")}
ANSWER = {"prompt": "p", "completion": "good"}


def test_sft_takes_the_messages_of_pairs_or_else_the_chosen_answers():
    rows, note, _ = rows_for("answers", [SPOKEN | {"messages": talk("better")}])
    assert rows == [{"messages": talk("better")}] and note == "1 pairs, of which `messages` are learned from"
    rows, note, _ = rows_for("answers", [TEXT])
    assert rows == [ANSWER | {"score": 3}] and note == "1 pairs, of which the chosen answers are learned from"
    assert rows_for("answers", [SPOKEN | {"system": "s"}]).rows == [
        {"prompt": [{"role": "system", "content": "s"}, USER], "completion": said("good")}
    ]


def test_sft_takes_the_good_ones_of_labelled_rows_and_says_so():
    given = [ANSWER | {"label": True}, ANSWER | {"label": 0}, ANSWER | {"label": 1.0}]
    rows, note, numbers = rows_for("answers", given)
    assert rows == [ANSWER, ANSWER] and numbers == [1, 3] and note.startswith("2 of 3 rows, those labelled true")
    with pytest.raises(ValueError, match="all 1 rows are labelled false, .*use KTO"):
        rows_for("answers", [ANSWER | {"label": False}])


def test_kto_takes_each_pair_apart():
    rows, note, numbers = rows_for("labels", [TEXT])
    assert numbers == [1, 1]
    expected = [ANSWER | {"label": True, "score": 3}, ANSWER | {"completion": "bad", "label": False, "score": 3}]
    assert sorted(rows, key=lambda row: not row["label"]) == expected
    assert note == "1 pairs, each taken as a good and a bad answer"


@pytest.mark.parametrize(
    "learns_from, row",
    [
        ("answers", ANSWER),
        ("answers", {"messages": talk("a")}),
        ("pairs", TEXT),
        ("pairs", SPOKEN),
        ("comparisons", SPOKEN),
        ("labels", ANSWER | {"label": False}),
        ("any", TEXT),
        ("any", ANSWER),
    ],
)
def test_rows_of_its_own_kind_are_as_they_are(learns_from, row):
    assert rows_for(learns_from, [row]) == ([row], "", [1])


@pytest.mark.parametrize(
    "learns_from, row, message",
    [
        ("pairs", ANSWER, "DPO learns from .*have one answer each; use SFT, or give each a rejected answer"),
        ("pairs", {"messages": talk("a")}, "DPO learns from"),
        ("pairs", ANSWER | {"label": True}, "DPO learns from .*one labelled answer each; use KTO"),
        ("comparisons", ANSWER, "a reward model learns from .*one answer each; give each a rejected answer"),
        ("comparisons", ANSWER | {"label": True}, "a reward model learns from .*one labelled answer each; pair good"),
        ("labels", ANSWER, "KTO learns from .*no label; give every row one, or use SFT"),
        ("labels", {"prompt": "p"}, "row 1 has no `completion`"),
    ],
)
def test_rows_that_it_cannot_learn_from(learns_from, row, message):
    with pytest.raises(ValueError, match=message):
        rows_for(learns_from, [row])
