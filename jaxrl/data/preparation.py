"""From a file, or from rows at hand, to the arrays that `train` and `run` take."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.data.arrays import Data
from jaxrl.data.kinds import rows_for, split_by_group
from jaxrl.data.preferences import Encoded, Sequences, bucketed, encode_rows
from jaxrl.data.prompts import (
    PromptRows,
    kept_prompts,
    prompt_buckets,
    prompts_as_ids,
    read_prompts,
    with_prompts,
)
from jaxrl.data.rows import Row, given_rows, read
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import ModelConfig
from jaxrl.settings import replace
from jaxrl.types import InputError

_FEW = 10  # held-out rows, whose figures say little: one more that is right moves an accuracy by a tenth


class Prepared(NamedTuple):
    """data: for `train` and `run`. counts: of all rows, what was truncated, dropped, odd or held out, by name. notes:
    sentences on what was made of them.
    """

    data: Data
    counts: dict[str, int]
    notes: tuple[str, ...]


def prepare(
    settings: DataConfig,
    tokenizer: Tokenizer,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
    *,
    learns_from: str = "any",
    model: ModelConfig | None = None,
) -> Prepared:
    """Rows as token arrays, in buckets.

    rows: to train on, of any iterable, gone through once; None reads `settings.path`. held_out: to measure on; None
    splits off `settings.held_out` of the rows, always the same ones: whole prompts where there are prompts enough, so
    that none is on both sides, else rows. All are in the shape that `settings.format` says.
    learns_from: which kind of rows, as in `rows_for`. model: whose vocabulary and context they must fit.
    Raises InputError, with file and row number, for what cannot be read or learned from.
    """
    encoded, notes = read_encoded(settings, tokenizer, rows, learns_from=learns_from, model=model)
    counts, parts = encoded.counts, [encoded.rows]
    held_out = None if held_out is None else list(held_out)
    if held_out:
        at_hand = replace(settings, split=None)  # which chose from the file
        measured, _ = read_encoded(at_hand, tokenizer, held_out, learns_from=learns_from, model=model)
        counts, parts = Counter(counts) + Counter(measured.counts), [encoded.rows, measured.rows]
    elif held_out is None and settings.held_out > 0:
        parts = _hold_out(encoded.rows, float(settings.held_out))
        if (few := len(parts[1])) < _FEW:
            alone = f"held-out figures (eval_*) are of {few} row{'s' * (few > 1)} alone and say little"
            notes += (f"{alone}: data.held_out = {settings.held_out} of {len(encoded.rows)}; hold out more",)
    widths = settings.buckets or (max(len(side.tokens) for part in parts for row in part for side in row),)
    train, *rest = (bucketed(encoded._replace(rows=part), widths) for part in parts)
    counts = {name: counts[name] for name in encoded.counts} | {"held_out": sum(map(len, parts[1:]))}
    return Prepared(Data(train, *rest), counts, notes)


class Asked(NamedTuple):
    """data: PromptRows, in buckets. rows: all that were given or read, with their prompts, which their numbers are of.
    counts: of them."""

    data: Data
    rows: list[Row]
    counts: dict[str, int]


def prepare_prompts(
    settings: DataConfig,
    tokenizer: Tokenizer,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
) -> Asked:
    """Prompts to learn from, and others to measure on, as token arrays. Rows of any format will do, for their prompts.

    rows, held_out: as for `prepare`. Longer prompts than `settings.max_prompt_length`, or else max_length, keep their
    end. Raises InputError, with the row's number, for one that has no prompt.
    """
    if rows is not None and settings.split is not None:
        raise InputError(f"split = {settings.split!r} chooses from a file, and rows are given; leave one of them out")
    if isinstance(rows, str | Path | dict):
        raise InputError(f"rows are {rows!r:.60}, not a list of rows; a file is given by data.path")
    train = read_prompts(settings.path, settings.split, settings.format) if rows is None else list(rows)
    every = with_prompts([*train, *(held_out or ())])
    longest = settings.max_prompt_length or settings.max_length
    whole = prompts_as_ids(every, tokenizer, settings.markup, settings.date)
    prompts = kept_prompts(whole, tokenizer, longest)
    measured = np.arange(len(every)) >= len(train)
    if held_out is None and settings.held_out > 0:
        told = zip(prompts.tokens, prompts.length, strict=True)
        chosen = _apart([tuple(tokens[:n].tolist()) for tokens, n in told], float(settings.held_out))[1]
        measured[chosen] = True
    buckets = prompt_buckets(prompts, settings.buckets)

    def part(within: np.ndarray) -> tuple[PromptRows, ...]:
        own = [jax.tree.map(lambda x, b=b: x[within[b.row]], b) for b in buckets]
        return tuple(b for b in own if len(b.row))

    counts = {"rows": len(every), "kept": int(np.sum(~measured))}
    counts |= {"truncated_prompts": sum(len(ids) > longest for ids in whole), "held_out": int(np.sum(measured))}
    return Asked(Data(part(~measured), part(measured)), every, counts)


def read_encoded(
    settings: DataConfig,
    tokenizer: Tokenizer,
    rows: Iterable[Row] | None = None,
    *,
    learns_from: str = "any",
    model: ModelConfig | None = None,
) -> tuple[Encoded, tuple[str, ...]]:
    """(rows as ids, notes), for `prepare` and `lint` alike. Arguments and errors as for `prepare`."""
    if rows is not None and settings.split is not None:
        raise InputError(f"split = {settings.split!r} chooses from a file, and rows are given; leave one of them out")
    if rows is None:
        rows, notes = read(settings.path, settings.split, settings.format)
    else:
        rows, notes = given_rows(rows, settings.format)
    chosen = rows_for(learns_from, rows)
    encoded = encode_rows(
        chosen.rows,
        tokenizer,
        max_length=settings.max_length,
        max_prompt_length=settings.max_prompt_length,
        markup=settings.markup,
        date=settings.date,
        model=model,
        numbers=chosen.numbers,
    )
    if learns_from == "comparisons":
        encoded = encoded._replace(rows=[tuple(_as_said(side, tokenizer) for side in row) for row in encoded.rows])
    return encoded, (*notes, *filter(None, [chosen.note]))


def _as_said(side: Sequences, tokenizer: Tokenizer) -> Sequences:
    """Up to the token that ends it. A reward is read off the last token, and what templates write after that one, a
    line break by rule, no policy says.
    """
    ends = np.flatnonzero(np.isin(side.tokens[side.prompt_length :], sorted(tokenizer.stops)))
    stop = side.prompt_length + (int(ends[-1]) + 1 if len(ends) else 0)
    if not len(ends) or tokenizer.decode(side.tokens[stop:].tolist()).strip():
        return side
    return side._replace(tokens=side.tokens[:stop])


def _hold_out(rows: Sequence[tuple], share: float) -> tuple[list[tuple], list[tuple]]:
    train, measured = _apart([row[0].prompt_id for row in rows], share)
    return [rows[i] for i in train], [rows[i] for i in measured]


def _apart(prompts: Sequence[Any], share: float) -> tuple[list[int], list[int]]:
    """Which rows to train on and which to measure on: whole prompts where there are prompts enough, else rows."""
    if len(prompts) < 2:
        raise InputError(f"data.held_out = {share} of a single row leaves none to train on; set data.held_out = 0")
    groups = prompts if share * len(set(prompts)) >= 1 else range(len(prompts))
    return split_by_group(range(len(prompts)), lambda i: groups[i], share=share, seed=0)
