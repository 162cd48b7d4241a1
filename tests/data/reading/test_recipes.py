"""Rows in the shapes that data sets have: what they become, what is said, and what is asked."""

import datetime
import decimal
import json

import numpy as np
import pytest

from jaxrl.data.linting import lint
from jaxrl.data.prompts import read_prompts
from jaxrl.data.reading.recipes import FORMATS, RECIPES, named, plain, take
from jaxrl.data.rows import given_rows, question, read, understand
from jaxrl.data.settings import DataConfig
from jaxrl.types import InputError

Q, R = "\n\nHuman: q\n\nAssistant:", "\n\nHuman: r\n\nAssistant:"
HH = {"chosen": f"{Q} yes", "rejected": f"{Q} no"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


TALK = [user("q"), assistant("a")]
PAIR = {"prompt": [user("q")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}
ANSWER = {"prompt": [user("q")], "completion": [assistant("a")]}
SHAPES = [  # (the recipe that "auto" takes, a row, what it becomes)
    ("sharegpt", {"conversations": [human("q"), gpt("a")]}, {"messages": TALK}),
    ("sharegpt", {"conversations": TALK}, {"messages": TALK}),
    ("sharegpt", {"conversation": [human("q"), {"from": "chatgpt", "value": "a"}]}, {"messages": TALK}),
    ("sharegpt", {"messages": [user("q") | {"role": "human"}, assistant("a") | {"role": "gpt"}]}, {"messages": TALK}),
    ("sharegpt", {"messages": [user("q") | {"role": "User"}, assistant("a") | {"role": "GPT"}]}, {"messages": TALK}),
    ("sharegpt", [human("q"), gpt("a")], {"messages": TALK}),
    ("sharegpt", {"conversations": {"from": ["human", "gpt"], "value": ["q", "a"]}}, {"messages": TALK}),
    ("sharegpt", {"conversations": [human("q")], "chosen": gpt("yes"), "rejected": gpt("no")}, PAIR),
    ("sharegpt", {"prompt": [human("q")], "chosen": [gpt("yes")], "rejected": [gpt("no")]}, PAIR),
    (
        "sharegpt",
        {"chosen": [human("q"), gpt("yes")], "rejected": [human("q"), gpt("no")]},
        {"chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]},
    ),
    ("orca", {"system": "s", "question": "q", "chosen": "yes", "rejected": "no"}, {"system": "s", **PAIR}),
    ("plain", {"question": "q", "chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]}, {
        "chosen": [user("q"), assistant("yes")], "rejected": [user("q"), assistant("no")]
    }),
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, ANSWER),
    ("alpaca", {"instruction": "q", "input": None, "output": "a", "text": "Below is q"}, ANSWER),
    ("alpaca", {"instruction": "q", "input": "i", "output": "a"}, ANSWER | {"prompt": [user("q\n\ni")]}),
    ("alpaca", {"instruction": "q", "context": "i", "response": "a"}, ANSWER | {"prompt": [user("q\n\ni")]}),
    ("alpaca", {"instruction": "q", "input": "", "chosen": "yes", "rejected": "no"}, PAIR),
    (
        "alpaca",
        {"instruction": "q", "output": "a", "history": [["b", "c"]]},
        ANSWER | {"prompt": [user("b"), assistant("c"), user("q")]},
    ),
    ("qa", {"question": "q", "answer": "a"}, ANSWER),
    ("qa", {"query": "q", "response": "a"}, ANSWER),
    (
        "qa",
        {"query": "q", "response": "a", "history": [["b", "c"]]},
        ANSWER | {"prompt": [user("b"), assistant("c"), user("q")]},
    ),
    ("qa", {"system_prompt": "s", "question": "q", "response": "a"}, {"system": "s", **ANSWER}),
    ("json", {"messages": json.dumps(TALK)}, {"messages": TALK}),
    ("json", {"conversations": json.dumps([human("q"), gpt("a")])}, {"messages": TALK}),
    ("json", {"chosen": json.dumps(TALK), "rejected": json.dumps([user("q"), assistant("no")])}, {
        "chosen": TALK, "rejected": [user("q"), assistant("no")]
    }),
    ("plain", {"prompt": "q", "completion": "a", "question": "?"}, {"prompt": "q", "completion": "a"}),
    ("plain", {"messages": TALK, "conversations": [human("?")]}, {"messages": TALK}),
    ("plain", {"prompt": "q", "chosen": "yes", "rejected": "no", "messages": None}, {"prompt": "q"}),
]  # fmt: skip


@pytest.mark.parametrize("name, row, expected", SHAPES)
def test_shapes_that_can_only_be_meant_in_one_way(name, row, expected):
    others = {"score": 3, "label": True} if isinstance(row, dict) else {}
    rows, notes = given_rows([{**row, **others} if others else row])
    (made,) = rows
    assert {k: v for k, v in made.items() if k in expected or k in others} == {**expected, **others}
    assert notes == ([] if name == "plain" else [f"rows are taken as {name}: {RECIPES[name].about}"])
    assert given_rows(rows).rows == rows and not given_rows(rows).notes, "a second time there is nothing to do"
    if name != "plain":
        assert given_rows([row], name).rows == given_rows([row]).rows


ASKED = [  # (the recipe, a row, what it becomes by it)
    ("hh", HH, {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " yes", "rejected": " no"}),
    ("hh", {"prompt": "\n\nHuman: q\n\nAssistant:", **HH}, {"chosen": " yes", "rejected": " no"}),
    ("hh", {"prompt": "q", **HH}, {"prompt": "\n\nHuman: q\n\nAssistant:"}),
    ("qa", {"prompt": "q", "response": "a"}, ANSWER),
    ("qa", {"input": "q", "output": "a"}, ANSWER),
]  # fmt: skip


@pytest.mark.parametrize("name, row, expected", ASKED)
def test_shapes_that_may_be_meant_otherwise_are_asked_for(name, row, expected):
    with pytest.raises(InputError, match=rf"^row 1 has .*; say format = '{name}' \(--format {name}\) for "):
        given_rows([row])
    (made,), _ = given_rows([row], name)
    assert {k: made[k] for k in expected} == expected
    if "prompt" in row and "chosen" in row:  # the other remedy of the sentence works as well
        assert given_rows([row], "plain").rows == [row]


def test_recipes_that_are_named_take_more_than_is_sure():
    texts = {"system": "s", "prompt": "q", "chosen": "yes", "rejected": "no"}
    assert given_rows([texts], "orca").rows == [{"system": "s", **PAIR}]
    assert given_rows([{"system": "s", "prompt": "q", "completion": "a"}], "orca").rows == [{"system": "s", **ANSWER}]
    assert named({"prompt": '[{"role": "user"', "completion": "c"}) == "plain"  # it begins like JSON, and is none


def test_two_recipes_that_fit_are_asked_about():
    row = {"instruction": "i", "output": "o", "question": "q", "answer": "a"}
    with pytest.raises(InputError, match=r"say format = 'alpaca' .*; or format = 'qa'"):
        given_rows([row])
    assert given_rows([row], "qa").rows[0]["prompt"] == [user("q")]


@pytest.mark.parametrize(
    "chosen, rejected, expected",
    [
        (f"{Q} a{R} x", f"{Q} a{R} y", (f"{Q} a{R}", " x", " y")),
        (f"{Q} yes", f"{Q} yes, sir", (Q, " yes", " yes, sir")),  # what both begin their answer with is answer
        (f"{Q} a{R} x", f"{Q} b", (Q, f" a{R} x", " b")),
    ],
)
def test_the_prompt_of_dialogues_ends_where_the_last_shared_turn_begins(chosen, rejected, expected):
    (made,), notes = given_rows([{"chosen": chosen, "rejected": rejected}], "hh")
    assert (made["prompt"], made["chosen"], made["rejected"]) == expected
    assert ("1 of 1 rows part before the last answer" in notes[-1]) == ("Human:" in expected[1])


def test_calls_of_functions():
    calls = [
        human("q"), {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "5"}, gpt("It is 5"),
    ]  # fmt: skip
    (made,), _ = take([("row 1", {"conversations": calls})], "auto", lambda row: None)
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert made["messages"] == [
        user("q"), {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "5"}, assistant("It is 5"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "format, row, message",
    [
        ("hh", {"chosen": "x", "rejected": "y"}, "has no `chosen` and `rejected` that begin with 'Human:'"),
        ("hh", {**HH, "prompt": "other"}, "has a prompt that its dialogues do not repeat"),
        ("hh", {"chosen": f"{Q} yes", "rejected": f"{R} no"}, "has dialogues that part before the first"),
        ("auto", {"conversations": [{"from": "narrator", "value": "a"}]}, "has a message by 'narrator'; rename"),
        ("auto", {"conversations": ["q", "a"]}, "has message 'q'; it must be {from, value}"),
        ("auto", {"conversations": [human("q")]}, "has `messages` that do not end with the assistant's"),
        ("auto", {"conversations": {"from": ["human"], "value": []}}, "has from, value of several lengths"),
        ("auto", {"conversations": [{"from": "function_call", "value": "f(x)"}]}, "has function_call .* not JSON"),
        ("json", {"messages": str(TALK)}, "has messages .*, which is not JSON .*json.dumps"),
        ("auto", {"question": "q"}, "has no `completion`"),
        ("auto", {"question": 3, "answer": "a"}, "has no text as `question` or `query`"),
        ("auto", {"question": "q", "answer": 3}, "has completion .*3.*; each message must be"),
        ("auto", {"instruction": "i", "input": ["x"], "output": "o"}, "has no text as `input`"),
        ("auto", {"instruction": "i", "history": "x", "output": "o"}, "has history 'x'; it must be a list of"),
        ("alpaca", {"instruction": None, "output": "o"}, "has no `instruction`; it has instruction, output"),
        ("orca", {"question": "q", "chosen": "x"}, "has no `rejected`"),
        ("alpaca", ["x"], "is .*, not an object"),
        ("sharegpt", "x", "is 'x', not an object"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_named_with_the_recipe(format, row, message):
    with pytest.raises(InputError, match=f"^row 1 {message}.* .taken as "):
        given_rows([row], format)


@pytest.mark.parametrize(
    "row",
    [
        {"text": "t"},
        {"question": "q", "choices": ["a", "b"], "answer": 1},  # a question that is nothing without what stands beside
        {"question": "q", "context": "c", "answers": {"text": ["a"]}},
        {"query": "q", "response": "a", "rejected_response": "b"},
        {"question": "q", "response_chosen": "a", "response_rejected": "b"},
        {"completion": TALK, "label": True},
        {"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]},
        {"prompt": "q", "chosen": "x", "rejected": None},
        {"conversation_a": TALK, "conversation_b": TALK, "winner": "model_a"},
        "text",
        ["text"],
        None,
    ],
)
def test_other_shapes_are_left_to_the_sentence_of_rows(row):
    assert named(row) == "plain"
    with pytest.raises(InputError, match="^row 1 (has no|is) [^(]*a row is "):
        given_rows([row])


def test_all_rows_are_taken_as_the_first():
    with pytest.raises(InputError, match="^row 2 has no `instruction`.*taken as alpaca"):
        given_rows([{"instruction": "q", "output": "a"}, {"prompt": "q", "completion": "a"}])
    with pytest.raises(InputError, match="format = 'sharegtp' is not one of 'auto', .*; did you mean 'sharegpt'"):
        given_rows([{}], "sharegtp")
    assert FORMATS[:2] == ("auto", "plain")


def test_iterables_are_gone_through_once():
    rows = ({"prompt": "q", "completion": str(i)} for i in range(3))
    assert [row["completion"] for row in given_rows(rows).rows] == ["0", "1", "2"]
    for empty in ([], iter(())):
        with pytest.raises(InputError, match="there are no rows; give at least one of"):
            given_rows(empty)
    for none in ("file.jsonl", {"prompt": "p", "completion": "c"}):
        with pytest.raises(InputError, match="rows are .*, not a list of rows; a file is given by data.path"):
            given_rows(none)


def test_values_of_tables_become_what_json_holds():
    at = datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC)
    row = {
        "messages": np.array([{**user("q"), "at": at}, {**assistant("a"), "cost": decimal.Decimal("0.5")}]),
        "n": decimal.Decimal(3), "nan": decimal.Decimal("nan"), "x": np.float32(0.5), "day": at.date(), "raw": b"\xff",
        "took": datetime.timedelta(seconds=1), "pair": (1, [at.time()]),
    }  # fmt: skip
    (made,), _ = given_rows([row])
    talk = [{**user("q"), "at": "2024-01-02T00:00:00+00:00"}, {**assistant("a"), "cost": 0.5}]
    assert made == {
        "messages": talk, "n": 3, "nan": "NaN", "x": 0.5, "day": "2024-01-02", "raw": b"\xff",
        "took": "0:00:01", "pair": [1, ["00:00:00"]],
    }  # fmt: skip
    assert understand(made).completions == [talk[1]] and plain(plain(row)) == made


def test_prompts_by_recipe(tmp_path):
    file = tmp_path / "p.jsonl"

    def prompts(*rows, format="auto"):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [question(row).prompt for row in read_prompts(file, format=format)]

    assert prompts({"question": "q"}) == prompts({"instruction": "q", "input": ""}) == [[user("q")]]
    assert prompts({"conversations": [human("q"), gpt("a")]}) == prompts({"prompt": [human("q")]}) == [[user("q")]]
    assert prompts({"prompt": "q", "answer": "a"}) == ["q"]  # the answer is for others to check
    assert prompts(HH, format="hh") == [Q]
    with pytest.raises(InputError, match="p.jsonl, row 1 has .*say format = 'hh'"):
        prompts(HH)


def test_reading_and_the_report_say_what_was_taken(tmp_path, tokenizer):
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"conversations": [human("q"), gpt("a")]}) + "\n")
    (note,) = read(file).notes
    assert f"1 rows of completions (messages)\n{note}\n" in lint(DataConfig(str(file)), tokenizer)
    file.write_text(json.dumps(HH) + "\n")
    report = lint(DataConfig(str(file), format="hh"), tokenizer)
    assert "rows are taken as hh: " in report and "Assistant:« yes<|im_end|>»" in report


@pytest.mark.parametrize("role", ["human", "prompter", "gpt", "chatbot", "ai", "model", "User", "Developer"])
def test_a_role_that_is_refused_is_read_by_the_recipe_that_the_sentence_names(role):
    talk = [{"role": role, "content": "q"}, assistant("a")]
    with pytest.raises(InputError, match=f"role '{role}' .*data.format = 'sharegpt'"):
        given_rows([{"messages": talk}], "plain")
    (made,) = given_rows([{"messages": talk}], "sharegpt").rows
    assert understand(made).prompt[0]["content"] == "q"
