"""Conversations as others write them: dialogues as one text, messages of {from, value}, roles by other names."""

import itertools
import json
from typing import Any

from jaxrl.types import InputError

Row = dict[str, Any]

OURS = ("messages", "prompt", "completion", "chosen", "rejected")
"""The columns that may hold messages in our own rows."""
TALKS = ("conversations", "conversation")
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ASSISTANTS = ("gpt", "assistant", "chatgpt", "chatbot", "bing", "bard", "bot", "ai", "model", "function_call")
ROLES = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(_ASSISTANTS, "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "system": "system",
    "developer": "developer",
}
"""What chat templates call those who speak, by the names that others give them, in small letters."""


def has(row: Any, *names: str) -> bool:
    """Whether the row has all these columns, none of them null."""
    return isinstance(row, dict) and all(row.get(name) is not None for name in names)


def first(row: Row, *names: str) -> Any:
    """What the first of these columns that is not null holds; None where all are."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def settled(row: Any) -> bool:
    """Whether a row has our columns already: then others that it may have are not looked at."""
    answers = has(row, "chosen", "rejected")
    lists = answers and isinstance(row["chosen"], list) and isinstance(row["rejected"], list)
    return has(row, "messages") or has(row, "prompt", "completion") or (answers and has(row, "prompt")) or lists


def is_message(value: Any) -> bool:
    """Whether it is {role, content}, or {from, value} as ShareGPT has it."""
    return isinstance(value, dict) and ({"role", "content"} <= set(value) or {"from", "value"} <= set(value))


def are_dialogues(row: Any) -> bool:
    """Whether both answers are whole dialogues, as Anthropic's helpful and harmless ones are."""
    sides = [row["chosen"], row["rejected"]] if has(row, "chosen", "rejected") else [None]
    return all(isinstance(s, str) and s.lstrip().startswith(HUMAN.strip()) and ASSISTANT in s for s in sides)


def of_dialogues(row: Row) -> Row:
    """What both dialogues share, up to the last turn of the assistant that begins in it, is the prompt."""
    if not are_dialogues(row):
        raise InputError(f"has no `chosen` and `rejected` that begin with {HUMAN.strip()!r}")
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(row["chosen"], row["rejected"], strict=False))
    common = "".join(a for a, _ in shared)
    if ASSISTANT not in common:
        raise InputError(f"has dialogues that part before the first {ASSISTANT!r}; drop the row")
    if isinstance(row.get("prompt"), str) and row["prompt"].strip() not in common:
        raise InputError("has a prompt that its dialogues do not repeat; drop that column, or say format = 'plain'")
    cut = common.rindex(ASSISTANT) + len(ASSISTANT)
    return {**row, "prompt": common[:cut], "chosen": row["chosen"][cut:], "rejected": row["rejected"][cut:]}


def are_foreign(row: Any) -> bool:
    """Whether there are messages that are not ours: the row itself, or by other keys, roles or names of columns."""
    if isinstance(row, list):
        return bool(row) and is_message(row[0])
    if not settled(row) and any(has(row, name) and isinstance(row[name], list | dict) for name in TALKS):
        return True
    held = [row[name] for name in OURS if has(row, name)]
    messages = [m for each in held if isinstance(each, list) for m in each if isinstance(m, dict)]
    return any(isinstance(each, dict) for each in held) or any(map(_is_foreign, messages))


def of_sharegpt(row: Any) -> Row:
    """All messages of the row as {role, content}; a conversation is the prompt where the answers stand apart."""
    row = {"messages": row} if isinstance(row, list) else dict(row)
    talk = first(row, *TALKS)
    for name in OURS:
        if isinstance(row.get(name), list | dict):
            row[name] = _messages(row[name])
    if talk is not None:
        row["prompt" if has(row, "chosen", "rejected") else "messages"] = _messages(talk)
    return row


def are_json(row: Any) -> bool:
    """Whether some column is text that is messages, as JSON."""
    texts = [row[name] for name in (*OURS, *TALKS) if has(row, name) and _is_json(row[name])]
    try:
        return any(map(is_message, (json.loads(text)[0] for text in texts)))
    except (ValueError, RecursionError):
        return False


def of_json(row: Row) -> Row:
    """As `of_sharegpt`, of what the text says."""
    return of_sharegpt({k: _parsed(k, v) if k in (*OURS, *TALKS) and _is_json(v) else v for k, v in row.items()})


def _is_foreign(message: Row) -> bool:
    who = message.get("role")
    return has(message, "from", "value") or (isinstance(who, str) and ROLES.get(who.lower(), who) != who)


def _messages(value: Any) -> list[Row]:
    """Of a list of messages; of one message; of {from: [...], value: [...]}, as some tables hold a list of objects."""
    if isinstance(value, dict) and value and all(isinstance(held, list) for held in value.values()):
        if len(set(map(len, value.values()))) > 1:
            raise InputError(f"has {', '.join(value)} of several lengths, so they are no messages; drop the row")
        value = [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]
    return [_message(each) for each in (value if isinstance(value, list) else [value])]


def _message(value: Any) -> Row:
    if not isinstance(value, dict):
        raise InputError(f"has message {value!r:.60}; it must be {{from, value}} or {{role, content}}")
    who, text = first(value, "role", "from"), first(value, "content", "value")
    role = ROLES.get(str(who).lower())
    if role is None:
        raise InputError(f"has a message by {who!r}; rename that role to one of {', '.join(ROLES)}")
    kept = {k: v for k, v in value.items() if k not in ("role", "from", "content", "value") and v is not None}
    if str(who).lower() == "function_call":
        calls = _parsed(who, text)
        kept["tool_calls"] = [
            {"type": "function", "function": c} for c in (calls if isinstance(calls, list) else [calls])
        ]
        text = ""
    return {"role": role, "content": text, **kept}


def _is_json(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("[{")


def _parsed(name: str, text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"has {name} {text!r:.60}, which is not JSON ({error}); write it with json.dumps") from error
