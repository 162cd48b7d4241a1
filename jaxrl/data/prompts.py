"""Prompts as token arrays: what a language model is asked to continue."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Int

from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.reading.recipes import take
from jaxrl.data.rows import Row, Text, prompt_of
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.types import InputError


class Prompts(NamedTuple):
    """Right-padded. length: real tokens of each row; a padding id may be a real token, so only lengths can tell."""

    tokens: Int[Array, "n P"]
    length: Int[Array, " n"]


def read_prompts(path: str | Path, split: str | None = None, format: str = "auto") -> list[Row]:
    """Rows {prompt} of a file or folder; rows of any preference format will do as well, for their prompts.

    split, format: as for `read_rows`. Raises InputError, with file and row number, for a row without one.
    """
    rows = take(raw_rows(path, split).rows, format, prompt_of, prompts=True).rows
    if not rows:
        raise InputError(f"{path} has no rows; give a file with at least one {{prompt}}")
    return rows


def encode_prompts(rows: Sequence[Row], tokenizer: Tokenizer, *, max_length: int) -> Prompts:
    """The prompts in the order of the rows, as wide as the longest. One longer than max_length keeps its end.

    Raises InputError for a prompt without any token: there would be nothing to continue.
    """
    if max_length < 1:
        raise InputError(f"max_length = {max_length} leaves no token; it must be at least 1")
    encoded = []
    for number, row in enumerate(rows, 1):
        try:
            ids = encode_prompt(prompt_of(row), tokenizer)
        except InputError as error:
            raise InputError(f"row {number} {error}") from error
        if not ids:
            raise InputError(f"row {number} has an empty prompt, and the tokenizer adds no BOS to it; drop the row")
        encoded.append(keep_end(ids, max_length, tokenizer.prefix))
    return Prompts(padded(encoded, max(map(len, encoded)), tokenizer.pad), lengths(encoded))


def encode_prompt(prompt: Text, tokenizer: Tokenizer) -> list[int]:
    """Text: BOS if the tokenizer adds one, then the text, in which markup is plain text. Messages: the chat template,
    up to where the assistant begins to speak. Without messages, or with neither BOS nor text: nothing.
    """
    if isinstance(prompt, str):
        return [*tokenizer.prefix, *tokenizer.encode(prompt, specials=False)]
    return tokenizer.encode_chat(prompt) if prompt else []


def keep_end(ids: list[int], room: int, prefix: list[int]) -> list[int]:
    """At most `room` of the ids, from the end, where the generation prompt stands; and the BOS before, if any."""
    if len(ids) <= room:
        return ids
    head = prefix if room > len(prefix) and ids[: len(prefix)] == prefix else []
    return [*head, *ids[len(ids) - room + len(head) :]]


def padded(rows: Sequence[Sequence[int]], width: int, pad: int | None) -> Int[np.ndarray, "n L"]:
    """Right-padded int32; 0 where the tokenizer has no padding token. Lengths tell padding apart, never ids."""
    array = np.full((len(rows), width), pad or 0, np.int32)
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return array


def lengths(rows: Sequence[Sequence[int]]) -> Int[np.ndarray, " n"]:
    """How many tokens each row has."""
    return np.array([len(ids) for ids in rows], np.int32)
