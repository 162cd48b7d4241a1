"""Markup, the tokens that templates write between what people say, and how to keep people from writing it."""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

GUARD = "\ufdd0"  # a code point that Unicode reserves for no text at all


class Marks(NamedTuple):
    """pattern: of tokens that people must not spell by chance. ids: theirs."""

    pattern: re.Pattern
    ids: frozenset[int]


def pattern_of(tokens: Iterable[Any]) -> re.Pattern:
    """What finds any of the added tokens in a text, longest first, each a group of its own."""
    longest_first, space = sorted(tokens, key=lambda token: len(token.content), reverse=True), r"\s*"
    # some of them swallow the white space beside them
    spelt = [space * t.lstrip + f"({re.escape(t.content)})" + space * t.rstrip for t in longest_first]
    return re.compile("|".join(spelt) or "(?!)")


def guarded(value: Any, markup: re.Pattern) -> Any:
    """The same with GUARD inside every special token that any text of it spells."""
    if isinstance(value, str):
        while found := markup.search(value):  # one may stand within another
            inside = found.start(found.lastindex) + 1
            value = value[:inside] + GUARD + value[inside:]
        return value
    if isinstance(value, dict):
        return {guarded(name, markup): guarded(x, markup) for name, x in value.items()}
    return [guarded(x, markup) for x in value] if isinstance(value, list) else value


def split_tokens(text: str, tokens: re.Pattern) -> list[tuple[str, str | None]]:
    """The text, cut at the tokens that it spells: (what stands before one, the token), the last with None."""
    parts, start = [], 0
    for found in tokens.finditer(text):
        parts.append((text[start : found.start()], found[found.lastindex]))
        start = found.end()
    return [*parts, (text[start:], None)]
