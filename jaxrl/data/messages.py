"""Messages as people's files have them: checked, and cleaned of what means nothing, before a chat template sees them.

Keys of null are as if absent: columns of parquet files give every message every key. Errors are clauses that follow on
"row 17 ".
"""

import re
from typing import Any

from jaxrl.data.reading.conversations import ROLES
from jaxrl.types import InputError

Message = dict[str, Any]
Text = str | list[Message]

_THOUGHTS = ("reasoning_content", "thinking", "reasoning")
_VALUES = ("arguments", "parameters")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of a pair of UTF-16 units, which JSON can spell and UTF-8 cannot


def text_or_messages(name: str, value: Any) -> Text:
    """The text as it is, or the messages without their keys of null and with contents in one piece.

    Raises InputError for anything else, and for half a character in it.
    """
    if half := next(filter(None, map(_HALF_CHARACTER.search, strings(value))), None):
        raise InputError(f"has {half[0]!r} in its {name}, half a character; it must be Unicode text")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise InputError(f"has {name} {value!r:.80}; it must be text or a list of {{role, content}} messages of text")
    return [_message(name, message) for message in value]


def without_nulls(value: Any) -> Any:
    """The same without keys of null, at any depth but in what a tool is called with, where null is a value."""
    if isinstance(value, dict):
        return {key: x if key in _VALUES else without_nulls(x) for key, x in value.items() if x is not None}
    return [without_nulls(x) for x in value] if isinstance(value, list) else value


def strings(value: Any) -> list[str]:
    """All text in it, keys aside."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in strings(part)]


def says_nothing(message: Message) -> bool:
    """Whether a message has neither words, thoughts nor calls."""
    return not any(message.get(key) for key in ("content", "tool_calls", *_THOUGHTS))


def alike(one: Message, other: Message) -> bool:
    """Whether two messages say the same, up to white space around it and to keys that say nothing."""

    def what(message: Message) -> tuple:
        return message["role"], str(message.get("content", "")).strip(), message.get("tool_calls")

    return what(one) == what(other)


def _message(name: str, value: Any) -> Message:
    found = without_nulls(value)
    if not isinstance(found, dict) or not isinstance(found.get("role"), str):
        raise InputError(f"has {name} with {value!r:.80}; each message must be {{role, content}} with text")
    role, content = found["role"], found.get("content")
    known = ROLES.get(role.lower(), role)  # templates have roles of their own, too
    if known != role:
        raise InputError(
            f"has a message of role {role!r} in its {name}, which chat templates call {known!r}; rename it, or read "
            "the file with data.format = 'sharegpt'"
        )
    if isinstance(content, list) and content and all(_is_text(part) for part in content):
        content = found["content"] = "".join(part if isinstance(part, str) else part["text"] for part in content)
    thought = next((found[key] for key in _THOUGHTS if key in found), None)
    if thought is not None:  # templates read it by one of two names
        found = {"thinking": thought, **found, "reasoning_content": thought}
    calls = role == "assistant" and len(found) > 1 and content is None  # an assistant may call a tool and say nothing
    if not isinstance(content, str) and not calls:
        raise InputError(f"has {name} with {value!r:.80}; each message must be {{role, content}} with text")
    return found


def _is_text(part: Any) -> bool:
    kinds = ("text", "input_text", "output_text")
    spoken = isinstance(part, dict) and part.get("type", "text") in kinds and isinstance(part.get("text"), str)
    return isinstance(part, str) or spoken
