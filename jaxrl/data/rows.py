"""Preference data before it becomes tokens: files into rows, and what a row says.

A row is a dict in one of three formats; prompt and answers are text, or lists of {"role", "content"} messages:
    pairs         {prompt, chosen, rejected}   where both answers are message lists that repeat the prompt, it may miss
    completions   {prompt, completion}         with an optional `label`: true for a good one
    messages      {messages}                   the last message, the assistant's, is the completion; `label` as above
Where they are messages, the chat template also gets the columns tools, documents and chat_template_kwargs, and a
column `system` is the first turn. Other columns are kept and never looked at. Every mistake is an InputError that names
file and row.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.data.columns import with_columns
from jaxrl.data.messages import Message, Text, alike, text_or_messages
from jaxrl.data.reading.conversations import Row
from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.reading.recipes import take
from jaxrl.types import InputError

_FORMATS = "{prompt, chosen, rejected}, {prompt, completion} or {messages}"


class Example(NamedTuple):
    """What a row says: the completions are [completion], or [chosen, rejected]; texts after a text, messages after
    messages. format: its name, for people. columns: what the chat template is given beside the messages. goes_on: the
    prompt's last turn is the assistant's, and the completions go on with it.
    """

    format: str
    prompt: Text
    completions: list[str] | list[Message]
    label: bool | None
    columns: dict[str, Any]
    goes_on: bool


class Read(NamedTuple):
    """Rows in one of our formats, and sentences that say how they were read and what they were taken as."""

    rows: list[Row]
    notes: list[str]


def read_rows(path: str | Path, split: str | None = None, format: str = "auto") -> list[Row]:
    """The rows of a file (jsonl, JSON, csv, parquet or arrow; .gz and .zst too), or of a folder with such files.

    split: which part of a folder, as in "train"; needed where there are several. format: the recipe for rows in other
    shapes than ours, by name. Raises InputError, with file and row number (a line number in jsonl files), for a row
    that is malformed or of another format than the first.
    """
    return read(path, split, format).rows


def read(path: str | Path, split: str | None = None, format: str = "auto") -> Read:
    """As `read_rows`, with what there is to say about them."""
    raw = raw_rows(path, split)
    rows, notes = _as_rows(raw.rows, format)
    if not rows:
        raise InputError(f"{path} has no rows; give a file with at least one of {_FORMATS}")
    return Read(rows, [*raw.notes, *notes])


def given_rows(rows: Iterable[Row], format: str = "auto") -> Read:
    """As `read`, of rows at hand: of a list, a generator or another iterable, which is gone through once."""
    if isinstance(rows, str | Path | dict):
        raise InputError(f"rows are {rows!r:.60}, not a list of rows; a file is given by data.path")
    read = _as_rows(((f"row {number}", row) for number, row in enumerate(rows, 1)), format)
    if not read.rows:
        raise InputError(f"there are no rows; give at least one of {_FORMATS}")
    return read


def _as_rows(found: Iterable[tuple[str, Any]], format: str) -> Read:
    """Rows, given as (where, row), in our columns and all of one format."""
    first = None

    def check(row: Row) -> None:
        nonlocal first
        kind = understand(row).format
        if first is not None and kind != first:
            raise InputError(f"is of {kind}, but the first row is of {first}; keep one format per file")
        first = kind

    return Read(*take(found, format, check))


def understand(row: Row) -> Example:
    """Prompt, completions and label of a row. Raises InputError with a clause that follows on "row 17 "."""
    if not isinstance(row, dict):
        raise InputError(f"is {row!r:.60}, not an object; a row is {_FORMATS}")
    has = {name for name, value in row.items() if value is not None}
    goes_on = False
    if has & {"chosen", "rejected"}:
        _need(row, has, "chosen", "rejected")
        kind, prompt, completions = "pairs", *_pair(row, has)
        goes_on = _ends_with_assistant(prompt)
    elif "messages" in has:
        kind, prompt, completions = "completions", *_conversation(row["messages"])
    else:
        _need(row, has, "prompt", "completion")
        answer = text_or_messages("completion", row["completion"])
        kind, prompt, completions = "completions", _turn(text_or_messages("prompt", row["prompt"]), answer), [answer]
        goes_on = _ends_with_assistant(prompt)
    style, label = "text" if isinstance(prompt, str) else "messages", None
    if "label" in has and kind == "completions":
        kind, label = "labelled completions", _label(row["label"])
    prompt, columns = with_columns(row, prompt)
    answers = [_answer(completion, prompt) for completion in completions]
    return Example(f"{kind} ({style})", prompt, answers, label, columns, goes_on)


def question(row: Row) -> Example:
    """What a row of any format asks, or a row with nothing but a `prompt`. Raises InputError as `understand`."""
    if not isinstance(row, dict) or {"chosen", "rejected", "messages", "completion"} & set(row):
        return understand(row)
    has = {name for name, value in row.items() if value is not None}
    _need(row, has, "prompt")
    prompt, columns = with_columns(row, text_or_messages("prompt", row["prompt"]))
    return Example("prompts", prompt, [], None, columns, _ends_with_assistant(prompt))


def _need(row: Row, has: set[str], *names: str) -> None:
    for name in names:
        if name not in has:
            raise InputError(f"has no `{name}`; it has {', '.join(row) or 'nothing'}, and a row is {_FORMATS}")


def _label(value: Any) -> bool:
    if value not in (True, False):
        raise InputError(
            f"has label {value!r}; it must be true (a good completion) or false; drop the column if it says another "
            "thing"
        )
    return bool(value)


def _ends_with_assistant(prompt: Text) -> bool:
    return isinstance(prompt, list) and bool(prompt) and prompt[-1]["role"] == "assistant"


def _turn(prompt: Text, answer: Text) -> Text:
    """The prompt as a user's turn, where the answer is a message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) and isinstance(answer, list) else prompt


def _conversation(value: Any) -> tuple[Text, list[Text]]:
    messages = text_or_messages("messages", value)
    if isinstance(messages, str) or not messages or messages[-1]["role"] != "assistant":
        raise InputError("has `messages` that do not end with the assistant's; drop what comes after its last message")
    return messages[:-1], [messages[-1:]]


def _pair(row: Row, has: set[str]) -> tuple[Text, Sequence[Text]]:
    """Prompt, [chosen, rejected]. Messages that both sides open with are the prompt: messages, never words."""
    chosen, rejected = (text_or_messages(name, row[name]) for name in ("chosen", "rejected"))
    prompt = text_or_messages("prompt", row["prompt"]) if "prompt" in has else None
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        _need(row, has, "prompt")
        return prompt, [chosen, rejected]  # pyright: ignore[reportReturnType]  # needed: it is there
    most = min(len(chosen), len(rejected)) - 1  # the answers themselves are never prompt, be they equal
    common = next((i for i in range(max(most, 0)) if not alike(chosen[i], rejected[i])), max(most, 0))
    shared = chosen[:common]
    answers = [chosen[common:], rejected[common:]]
    if isinstance(prompt, list):
        shared = _united(prompt, shared)
    elif prompt is not None and not shared:
        shared = _turn(prompt, chosen)
    elif prompt is not None and prompt.strip() not in (message.get("content", "").strip() for message in shared):
        raise InputError(
            f"has prompt {prompt!r:.40}, which is none of the messages that both answers open with; drop the column, "
            "or give the prompt as messages"
        )
    if not shared:
        raise InputError(
            "has answers that are messages but no prompt; give it as messages, or open both answers with it"
        )
    return shared, answers


def _united(prompt: list[Message], shared: list[Message]) -> list[Message]:
    """The prompt, and what both answers open with, which may repeat all of it, a part of it, or more than it."""
    longer, shorter = (prompt, shared) if len(prompt) >= len(shared) else (shared, prompt)
    size = len(shorter)
    if any(all(map(alike, part, shorter)) for part in (longer[:size], longer[len(longer) - size :])):
        return longer
    if any(alike(one, other) for one in prompt for other in shared):
        raise InputError("has a prompt of which the answers repeat a part; open both with all of it or with none")
    return prompt + shared


def _answer(completion: Text, prompt: Text) -> str | Message:
    if isinstance(completion, str):
        return completion if isinstance(prompt, str) else {"role": "assistant", "content": completion}
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in completion)
        raise InputError(f"has an answer of messages by {roles or 'nobody'}; it must be one message of the assistant")
    if isinstance(prompt, str):
        raise InputError("has a prompt of text but an answer of messages; give both as text or both as messages")
    return completion[0]
