"""Prompts as token arrays: what a language model is asked to continue."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl.data.messages import says_nothing
from jaxrl.data.reading.folders import raw_rows
from jaxrl.data.reading.recipes import take
from jaxrl.data.rows import Example, Row, question
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Exchange, Tokenizer
from jaxrl.types import InputError


class Prompts(NamedTuple):
    """Right-padded. length: real tokens of each row; a padding id may be a real token, so only lengths can tell."""

    tokens: Int[Array, "n P"]
    length: Int[Array, " n"]


class PromptRows(NamedTuple):
    """Prompts to learn from. tokens, length: as of Prompts. row [n]: which of the rows that were given."""

    tokens: Int[Array, "n P"]
    length: Int[Array, " n"]
    row: Int[Array, " n"]


def prompt_buckets(prompts: Prompts, widths: Sequence[int] = ()) -> tuple[PromptRows, ...]:
    """Prompts in the smallest of these widths that holds them, by default all as wide as the longest; one entry per
    width that is not empty, shortest first. Raises InputError for one longer than all of them."""
    longest = int(np.max(prompts.length))
    sizes = sorted(set(widths)) or [longest]
    if longest > sizes[-1]:
        raise InputError(f"the longest prompt has {longest} tokens, more than buckets = {list(widths)} hold; add it")
    of_row, made = np.searchsorted(sizes, prompts.length), []
    for b, size in enumerate(sizes):
        row = np.flatnonzero(of_row == b)
        tokens = np.zeros((len(row), size), np.int32)
        tokens[:, : prompts.tokens.shape[1]] = prompts.tokens[row, :size]
        made += [PromptRows(tokens, prompts.length[row], row.astype(np.int32))] if len(row) else []
    return tuple(made)


def first_rows(buckets: Sequence[PromptRows], count: int) -> PromptRows:
    """The first `count` prompts, by the rows they are of, in one width."""
    width = max(b.tokens.shape[1] for b in buckets)
    wide = [b._replace(tokens=jnp.pad(b.tokens, ((0, 0), (0, width - b.tokens.shape[1])))) for b in buckets]
    every: PromptRows = jax.tree.map(lambda *x: jnp.concatenate(x), *wide)
    return jax.tree.map(lambda x: x[jnp.argsort(every.row)[:count]], every)


def read_prompts(path: str | Path, split: str | None = None, format: str = "auto") -> list[Row]:
    """Rows {prompt} of a file or folder; rows of any preference format will do as well, for their prompts.

    split, format: as for `read_rows`. Raises InputError, with file and row number, for a row without one.
    """
    rows = take(raw_rows(path, split).rows, format, question, prompts=True).rows
    if not rows:
        raise InputError(f"{path} has no rows; give a file with at least one {{prompt}}")
    return rows


def encode_prompts(
    rows: Sequence[Row], tokenizer: Tokenizer, *, max_length: int, markup: str = "text", date: str = DataConfig.date
) -> Prompts:
    """The prompts in the order of the rows, as wide as the longest. One longer than max_length keeps its end.

    markup, date: as in DataConfig. Raises InputError for a prompt without any token, which nothing could continue.
    """
    _check_room(max_length)
    return kept_prompts(prompts_as_ids(rows, tokenizer, markup, date), tokenizer, max_length)


def with_prompts(rows: Sequence[Row]) -> list[Row]:
    """Every row with its `prompt`, text or messages, also where its messages, or both of its answers, begin with it.
    Raises InputError, with its number, for what is no row or has none, and where there are no rows."""
    made = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f'row {number} is {row!r:.60}, not an object; a row is {{"prompt": ...}}')
        try:
            made.append(row if row.get("prompt") is not None else {**row, "prompt": question(row).prompt})
        except InputError as error:
            raise InputError(f"row {number} {error}") from error
    if not made:
        raise InputError('there are no rows; give at least one {"prompt": ...}')
    return made


def prompts_as_ids(rows: Sequence[Row], tokenizer: Tokenizer, markup: str, date: str) -> list[list[int]]:
    """The prompts, whole. Arguments and errors as for `encode_prompts`."""
    encoded = []
    for number, row in enumerate(rows, 1):
        try:
            ids = encode_prompt(question(row), tokenizer, markup, date)
        except InputError as error:
            raise InputError(f"row {number} {error}") from error
        if not ids:
            raise InputError(f"row {number} has an empty prompt, and the tokenizer adds no BOS to it; drop the row")
        encoded.append(ids)
    return encoded


def kept_prompts(whole: Sequence[list[int]], tokenizer: Tokenizer, max_length: int) -> Prompts:
    """As arrays, as wide as the longest. One longer than max_length keeps its end."""
    _check_room(max_length)
    encoded = [keep_end(ids, max_length, tokenizer.prefix) for ids in whole]
    return Prompts(padded(encoded, max(map(len, encoded)), tokenizer.pad), lengths(encoded))


def encode_prompt(asked: Example, tokenizer: Tokenizer, markup: str = "text", date: str = DataConfig.date) -> list[int]:
    """Text: BOS if the tokenizer adds one, then the text. Messages: the chat template, up to where the assistant begins
    to speak, or up to its last word so far. Without messages, or with neither BOS nor text: nothing.
    """
    if isinstance(asked.prompt, str):
        return tokenizer.encode_prompt(asked.prompt, markup)
    if not asked.prompt:
        return []
    return tokenizer.encode_chat(asked.prompt, markup=markup, **_columns(asked, date))


def encode_example(
    example: Example, tokenizer: Tokenizer, markup: str = "text", date: str = DataConfig.date
) -> list[Exchange]:
    """Prompt and completion as ids, for each completion. No token spans the boundary, and nothing is put there: they
    decode to the concatenation. An answer that says nothing has no ids.
    """
    if not isinstance(example.prompt, str):
        if not example.prompt:
            return [Exchange([], [], False) for _ in example.completions]
        columns = _columns(example, date) | {"goes_on": example.goes_on, "markup": markup}
        made = tokenizer.encode_exchanges(example.prompt, example.completions, **columns)
        told = zip(made, example.completions, strict=True)
        return [e._replace(answer=[]) if says_nothing(answer) else e for e, answer in told]
    prompt, tokens = tokenizer.encode_prompt(example.prompt, markup), markup == "tokens"
    encode = tokenizer.encode_inside if example.prompt else tokenizer.encode
    answers = [encode(text, specials=tokens) for text in example.completions]
    return [Exchange(prompt, ids, tokens and tokenizer.ends(ids)) for ids in answers]


def _columns(example: Example, date: str) -> dict[str, Any]:
    return {**example.columns, "now": datetime.date.fromisoformat(date)}


def _check_room(max_length: int) -> None:
    if max_length < 1:
        raise InputError(f"max_length = {max_length} leaves no token; it must be at least 1")


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
