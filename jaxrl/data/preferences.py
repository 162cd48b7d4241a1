"""Preferences as token arrays: the contract between words and losses.

- Prompt and completion are tokenised apart and joined as ids: no token spans the boundary, nothing is put between.
- Text is used as it is. Messages go through the chat template, with and without the answer: the prompt is what it
  writes before the assistant speaks, the completion is what the answer adds, end of turn included.
- Markup spelled in text or messages (<|im_end|>) stays plain text, counted, or becomes tokens where that is asked for.
- Every whole completion has an end, and the end is trained: the template's own, else EOS. A truncated completion has
  none: it did not end there.
- Truncation: the prompt keeps its end (and BOS, if the tokenizer adds one). It may fill max_prompt_length; by default
  half of max_length or all that the longest completion of its row leaves, whichever is more. Completions get the rest,
  which is at least one token. Both sides of a pair keep the same prompt.
- Lengths are stored, never read off padding: in many models the padding id is the EOS.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl.data.messages import strings
from jaxrl.data.prompts import encode_example, keep_end, lengths, padded
from jaxrl.data.rows import Row, understand
from jaxrl.data.settings import DataConfig
from jaxrl.lm.text.tokenizer import Exchange, Tokenizer
from jaxrl.lm.transformer import ModelConfig
from jaxrl.lm.vocabulary import check_ids
from jaxrl.types import InputError

_COUNTS = (
    "rows",
    "kept",
    "truncated_prompts",
    "truncated_completions",
    "empty_prompts",  # dropped: without a token before it, the first token of a completion has no probability
    "empty_completions",  # dropped
    "identical",  # dropped: chosen and rejected alike, perhaps only after truncation
    "duplicates",  # kept: rows that an earlier one equals
    "markup",  # kept: rows that spell a special token
    "unknown",  # kept: rows with characters that the tokenizer does not know
)


class Sequences(NamedTuple):
    """One completion after its prompt. tokens: prompt, completion and its end, if whole. label: 1 good, 0 bad."""

    tokens: Int[np.ndarray, " l"]
    prompt_length: int
    whole: bool
    label: float | None
    prompt_id: int


class Encoded(NamedTuple):
    """rows: (completion,) or (chosen, rejected) each. counts: what was truncated, dropped or odd, by name.

    format: of the rows, for people.
    """

    rows: list[tuple[Sequences, ...]]
    counts: dict[str, int]
    pad: int | None
    format: str


class Completions(NamedTuple):
    """n rows of prompt + completion, right-padded to L; NumPy until put on a device.

    length counts prompt and completion, EOS included: positions prompt_length <= t < length are trained.
    prompt_id: equal where the (untruncated) prompts are equal, as KTO's mismatched pairs need.
    ref_log_prob: of the completion under the reference model, summed, where that was computed beforehand.
    """

    tokens: Int[Array, "n L"]
    prompt_length: Int[Array, " n"]
    length: Int[Array, " n"]
    label: Float[Array, " n"] | None
    prompt_id: Int[Array, " n"]
    ref_log_prob: Float[Array, " n"] | None = None


class Pairs(NamedTuple):
    """Chosen and rejected completions of the same prompts, row by row."""

    chosen: Completions
    rejected: Completions


def encode_rows(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    max_prompt_length: int | None = None,
    markup: str = "text",
    date: str = DataConfig.date,
    model: ModelConfig | None = None,
    numbers: Sequence[int] | None = None,
) -> Encoded:
    """Rows as ids, by the contract above. max_length: tokens of prompt and completion together, end included.

    markup, date: as in DataConfig. model: whose vocabulary and context the rows must fit. numbers: of the rows, for
    people; by default from 1 on. Raises InputError, with the row's number, for rows that are malformed, of several
    formats, or not for this model, and if none is left.
    """
    _check(tokenizer, max_length, max_prompt_length)
    counts = dict.fromkeys(_COUNTS, 0)
    encoded, prompts, seen, first = [], {}, set(), None
    for number, row in zip(numbers or range(1, len(rows) + 1), rows, strict=True):
        try:
            example = understand(row)
            made = encode_example(example, tokenizer, markup, date)
        except InputError as error:
            raise InputError(f"row {number} {error}") from error
        if first not in (None, example.format):
            raise InputError(f"row {number} is of {example.format}, but the first row is of {first}; encode them apart")
        first, whole = example.format, (tuple(made[0].prompt), *(tuple(e.answer) for e in made), example.label)
        told = {
            "duplicates": whole in seen,
            "markup": any(map(tokenizer.has_markup, strings([example.prompt, example.completions]))),
            "unknown": tokenizer.unknown is not None and any(tokenizer.unknown in e.prompt + e.answer for e in made),
            "empty_prompts": not made[0].prompt,
            "empty_completions": bool(made[0].prompt) and not all(e.answer for e in made),
        }
        seen.add(whole)
        if not told["empty_prompts"] and not told["empty_completions"]:
            prompt_id = prompts.setdefault(whole[0], len(prompts))
            sides, cut = _sides(made, example.label, prompt_id, tokenizer, (max_length, max_prompt_length))
            same = len(sides) == 2 and np.array_equal(sides[0].tokens, sides[1].tokens)
            told |= {"identical": True} if same else {"kept": True, **cut}
            for side in sides if model is not None else ():
                check_ids(side.tokens, model, f"row {number}")
            encoded += [] if same else [sides]
        for name, count in told.items():
            counts[name] += count
    counts["rows"] = len(rows)
    if not encoded:
        raise InputError(f"none of {len(rows)} rows is left ({', '.join(f'{k} {v}' for k, v in counts.items() if v)})")
    return Encoded(encoded, counts, tokenizer.pad, first)


def _sides(
    made: Sequence[Exchange],
    good: bool | None,
    prompt_id: int,
    tokenizer: Tokenizer,
    limits: tuple[int, int | None],
) -> tuple[tuple[Sequences, ...], dict[str, int]]:
    """A row as it is learned from, with its ends and within the limits; and what was cut of it, to be counted."""
    ended = [e.answer if e.ended else [*e.answer, tokenizer.eos] for e in made]
    prompt, cut = _fit(made[0].prompt, ended, tokenizer.prefix, *limits)
    label = None if good is None else float(good)
    sides = tuple(
        Sequences(np.array([*prompt, *c], np.int32), len(prompt), len(c) == len(e), label, prompt_id)
        for c, e in zip(cut, ended, strict=True)
    )
    shorter = len(prompt) < len(made[0].prompt)
    return sides, {"truncated_prompts": shorter, "truncated_completions": sum(not side.whole for side in sides)}


def bucketed(encoded: Encoded, buckets: Sequence[int]) -> tuple[Completions | Pairs, ...]:
    """The rows as arrays, one entry per bucket that is not empty, shortest first: each row lies in the smallest bucket
    that holds it, a pair in that of its longer side.

    buckets: lengths in tokens; each compiles one program. Raises InputError for a row longer than all of them.
    """
    sizes = sorted(set(buckets))
    longest = np.array([max(len(side.tokens) for side in row) for row in encoded.rows])
    if not sizes or longest.max() > sizes[-1]:
        found = f"the longest row has {longest.max()} tokens, more than buckets = {list(buckets)} hold"
        raise InputError(f"{found}; add {longest.max()} to them, or encode with a smaller max_length")
    of_row = np.searchsorted(sizes, longest)
    return tuple(
        _stack([encoded.rows[i] for i in np.flatnonzero(of_row == b)], size, encoded.pad)
        for b, size in enumerate(sizes)
        if (of_row == b).any()
    )


def grouped_by_prompt(rows: Pairs, size: int) -> Pairs:
    """Pairs of one prompt in one row: leading axes [groups, size] in every array. A prompt with more of them has
    several groups; what fills a group up is of length 0.
    """
    ids = np.asarray(rows.chosen.prompt_id)
    order = np.argsort(ids, kind="stable")
    groups = [
        np.pad(own[i : i + size], (0, max(0, size - len(own) + i)), constant_values=-1)
        for own in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1)
        for i in range(0, len(own), size)
    ]
    places = np.array(groups)

    def taken(x: np.ndarray) -> np.ndarray:
        found = np.asarray(x)[places]
        found[places < 0] = 0
        return found

    return jax.tree.map(taken, rows)


def _check(tokenizer: Tokenizer, max_length: int, max_prompt_length: int | None) -> None:
    if tokenizer.eos is None:
        raise InputError("the tokenizer has no EOS, so no completion could end; give it an eos_token")
    if max_length < 2:
        raise InputError(f"max_length = {max_length} holds no prompt and completion; it must be at least 2")
    if max_prompt_length is not None and not 1 <= max_prompt_length < max_length:
        limits = f"it must be at least 1 and less than max_length = {max_length}"
        raise InputError(f"max_prompt_length = {max_prompt_length} leaves no room; {limits}")


def _fit(
    prompt: list[int], completions: list[list[int]], prefix: list[int], max_length: int, max_prompt_length: int | None
) -> tuple[list[int], list[list[int]]]:
    rest = max_length - max(map(len, completions))
    prompt = keep_end(prompt, max_prompt_length or max(max_length // 2, rest), prefix)
    return prompt, [completion[: max_length - len(prompt)] for completion in completions]


def _stack(rows: list[tuple[Sequences, ...]], width: int, pad: int | None) -> Completions | Pairs:
    sides = [_completions(side, width, pad) for side in zip(*rows, strict=True)]
    return Pairs(*sides) if len(sides) == 2 else sides[0]


def _completions(rows: Sequence[Sequences], width: int, pad: int | None) -> Completions:
    tokens = [row.tokens for row in rows]
    return Completions(
        tokens=padded(tokens, width, pad),
        prompt_length=np.array([row.prompt_length for row in rows], np.int32),
        length=lengths(tokens),
        label=None if rows[0].label is None else np.array([row.label for row in rows], np.float32),
        prompt_id=np.array([row.prompt_id for row in rows], np.int32),
    )
