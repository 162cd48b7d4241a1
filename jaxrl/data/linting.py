"""A report on preference data as it will be trained on: read it before the accelerator does."""

from collections import Counter

import numpy as np

from jaxrl.data.preferences import Encoded, Sequences
from jaxrl.data.preparation import read_encoded
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import ModelConfig

_BAR, _LONGEST_SHOWN = 40, 400


def lint(
    settings: DataConfig,
    tokenizer: Tokenizer,
    *,
    learns_from: str = "any",
    model: ModelConfig | None = None,
    rows: int = 3,
) -> str:
    """`described` rows of `settings.path`. learns_from, model: as for `prepare`, which these rows go through. Raises
    InputError as `prepare` does.
    """
    return described(
        settings, tokenizer, *read_encoded(settings, tokenizer, learns_from=learns_from, model=model), rows=rows
    )


def described(
    settings: DataConfig, tokenizer: Tokenizer, encoded: Encoded, notes: tuple[str, ...], *, rows: int = 3
) -> str:
    """Format, the first rows with «trained» tokens marked, counts, conflicts, label balance, lengths and buckets of
    what `read_encoded` read. rows: how many to show.
    """
    longest = np.array([max(len(side.tokens) for side in row) for row in encoded.rows])
    shown = [
        "\n".join([f"{settings.path}: {encoded.counts['rows']} rows of {encoded.format}", *notes]),
        *(_show(number, row, tokenizer) for number, row in enumerate(encoded.rows[:rows], 1)),
        _counts(encoded, settings.markup),
        _histogram(longest),
        _buckets(longest),
    ]
    return "\n\n".join(shown) + "\n"


def suggest_buckets(longest: np.ndarray) -> list[int]:
    """Lengths that hold half, 90 % and all of the rows, rounded up to multiples of 16 below the longest: three programs
    to compile at most.
    """
    quantiles = np.quantile(longest, [0.5, 0.9, 1.0], method="higher")
    return sorted({min(-(-int(q) // 16) * 16, int(longest.max())) for q in quantiles})


def conflicts(encoded: Encoded) -> int:
    """Judgements that contradict each other: completions labelled both ways, or pairs that also stand in reverse."""

    def ids(side: Sequences) -> tuple:
        return side.prompt_id, tuple(side.tokens[side.prompt_length :])

    if encoded.rows[0][0].label is not None:
        told = {(ids(side), side.label) for (side,) in encoded.rows}
        return sum(n == 2 for n in Counter(which for which, _ in told).values())
    pairs = {tuple(map(ids, row)) for row in encoded.rows if len(row) == 2}
    return sum(pair[::-1] in pairs for pair in pairs) // 2


def _show(number: int, row: tuple[Sequences, ...], tokenizer: Tokenizer) -> str:
    def shortened(text: str) -> str:
        text, half = text.replace("\n", "\n    "), _LONGEST_SHOWN // 2
        return text if len(text) <= _LONGEST_SHOWN else f"{text[:half]} […] {text[-half:]}"

    lines = []
    names = ("chosen", "rejected") if len(row) == 2 else ("completion",)
    for name, side in zip(names, row, strict=True):
        prompt, completion = side.tokens[: side.prompt_length], side.tokens[side.prompt_length :]
        label = "" if side.label is None else f", label {'good' if side.label else 'bad'}"
        end = "" if side.whole else ", truncated: no end"
        lines += [f"row {number}, {name}{label}: {len(prompt)} + {len(completion)} tokens{end}"]
        trained = tokenizer.decode_after(prompt, completion)
        lines += [f"    {shortened(tokenizer.decode(prompt))}«{shortened(trained)}»"]
    return "\n".join(lines)


def _counts(encoded: Encoded, markup: str) -> str:
    c, n = encoded.counts, encoded.counts["kept"]
    sides = n * len(encoded.rows[0])
    contradictions = (
        "pairs that also stand in reverse" if len(encoded.rows[0]) == 2 else "completions labelled both ways"
    )
    spelt = {
        "text": "kept, as plain text; data.markup = 'tokens' (--markup tokens) makes it tokens",
        "tokens": "kept, as tokens; data.markup = 'text' makes it plain text",
    }[markup]
    lines = [
        (n, f"of {c['rows']} rows kept"),
        (c["empty_prompts"], "rows dropped: empty prompt, and the tokenizer adds no BOS"),
        (c["empty_completions"], "rows dropped: empty completion"),
        (c["identical"], "rows dropped: chosen and rejected are the same tokens"),
        (c["truncated_prompts"], f"of {n} prompts truncated: they lost their beginning"),
        (c["truncated_completions"], f"of {sides} completions truncated: they lost their end"),
        (c["duplicates"], "rows repeat an earlier one (kept)"),
        (c["markup"], f"rows spell a special token ({spelt})"),
        (c["unknown"], "rows have characters that the tokenizer does not know (kept, without them)"),
        (conflicts(encoded), contradictions),
    ]
    if encoded.rows[0][0].label is not None:
        good = sum(side.label == 1 for (side,) in encoded.rows)
        lines += [(good, f"good, {n - good} bad: {good / n:.0%} good")]
    return "\n".join(f"{count:>8} {text}" for count, text in lines)


def _histogram(longest: np.ndarray) -> str:
    counts, edges = np.histogram(longest, bins=min(10, len(set(longest.tolist()))))
    bars = [f"{edges[i]:>8.0f} {'█' * round(_BAR * n / counts.max())} {n}" for i, n in enumerate(counts)]
    middle = f"median {np.median(longest):.0f}, 90 % {np.quantile(longest, 0.9):.0f}, longest {longest.max()}"
    return "\n".join([f"tokens per row ({middle}):", *bars])


def _buckets(longest: np.ndarray) -> str:
    buckets = suggest_buckets(longest)
    widths = np.array(buckets)[np.searchsorted(buckets, longest)]
    share, alone = longest.sum() / widths.sum(), longest.mean() / longest.max()
    if len(buckets) == 1:
        return f"one bucket is enough: of {buckets[0]} tokens, {alone:.0%} of them real"
    return f"suggested buckets: {buckets} ({share:.0%} of the tokens are real; with one bucket {alone:.0%})"
