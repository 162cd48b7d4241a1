import json

import pytest

from jaxrl.data.kinds import split_by_group, unpair
from jaxrl.data.rows import read_rows, understand

PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "lines, message",
    [
        (
            '{"prompt": "p", "completion": "c"}\n\n{oops\n',
            "x.jsonl, row 3: '{oops.*' is not JSON .*one object per line",
        ),
        ('{"prompt": "p", "text": "c"}\n', "x.jsonl, row 1 has no `completion`; it has prompt, text, and a row is"),
        ('{"prompt": "p", "chosen": "c"}\n', "row 1 has no `rejected`; it has prompt, chosen"),
        ('{"chosen": "a", "rejected": "b"}\n', "row 1 has no `prompt`"),
        ('{"prompt": "p", "completion": null}\n', "row 1 has no `completion`"),
        ('["p", "c"]\n', "row 1 is .*, not an object"),
        ('{"prompt": "p", "completion": 3}\n', "row 1 has completion 3; it must be text or a list"),
        ('{"prompt": [{"role": "user"}], "completion": "c"}\n', "row 1 has prompt .*each message must be"),
        ('{"prompt": "p", "completion": "c", "label": "yes"}\n', "row 1 has label 'yes'; it must be true"),
        (
            '{"messages": [{"role": "user", "content": "x"}]}\n',
            "row 1 has `messages` that do not end with the assistant",
        ),
        ('{"prompt": "p", "completion": "\\ud83d"}\n', "row 1 has .* in its completion, half a character"),
        ("\n", "x.jsonl has no rows"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, lines, message):
    (tmp_path / "x.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=message):
        read_rows(tmp_path / "x.jsonl")


def test_all_rows_must_be_of_the_first_ones_format(tmp_path):
    completion = {"prompt": "p", "completion": "c"}
    for second in (completion, {"prompt": [user("p")], "chosen": "a", "rejected": "b"}):
        with pytest.raises(ValueError, match="row 2 is of .*, but the first row is of pairs .text.; keep one format"):
            read_rows(write(tmp_path / "x.jsonl", [PAIR, second]))
    with pytest.raises(ValueError, match="row 2 is of completions"):
        read_rows(write(tmp_path / "x.jsonl", [completion | {"label": True}, completion]))


def test_messages_that_both_answers_repeat_are_the_prompt():
    opening = [user("a"), assistant("b"), user("c")]
    extra = [message | {"name": None} for message in opening]
    for row in (
        {"chosen": [*opening, assistant("yes")], "rejected": [*opening, assistant("no")]},
        {"prompt": "a", "chosen": [*opening, assistant("yes")], "rejected": [*opening, assistant("no")]},
        {"prompt": opening, "chosen": [*opening, assistant("yes")], "rejected": [*opening, assistant("no")]},
        {"prompt": opening, "chosen": [assistant("yes")], "rejected": [assistant("no")]},
        {"prompt": opening, "chosen": "yes", "rejected": "no"},
        {"prompt": opening, "chosen": [user("c"), assistant("yes")], "rejected": [user("c"), assistant("no")]},
        {"prompt": opening, "chosen": [*extra, assistant("yes")], "rejected": [*extra, assistant("no")]},
    ):
        assert understand(row)[:4] == ("pairs (messages)", opening, [assistant("yes"), assistant("no")], None)


def test_a_prompt_that_the_answers_repeat_in_other_words_is_told_once():
    system, other = {"role": "system", "content": "s"}, user("q ") | {"id": 1}
    for prompt, opening, expected in (
        ([user("q")], [system, user("q")], [system, user("q")]),
        ([system, user("q")], [other], [system, user("q")]),
        ([user("q")], [other], [user("q")]),
        ([system], [user("q")], [system, user("q")]),
    ):
        row = {"prompt": prompt, "chosen": [*opening, assistant("a")], "rejected": [*opening, assistant("b")]}
        assert understand(row).prompt == expected
    row = {
        "prompt": [user("p"), user("q")],
        "chosen": [user("p"), assistant("a")],
        "rejected": [user("p"), assistant("b")],
    }
    assert understand(row).prompt == row["prompt"]
    with pytest.raises(ValueError, match="the answers repeat a part; open both with all of it or with none"):
        part = [user("q"), user("r")]
        understand(
            {"prompt": [system, user("q")], "chosen": [*part, assistant("a")], "rejected": [*part, assistant("b")]}
        )


def test_thoughts_have_the_name_that_templates_read():
    for name in ("reasoning", "thinking", "reasoning_content"):
        (answer,) = understand({"messages": [user("q"), assistant("a") | {name: "t"}]}).completions
        assert answer["reasoning_content"] == answer["thinking"] == "t"


def test_null_is_a_value_where_tools_are_called():
    call = {"id": None, "function": {"name": "f", "arguments": {"unit": None}}}
    (answer,) = understand({"messages": [user("q"), assistant("") | {"tool_calls": [call]}]}).completions
    assert answer["tool_calls"] == [{"function": {"name": "f", "arguments": {"unit": None}}}]


def test_a_prompt_of_text_is_the_users_turn_where_the_answers_are_messages():
    pair = understand({"prompt": "p", "chosen": [assistant("a")], "rejected": [assistant("b")]})
    assert pair[:3] == ("pairs (messages)", [user("p")], [assistant("a"), assistant("b")])
    assert understand({"prompt": "p", "completion": [assistant("a")]}).prompt == [user("p")]


@pytest.mark.parametrize("message", [assistant("a"), {"role": "assistant", "tool_calls": [{"name": "f"}]}])
def test_keys_of_null_are_as_if_absent(message):
    nulls = message | {"content": message.get("content"), "thinking": None, "tool_calls": message.get("tool_calls")}
    row = {"messages": [user("q") | {"tool_calls": None}, nulls], "tools": None, "system": None}
    assert understand(row)[1:3] == ([user("q")], [message])


def test_parts_of_text_are_one_content():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert understand({"messages": [user(parts), assistant("c")]}).prompt == [user("ab")]
    with pytest.raises(ValueError, match="has messages with .*each message must be"):
        understand({"messages": [user([{"type": "image", "url": "x"}]), assistant("c")]})
    with pytest.raises(ValueError, match="each message must be"):
        understand({"messages": [user("q"), assistant([{"type": "thinking", "text": "hm"}])]})


def test_what_the_template_gets_beside_the_messages():
    tools = [{"name": "f", "parameters": {"x": None}, "strict": None}]
    row = {"messages": [user("q"), assistant("a")], "tools": json.dumps(tools), "documents": [{"text": "d"}]}
    found = understand(row | {"system": "Be terse.", "chat_template_kwargs": {"enable_thinking": False}})
    assert found.prompt == [{"role": "system", "content": "Be terse."}, user("q")]
    assert found.columns == {"tools": [{"name": "f", "parameters": {"x": None}}], "documents": [{"text": "d"}]} | {
        "enable_thinking": False
    }
    assert understand({"messages": [*found.prompt, assistant("a")], "system": "Be terse."}).prompt == found.prompt


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "q", "completion": "a", "system": "s"}, "a `system` column, .*data.format = 'orca'"),
        ({"messages": [{"role": "system", "content": "t"}, user("q"), assistant("a")], "system": "s"}, "drop one of"),
        ({"messages": [user("q"), assistant("a")], "system": 3}, "has `system` 3; it must be text"),
        ({"messages": [user("q"), assistant("a")], "tools": "{oops"}, "has `tools` '{oops', which is not JSON"),
        ({"messages": [user("q"), assistant("a")], "tools": {"name": "f"}}, "has `tools` .*it must be a list"),
        ({"messages": [user("q"), assistant("a")], "tools": ["{oops"]}, "has `tools` .*which is not JSON"),
        ({"messages": [user("q"), assistant("a")], "tools": [3]}, "it must be a list of objects"),
        (
            {"messages": [user("q"), assistant("a")], "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs with messages, which the row itself says",
        ),
        ({"messages": [{"role": "human", "content": "q"}, assistant("a")]}, "role 'human' .*call 'user'; .*'sharegpt'"),
        ({"messages": [{"role": "User", "content": "q"}, assistant("a")]}, "role 'User' .*call 'user'"),
        (
            {"prompt": "z", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
            "has prompt 'z', which is none of the messages that both answers open with",
        ),
    ],
)
def test_rows_that_would_be_read_otherwise_than_meant_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        understand(row)


def test_a_prompt_that_ends_with_the_assistants_turn_is_gone_on_with():
    assert understand({"prompt": [user("q"), assistant("It is")], "completion": " 4"}).goes_on
    twice = understand({"messages": [user("q"), assistant("a"), assistant("b")]})
    assert not twice.goes_on  # two turns, each whole


def test_equal_answers_are_still_answers():
    talk = [user("a"), assistant("same")]
    found = understand({"chosen": talk, "rejected": talk})
    assert found[:4] == ("pairs (messages)", [user("a")], [assistant("same")] * 2, None)


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"chosen": [assistant("a")], "rejected": [assistant("b")]},
            "answers that are messages but no prompt; give it as",
        ),
        ({"prompt": "p", "chosen": "a", "rejected": [assistant("b")]}, "prompt of text but an answer of messages"),
        (
            {"chosen": [user("a"), assistant("b"), user("c"), assistant("d")], "rejected": [user("a"), assistant("x")]},
            "answer of messages by assistant, user, assistant; it must be one message of the assistant",
        ),
        (
            {"chosen": [user("a"), assistant("b"), user("c"), assistant("d")]}  # they part before the last message
            | {"rejected": [user("a"), assistant("x"), user("c"), assistant("y")]},
            "answer of messages by assistant, user, assistant",
        ),
        ({"prompt": [user("a")], "completion": [user("b")]}, "answer of messages by user"),
    ],
)
def test_conversations_that_have_no_single_answer(row, message):
    with pytest.raises(ValueError, match=message):
        understand(row)


def test_the_last_message_is_the_completion_and_may_be_labelled():
    row = {"messages": [user("a"), assistant("b"), user("c"), assistant("d")], "label": False}
    found = understand(row)
    assert found[:4] == ("labelled completions (messages)", row["messages"][:-1], [assistant("d")], False)


def test_unpairing_shuffles_keeps_columns_and_depends_on_the_seed_only():
    rows = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}", "movie": i} for i in range(100)]
    made = unpair(rows, seed=0)
    expected = [(f"p{i}", f"{c}{i}", c == "c", i) for i in range(100) for c in "cr"]
    assert sorted((r["prompt"], r["completion"], r["label"], r["movie"]) for r in made) == sorted(expected)
    assert made == unpair(rows, seed=0) != unpair(rows, seed=1)
    for start in range(0, 200, 20):  # unshuffled, all of 20 would be of one class
        assert 2 <= sum(row["label"] for row in made[start : start + 20]) <= 18


def test_unpairing_needs_pairs():
    with pytest.raises(ValueError, match="row 2 is of completions .text.; only pairs"):
        unpair([PAIR, {"prompt": "p", "completion": "c"}], seed=0)


@pytest.mark.parametrize("by", ["movie", lambda row: row["movie"]])
def test_a_split_leaves_no_group_on_both_sides(by):
    rows = [PAIR | {"movie": i % 13, "n": i} for i in range(200)]
    rest, held = split_by_group(rows, by, share=0.2, seed=0)
    assert not {r["movie"] for r in rest} & {r["movie"] for r in held}
    assert sorted(r["n"] for r in rest + held) == list(range(200))
    assert 40 <= len(held) < 40 + 16  # at least the share, by less than a group
    assert split_by_group(rows, by, share=0.2, seed=0) == (rest, held) != split_by_group(rows, by, share=0.2, seed=1)


def test_a_split_that_cannot_be():
    with pytest.raises(ValueError, match="share = 0.5 of 1 groups leaves one side empty"):
        split_by_group([PAIR | {"movie": 1}] * 3, "movie", share=0.5, seed=0)
    with pytest.raises(ValueError, match="row 1 has no `film` to split by; it has prompt"):
        split_by_group([PAIR], "film", share=0.5, seed=0)
