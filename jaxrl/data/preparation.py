"""From a file, or from rows at hand, to the arrays that `train` and `run` take."""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxrl.data.arrays import Data
from jaxrl.data.preferences import Encoded, bucketed, encode_rows
from jaxrl.data.rows import Row, given_rows, read, split_by_group, understand
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.types import InputError


class Prepared(NamedTuple):
    """data: for `train` and `run`. counts: of the training rows, what was truncated, dropped or odd, by name.

    notes: sentences that say how the rows were read and what they were taken as.
    """

    data: Data
    counts: dict[str, int]
    notes: list[str]


def prepare(
    settings: DataConfig,
    tokenizer: Tokenizer,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
) -> Prepared:
    """Rows as token arrays, in buckets.

    rows: to train on, of any iterable, gone through once; None reads `settings.path`. held_out: to measure on; None
    splits off `settings.held_out` of the rows, always the same ones: whole prompts where there are prompts enough, so
    that none is on both sides, else rows. All are in the shape that `settings.format` says.
    Raises InputError, with file and row number, for what cannot be read.
    """
    if rows is not None and settings.split is not None:
        raise InputError(f"split = {settings.split!r} chooses from a file, and rows are given; leave one of them out")
    if rows is None:
        rows, notes = read(settings.path, settings.split, settings.format)
    else:
        rows, notes = given_rows(rows, settings.format)
    if held_out is None:
        rows, held_out = _hold_out(rows, float(settings.held_out)) if settings.held_out > 0 else (rows, [])
    elif held_out := list(held_out):
        held_out = given_rows(held_out, settings.format).rows
    encoded = _encode(rows, settings, tokenizer)
    measured = (_encode(held_out, settings, tokenizer),) if held_out else ()
    widths = settings.buckets or (
        max(len(side.tokens) for part in (encoded, *measured) for row in part.rows for side in row),
    )
    train, *rest = (bucketed(part, widths) for part in (encoded, *measured))
    return Prepared(Data(train, *rest), encoded.counts, notes)


def _hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    groups = [json.dumps(understand(row).prompt, default=str) for row in rows]
    if share * len(set(groups)) < 1:
        groups = range(len(rows))
    grouped = [{**row, "_group": group} for row, group in zip(rows, groups, strict=True)]
    return split_by_group(grouped, "_group", share=share, seed=0)


def _encode(rows: Sequence[Row], settings: DataConfig, tokenizer: Tokenizer) -> Encoded:
    return encode_rows(rows, tokenizer, max_length=settings.max_length, max_prompt_length=settings.max_prompt_length)
