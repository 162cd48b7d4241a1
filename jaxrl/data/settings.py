"""The settings of a data set that every algorithm for language models shares."""

from jaxrl.settings import config, leaf, static


@config
class DataConfig:
    """Which rows a language model learns from, and how they become tokens."""

    path: str = static("")
    """A .jsonl or .parquet file, or a datasets folder."""
    max_length: int = static(512, at_least=2)
    """Tokens of prompt and completion together; longer completions are cut, and then have no end token."""
    max_prompt_length: int | None = static(None, at_least=1)
    """Tokens of the prompt; of longer ones the end is kept. None leaves the completion its room first."""
    buckets: tuple[int, ...] = static(())
    """Widths that rows are padded to, each a program of its own; none is one bucket of max_length."""
    held_out: float = leaf(0.05, 0.0, 0.9)
    """Share of the rows that is evaluated and never trained on."""
