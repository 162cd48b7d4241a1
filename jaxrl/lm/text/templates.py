"""Chat templates: the Jinja programs that come with models and write conversations as those were trained on them.

A template is a program out of a downloaded file, so it runs in a sandbox. What people wrote is not a program: markup
that they spell is guarded, goes through the template as text, and comes out as text.
"""

import datetime
import functools
import json
from collections.abc import Callable
from typing import Any

from jaxrl.lm.extras import package
from jaxrl.lm.text.markup import GUARD
from jaxrl.types import InputError

Message = dict[str, Any]

_UNSAID = "\ufdd1"  # another code point that Unicode reserves for no text at all


def render(source: str, now: datetime.date | None = None, **variables: Any) -> str:
    """The text that the template `source` makes of `variables`: messages, add_generation_prompt, tools and so on.

    now: the day for templates that ask for it; by default the day on which they do. Raises InputError if the template
    refuses.
    """
    package("jinja2", "chat templates")
    day = now or datetime.datetime.now()
    try:
        text = compiled(source).render(**variables, strftime_now=day.strftime)
    except Exception as error:  # a template is somebody's program: whatever it raises, it refuses
        raise InputError(f"the chat template refuses the messages: {str(error) or type(error).__name__}") from error
    return text.replace(f"\\u{ord(GUARD):x}", GUARD)  # of what it wrote as Python or JSON would spell it


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

    def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # jinja's own would escape < and >

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
    asked, answered = write(prompt, True), write([*prompt, {"role": "assistant", "content": _UNSAID}], False)
    same = next((i for i, (a, b) in enumerate(zip(asked, answered, strict=False)) if a != b), len(asked))
    for message in prompt:
        said = str(message.get("content", "")).strip()
        if said in asked and said not in asked[:same]:
            raise InputError(
                "has a conversation that the chat template writes differently once it is answered, from "
                f"{asked[same : same + 40]!r} on; give prompt and answer as text"
            )
    return asked[:same]


def continued(write: Callable[..., str], prompt: list[Message]) -> str:
    """The conversation up to the last word of its last message, the assistant's, which is to be gone on with.

    Raises InputError if that message says nothing, or the template does not write what it says.
    """
    *before, begun = prompt
    if not begun.get("content"):
        raise InputError("ends its prompt with a turn of the assistant that says nothing; drop that turn")
    text = write([*before, {**begun, "content": begun["content"] + _UNSAID + " "}], False)
    said, found, after = text.partition(_UNSAID)
    if not found:
        raise InputError("ends its prompt with a turn of the assistant that the chat template does not write")
    return said if after.startswith(" ") else said.rstrip()  # where it trims what is said, it would trim this


def joined(prompt: list[Message], answer: Message) -> list[Message]:
    """The conversation in which the answer goes on with the prompt's last message."""
    *before, begun = prompt
    return [*before, {**begun, **answer, "content": begun["content"] + answer.get("content", "")}]
