"""What a row says to the chat template beside its messages: a system turn, tools, documents, switches."""

import json
from typing import Any

from jaxrl.data.messages import Message, Text, text_or_messages, without_nulls
from jaxrl.types import InputError

_TEMPLATE = ("tools", "documents", "chat_template_kwargs")
_OURS = {"messages", "add_generation_prompt", "tools", "documents", "now", "markup", "goes_on", "source", "self"}
_OURS |= {"prompt", "answers", "strftime_now"}


def with_columns(row: dict[str, Any], prompt: Text) -> tuple[Text, dict[str, Any]]:
    """The prompt, a `system` column its first turn, and what the chat template is given beside it.

    Raises InputError for what a template cannot take, with a clause that follows on "row 17 ".
    """
    if isinstance(prompt, str):
        if row.get("system"):
            raise InputError(
                "has a `system` column, for which a prompt of text has no place; give prompt and answers as messages, "
                "or read the file with data.format = 'orca'"
            )
        return prompt, {}
    columns = {name: _parsed(name, row[name]) for name in _TEMPLATE if row.get(name)}
    switches = columns.pop("chat_template_kwargs", {})
    if taken := sorted(_OURS.intersection(switches)):
        raise InputError(f"has chat_template_kwargs with {', '.join(taken)}, which the row itself says; leave it out")
    return _system(row.get("system"), prompt) + prompt, columns | switches


def _system(value: Any, prompt: list[Message]) -> list[Message]:
    if value and not isinstance(value, str):
        raise InputError(f"has `system` {value!r:.60}; it must be text, the first turn of the conversation")
    turn = [{"role": "system", "content": text_or_messages("system", value)}] if value else []
    if turn == prompt[:1]:
        return []
    if turn and prompt and prompt[0]["role"] == "system":
        raise InputError("has a `system` column and another system message in its prompt; drop one of the two")
    return turn


def _parsed(name: str, value: Any) -> Any:
    kind, inner = (dict, "an object") if name == "chat_template_kwargs" else (list, "a list of objects")
    try:
        value = json.loads(value) if isinstance(value, str) else value
        if kind is list and isinstance(value, list):
            value = [json.loads(each) if isinstance(each, str) else each for each in value]
    except ValueError as error:
        raise InputError(f"has `{name}` {value!r:.60}, which is not JSON ({error}); mend or drop it") from error
    if not isinstance(value, kind) or (kind is list and not all(isinstance(each, dict) for each in value)):
        raise InputError(f"has `{name}` {value!r:.60}; it must be {inner}, for the chat template")
    return without_nulls(value)
