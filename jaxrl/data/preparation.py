"""From a file, or from rows at hand, to the arrays that `train` and `run` take."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from jaxrl.data.arrays import Data
from jaxrl.data.preferences import Encoded, bucketed, encode_rows
from jaxrl.data.rows import Row, read_rows, split_by_group, understand
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.types import InputError


class Prepared(NamedTuple):
    """data: for `train` and `run`. counts: of the training rows, what was truncated, dropped or odd, by name."""

    data: Data
    counts: dict[str, int]


def prepare(
    settings: DataConfig,
    tokenizer: Tokenizer,
    rows: Sequence[Row] | None = None,
    held_out: Sequence[Row] | None = None,
) -> Prepared:
    """Rows as token arrays, in buckets.

    rows: to train on; None reads `settings.path`. held_out: to measure on; None splits off `settings.held_out` of the
    rows, always the same ones: whole prompts where there are prompts enough, so that none is on both sides, else rows.
    Raises InputError, with file and row number, for what cannot be read.
    """
    rows = read_rows(settings.path) if rows is None else rows
    if held_out is None and settings.held_out > 0:
        rows, held_out = _hold_out(rows, float(settings.held_out))
    encoded = _encode(rows, settings, tokenizer)
    measured = (_encode(held_out, settings, tokenizer),) if held_out else ()
    widths = settings.buckets or (
        max(len(side.tokens) for part in (encoded, *measured) for row in part.rows for side in row),
    )
    train, *rest = (bucketed(part, widths) for part in (encoded, *measured))
    return Prepared(Data(train, *rest), encoded.counts)


def _hold_out(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    groups = []
    for number, row in enumerate(rows, 1):
        try:
            groups.append(json.dumps(understand(row).prompt))
        except InputError as error:
            raise InputError(f"row {number} {error}") from error
    if share * len(set(groups)) < 1:
        groups = range(len(rows))
    grouped = [{**row, "_group": group} for row, group in zip(rows, groups, strict=True)]
    return split_by_group(grouped, "_group", share=share, seed=0)


def _encode(rows: Sequence[Row], settings: DataConfig, tokenizer: Tokenizer) -> Encoded:
    return encode_rows(rows, tokenizer, max_length=settings.max_length, max_prompt_length=settings.max_prompt_length)
