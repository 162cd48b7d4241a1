"""Preference data before it becomes tokens: files into rows, and what a row says.

A row is a dict in one of three formats; prompt and answers are text, or lists of {"role", "content"} messages:
    pairs         {prompt, chosen, rejected}   where both answers are message lists that repeat the prompt, it may miss
    completions   {prompt, completion}         with an optional `label`: true for a good one
    messages      {messages}                   the last message, the assistant's, is the completion; `label` as above
Other columns are kept and never looked at. Every mistake is a ValueError that names file and row.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.data.reading.conversations import Row
from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.reading.recipes import take
from jaxrl.types import InputError

Text = str | list[dict[str, Any]]

_FORMATS = "{prompt, chosen, rejected}, {prompt, completion} or {messages}"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a pair of UTF-16 units, which JSON can spell and UTF-8 cannot


class Example(NamedTuple):
    """What a row says: the completions are [completion], or [chosen, rejected]. format: its name, for people."""

    format: str
    prompt: Text
    completions: list[str]
    label: bool | None


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
    if has & {"chosen", "rejected"}:
        _need(row, has, "chosen", "rejected")
        kind, prompt, completions = "pairs", *_pair(row, has)
    elif "messages" in has:
        kind, prompt, completions = "completions", *_conversation(row["messages"])
    else:
        _need(row, has, "prompt", "completion")
        kind, prompt, completions = "completions", row["prompt"], [row["completion"]]
    style = "text" if isinstance(prompt, str) else "messages"
    if "label" in has and kind == "completions":
        if row["label"] not in (True, False):
            raise InputError(f"has label {row['label']!r}; it must be true (a good completion) or false")
        kind, label = "labelled completions", bool(row["label"])
    else:
        label = None
    check_text("prompt", prompt)
    return Example(f"{kind} ({style})", prompt, [_answer(c, prompt) for c in completions], label)


def prompt_of(row: Row) -> Text:
    """The prompt of a row of any format, or of a row with nothing but a `prompt`. Raises InputError as `understand`."""
    if not isinstance(row, dict) or {"chosen", "rejected", "messages", "completion"} & set(row):
        return understand(row).prompt
    _need(row, {name for name, value in row.items() if value is not None}, "prompt")
    check_text("prompt", row["prompt"])
    return row["prompt"]


def split_by_group(
    rows: Sequence[Row], by: str | Callable[[Row], Any], *, share: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """(the rest, at least `share` of the rows): whole groups, so that nothing of a group is on both sides.

    by: the column that names the group (say, the film under review), or a function of the row.
    """
    group_of = by if callable(by) else lambda row: row[by]
    if not callable(by) and (missing := [i for i, row in enumerate(rows, 1) if by not in row]):
        raise InputError(f"row {missing[0]} has no `{by}` to split by; it has {', '.join(rows[missing[0] - 1])}")
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(group_of(row), []).append(i)
    held, names = set(), list(groups)
    for g in np.random.default_rng(seed).permutation(len(names)):
        if len(held) >= share * len(rows):
            break
        held |= set(groups[names[g]])
    if not 0 < len(held) < len(rows):
        raise InputError(f"share = {share} of {len(names)} groups leaves one side empty; change it, or split finer")
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]


def unpair(rows: Sequence[Row], seed: int) -> list[Row]:
    """Pairs as labelled completions: chosen true, rejected false, shuffled, other columns kept.

    Unshuffled, all batches would be of one class.
    """
    made = []
    for i, row in enumerate(rows, 1):
        example = understand(row)
        if len(example.completions) != 2:
            raise InputError(f"row {i} is of {example.format}; only pairs can be unpaired")
        rest = {k: v for k, v in row.items() if k not in ("prompt", "chosen", "rejected", "label")}
        for label, completion in zip((True, False), example.completions, strict=True):
            made.append({"prompt": example.prompt, "completion": completion, "label": label, **rest})
    return [made[i] for i in np.random.default_rng(seed).permutation(len(made))]


def _need(row: Row, has: set[str], *names: str) -> None:
    for name in names:
        if name not in has:
            raise InputError(f"has no `{name}`; it has {', '.join(row) or 'nothing'}, and a row is {_FORMATS}")


def check_text(name: str, value: Any) -> None:
    """Raises InputError with a clause that follows on "row 17 " unless the value is text or a list of messages."""
    for message in value if isinstance(value, list) else [{"role": name, "content": value}]:
        good = isinstance(message, dict) and isinstance(message.get("role"), str)
        if not good or not isinstance(message.get("content"), str):
            raise InputError(
                f"has {name} {value!r:.80}; it must be text or a list of {{role, content}} messages of text"
            )
        if half := _HALF_CHARACTER.search(message["content"]):
            raise InputError(f"has {half[0]!r} in its {name}, half a character; it must be Unicode text")


def _conversation(messages: Any) -> tuple[Text, list[Text]]:
    check_text("messages", messages)
    if isinstance(messages, str) or not messages or messages[-1]["role"] != "assistant":
        raise InputError("has `messages` that do not end with the assistant's; drop what comes after its last message")
    return messages[:-1], [messages[-1:]]


def _pair(row: Row, has: set[str]) -> tuple[Text, list[Text]]:
    """Prompt, [chosen, rejected]. Messages that both sides open with are the prompt: messages, never words."""
    chosen, rejected = row["chosen"], row["rejected"]
    if not isinstance(chosen, list) or not isinstance(rejected, list):
        _need(row, has, "prompt")
        return row["prompt"], [chosen, rejected]
    most = min(len(chosen), len(rejected)) - 1  # the answers themselves are never prompt, be they equal
    common = next((i for i in range(max(most, 0)) if chosen[i] != rejected[i]), max(most, 0))
    shared, prompt = chosen[:common], row.get("prompt")
    if isinstance(prompt, list) and shared[: len(prompt)] != prompt:
        shared = prompt + shared
    if not shared:
        remedy = "give the prompt as messages, or open both answers with it"
        raise InputError(f"has answers that are messages but no prompt of messages; {remedy}")
    return shared, [chosen[common:], rejected[common:]]


def _answer(completion: Any, prompt: Text) -> str:
    check_text("completion", completion)
    if isinstance(completion, str):
        return completion
    if len(completion) != 1 or completion[0]["role"] != "assistant":
        roles = ", ".join(m["role"] for m in completion)
        raise InputError(f"has an answer of messages by {roles or 'nobody'}; it must be one message of the assistant")
    if isinstance(prompt, str):
        raise InputError("has a prompt of text but an answer of messages; give both as text or both as messages")
    return completion[0]["content"]
