"""Tokenizers that put white space before whatever they are given, and how to keep them from it.

SentencePiece marks the start of a word by a space, and many tokenizers therefore put one before all text (Llama 2,
Mistral 0.1, Zephyr: a normaliser; others: Metaspace, or byte-level BPE with a prefix space). At the start of a text
that is right. An answer by itself is no start: "def f(" and "x)" would become "def f( x)".
"""

import json
from typing import Any


def inside(backend: Any) -> Any:
    """The tokenizer of a text that goes on from other text: nothing is put before it, nothing stripped."""
    return _changed(
        backend,
        {
            "Prepend": lambda spec: None,
            "Metaspace": lambda spec: {**spec, "prepend_scheme": "never"},
            "ByteLevel": lambda spec: {**spec, "add_prefix_space": False},
            "Strip": lambda spec: None,
        },
    )


def to_be_continued(backend: Any) -> Any:
    """The tokenizer of the start of a text: nothing is stripped where it will go on."""
    return _changed(backend, {"Strip": lambda spec: {**spec, "strip_right": False}})


def after_token(backend: Any) -> Any:
    """The tokenizer of a text that follows on an added token, as the tokenizer itself treats it there: Metaspace knows
    that this is not the first text, the others do not.
    """

    def metaspace(spec: dict) -> dict:
        return {**spec, "prepend_scheme": "never"} if spec.get("prepend_scheme") == "first" else spec

    return _changed(backend, {"Metaspace": metaspace})


def _changed(backend: Any, changes: dict) -> Any:
    spec = json.loads(backend.to_str())
    parts = ("normalizer", "pre_tokenizer")
    changed = {part: _part(spec[part], changes) for part in parts}
    if all(changed[part] == spec[part] for part in parts):
        return backend
    return type(backend).from_str(json.dumps({**spec, **changed}))


def _part(spec: dict | None, changes: dict) -> dict | None:
    if spec is None:
        return None
    if spec["type"] == "Sequence":
        (name,) = (key for key in spec if key != "type")
        return {**spec, name: [made for part in spec[name] if (made := _part(part, changes)) is not None]}
    return changes.get(spec["type"], lambda same: same)(spec)
