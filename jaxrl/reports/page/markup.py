"""HTML and SVG as nested calls. Whatever is not Markup already is escaped: nothing that a user wrote becomes a tag."""

import html
from typing import Any

_VOID = ("img",)


class Markup(str):
    """Text that is HTML. Made by `el` and `join` alone."""


def el(tag: str, *children: Any, **attributes: Any) -> Markup:
    """<tag attributes>children</tag>. A trailing _ of an attribute's name is dropped and others become "-"; None leaves
    the attribute out."""
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    told = "".join(f' {name}="{html.escape(_text(value))}"' for name, value in given.items())
    return Markup(f"<{tag}{told}>" + ("" if tag in _VOID else f"{join(*children)}</{tag}>"))


def join(*children: Any) -> Markup:
    """Children one after the other: Markup as it is, lists of children, and all else as text."""
    return Markup("".join(_child(child) for child in children))


def _child(child: Any) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(*child)
    return html.escape(str(child))


def _text(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
