"""Chat templates: the Jinja programs that come with models and write conversations as those were trained on them.

A template is a program out of a downloaded file, so it runs in a sandbox. What people wrote is not a program: markup
that they spell is guarded, goes through the template as text, and comes out as text.
"""

import datetime
import functools
import json
import re
from collections.abc import Callable
from typing import Any

from jaxrl.lm.extras import package
from jaxrl.types import InputError

Message = dict[str, Any]

GUARD = "\ufdd0"  # a code point that Unicode reserves for no text at all


def render(source: str, now: datetime.date | None = None, **variables: Any) -> str:
    """The text that the template `source` makes of `variables`: messages, add_generation_prompt, tools and so on.

    now: the day for templates that ask for it; by default the day on which they do. Raises InputError if the template
    refuses.
    """
    jinja2 = package("jinja2", "chat templates")
    day = now or datetime.datetime.now()
    try:
        return compiled(source).render(strftime_now=day.strftime, **variables)
    except (jinja2.TemplateError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise InputError(f"the chat template refuses the messages: {error}") from error


def guarded(value: Any, markup: re.Pattern) -> Any:
    """The same with GUARD inside every special token that any text of it spells."""
    if isinstance(value, str):
        return markup.sub(lambda found: found[0][:1] + GUARD + found[0][1:], value)
    if isinstance(value, dict):
        return {guarded(name, markup): guarded(x, markup) for name, x in value.items()}
    return [guarded(x, markup) for x in value] if isinstance(value, list) else value


def split_markup(text: str, markup: re.Pattern) -> list[tuple[str, str | None]]:
    """The text, cut at its special tokens: (what stands before one, the token), the last with None."""
    parts, start = [], 0
    for found in markup.finditer(text):
        parts.append((text[start : found.start()], next(filter(None, found.groups()))))
        start = found.end()
    return [*parts, (text[start:], None)]


@functools.lru_cache(maxsize=32)
def compiled(source: str) -> Any:
    """The template, ready to render. Raises jinja2.TemplateError if it is none."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %}…{% endgeneration %} marks the assistant's words for others; here it changes nothing."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)  # jinja's own would escape < and >

    extensions = [Generation, loopcontrols]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = refuse
    return env.from_string(source)


def opening(write: Callable[..., str], prompt: list[Message]) -> str:
    """The conversation up to the assistant's first word: what the template writes whether it asks for an answer or an
    answer follows. As a rule all that it asks with; some ask with an open <think> that they do not write afterwards.

    write(messages, add_generation_prompt) -> text. Raises InputError if an answer changes what stands before it.
    """
    asked, alone = write(prompt, True), write(prompt, False)
    answered = write([*prompt, {"role": "assistant", "content": "\ufdd1"}], False)  # no template writes that by itself
    same = next((i for i, (a, b) in enumerate(zip(asked, answered, strict=False)) if a != b), len(asked))
    if asked.startswith(alone) and same < len(alone):
        raise InputError(
            "has a conversation that the chat template writes differently once it is answered, from "
            f"{alone[same : same + 40]!r} on; give prompt and answer as text"
        )
    return asked[:same]


def continued(write: Callable[..., str], prompt: list[Message]) -> str:
    """The conversation up to the end of its last message, the assistant's, which is to be gone on with.

    Raises InputError if the template does not write that message as it is.
    """
    said, text = prompt[-1]["content"], write(prompt, False)
    place = text.rfind(said.strip())
    if place < 0 or not said.strip():
        raise InputError("ends its prompt with a turn of the assistant that the chat template does not write as it is")
    whole = text[place : place + len(said.lstrip())] == said.lstrip()
    return text[: place + len(said.lstrip() if whole else said.strip())]


def joined(prompt: list[Message], answer: Message) -> list[Message]:
    """The conversation in which the answer goes on with the prompt's last message."""
    *before, begun = prompt
    return [*before, {**begun, **answer, "content": begun["content"] + answer.get("content", "")}]
