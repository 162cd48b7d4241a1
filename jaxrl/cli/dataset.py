"""jaxrl data: look at a data set as it will be trained on."""

import json
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxrl.algorithms import ALGORITHMS
from jaxrl.data.linting import described
from jaxrl.data.preparation import read_encoded
from jaxrl.data.reading.recipes import FORMATS
from jaxrl.data.settings import DataConfig
from jaxrl.lm.pretrained.weights import load_tokenizer
from jaxrl.settings import check


def data(
    action: Positional[Literal["lint"]],
    file: Positional[Path],
    *,
    algorithm: Literal["any", "sft", "reward", "dpo", "kto"] = "any",
    model: str = "smollm2-135m",
    max_length: int = 512,
    max_prompt_length: int | None = None,
    split: str | None = None,
    format: Literal[FORMATS] = "auto",  # pyright: ignore[reportInvalidTypeForm]
    markup: Literal["text", "tokens"] = "text",
    date: str = DataConfig.date,
    rows: int = 3,
) -> None:
    """Look at a data set: `lint` shows its first rows with the trained tokens marked, counts, and lengths.

    Args:
        action: What to do.
        file: Rows as jsonl, JSON, csv, parquet or arrow, .gz and .zst too, or a folder with such files.
        algorithm: Which is to learn from them; "any" shows the rows as they are.
        model: Whose tokenizer and chat template to use.
        max_length: Tokens of prompt and completion together.
        max_prompt_length: Tokens of the prompt, of which the end is kept.
        split: Which part of a folder, as in "train"; "train+test" is both.
        format: The shape that rows come in; auto tells by the first one, and asks where it cannot.
        markup: What special tokens are that texts and messages spell: plain text, or tokens.
        date: What chat templates that ask for the day are told.
        rows: How many rows to show.
    """
    settings = DataConfig(
        path=str(file),
        split=split,
        format=format,
        max_length=max_length,
        max_prompt_length=max_prompt_length,
        markup=markup,
        date=date,
    )
    check(settings)
    learns_from = "any" if algorithm == "any" else ALGORITHMS[algorithm].learns_from
    tokenizer = load_tokenizer(model)
    encoded, notes = read_encoded(settings, tokenizer, learns_from=learns_from)
    print(described(settings, tokenizer, encoded, notes, rows=rows), end="")
    print(json.dumps({"file": str(file), "format": encoded.format, **encoded.counts}))
