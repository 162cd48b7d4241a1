"""jaxrl data: look at a data set as it will be trained on."""

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxrl.data.linting import lint
from jaxrl.data.reading.recipes import FORMATS
from jaxrl.lm.pretrained.weights import load_tokenizer


def data(
    action: Positional[Literal["lint"]],
    file: Positional[Path],
    *,
    model: str = "smollm2-135m",
    max_length: int = 512,
    max_prompt_length: int | None = None,
    split: str | None = None,
    format: Literal[FORMATS] = "auto",
    rows: int = 3,
) -> None:
    """Look at a data set: `lint` shows its first rows with the trained tokens marked, counts, and lengths.

    Args:
        action: What to do.
        file: Rows as jsonl, JSON, csv, parquet or arrow, .gz and .zst too, or a folder with such files.
        model: Whose tokenizer and chat template to use.
        max_length: Tokens of prompt and completion together.
        max_prompt_length: Tokens of the prompt, of which the end is kept.
        split: Which part of a folder, as in "train"; "train+test" is both.
        format: The shape that rows come in; auto tells by the first one, and asks where it cannot.
        rows: How many rows to show.
    """
    limits = {"max_length": max_length, "max_prompt_length": max_prompt_length}
    print(lint(file, load_tokenizer(model), **limits, split=split, format=format, rows=rows), end="")
