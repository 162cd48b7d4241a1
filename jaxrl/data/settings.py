"""The settings that every algorithm which learns from data shares: which rows, and how they are gone through."""

import datetime

from jaxrl.data.reading.recipes import FORMATS
from jaxrl.settings import config, leaf, static
from jaxrl.types import InputError


@config
class DataConfig:
    """Which rows a language model learns from, and how they become tokens."""

    path: str = static("")
    """A file of rows (jsonl, JSON, csv, parquet or arrow; .gz and .zst too), or a folder with such files."""
    split: str | None = static(None)
    """Which part of a folder, as in "train"; "train+test" is both. Needed where there are several."""
    format: str = static("auto", choices=FORMATS)
    """The shape that rows come in: "hh", "sharegpt", "orca", "alpaca", "qa", "json", or "plain" for our own columns.
    "auto" tells by the first row, and asks where it cannot."""
    max_length: int = static(512, at_least=2)
    """Tokens of prompt and completion together; longer completions are cut, and then have no end token."""
    max_prompt_length: int | None = static(None, at_least=1)
    """Tokens of the prompt; of longer ones the end is kept. None leaves the completion its room first."""
    buckets: tuple[int, ...] = static(())
    """Widths that rows are padded to, each a program of its own; none is one bucket as wide as the longest row."""
    markup: str = static("text", choices=("text", "tokens"))
    """What special tokens are that texts and messages spell (<|im_end|>): plain text, or tokens, as text that was
    rendered by a chat template before needs."""
    date: str = static("2026-01-01")
    """What chat templates that ask for the day are told: year-month-day."""
    held_out: float = leaf(0.05, 0.0, 0.9)
    """Share of the rows that is evaluated and never trained on."""

    # Losses compare where the rows that are evaluated, and their tokens, are the same.
    defines_task = ("path", "split", "format", "max_length", "max_prompt_length", "markup", "date", "held_out")

    def validate(self) -> None:
        """Raises InputError unless `date` is one."""
        try:
            datetime.date.fromisoformat(self.date)
        except ValueError as error:
            raise InputError(f"date = {self.date!r} is no day ({error}); write it as 2026-01-01") from error


@config
class Loop:
    """How rows are gone through; a row is a pair where an algorithm learns from pairs. What batch is usual differs with
    the algorithm, so each has its own default.
    """

    batch_size: int = static(at_least=1)
    """Rows per update."""
    epochs: int = static(1, at_least=1)
    """Times that every row is seen."""
    max_updates: int | None = static(None, at_least=1)
    """Stop, and end the learning rate's schedule, after this many updates even if epochs remain."""
    micro_batch_size: int | None = static(None, at_least=1)
    """Rows that are computed with at once, to learn or to measure: less memory, the same result. None takes all."""

    def validate(self) -> None:
        """Raises InputError, naming the nearest divisors, unless batch_size is a whole number of micro-batches."""
        micro, batch = self.micro_batch_size, self.batch_size
        if micro is not None and batch % micro:
            divisors = sorted((d for d in range(1, batch + 1) if batch % d == 0), key=lambda d: abs(d - micro))
            near = " or ".join(map(str, sorted(divisors[:2])))
            raise InputError(f"batch_size = {batch} is not a multiple of micro_batch_size = {micro}; try {near}")
