"""Which rows an algorithm learns from, and what it does with rows of another kind: one table.

| rows | SFT | DPO, reward models | KTO |
|---|---|---|---|
| pairs | their `messages`, or else the chosen answers | as they are | each as a good and a bad answer |
| completions, messages | as they are | refused | refused |
| the same, labelled | the good ones | refused | as they are |
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from jaxrl.data.rows import Row, understand
from jaxrl.types import InputError

T = TypeVar("T")


class Chosen(NamedTuple):
    """Rows to learn from, a sentence on what was made of those that were given, or "", and for each of the rows the
    number of the one that it was made of.
    """

    rows: list[Row]
    note: str
    numbers: list[int]


def rows_for(learns_from: str, rows: Sequence[Row], seed: int = 0) -> Chosen:
    """The rows as an algorithm learns from them, by the table above.

    learns_from: "answers" (SFT), "pairs" (DPO), "comparisons" (Reward), "labels" (KTO), or "any": as they are. Raises
    InputError where the table refuses.
    """
    kind = _kind(rows[0]) if rows and learns_from != "any" else None
    return _TABLE.get((learns_from, kind), _as_they_are)(rows, seed)


def _as_they_are(rows: Sequence[Row], seed: int) -> Chosen:
    return Chosen(list(rows), "", list(range(1, len(rows) + 1)))


def unpair(rows: Sequence[Row], seed: int) -> list[Row]:
    """Pairs as labelled completions: chosen true, rejected false, shuffled, other columns kept.

    Unshuffled, all batches would be of one class.
    """
    return _unpaired(rows, seed).rows


def split_by_group(
    rows: Sequence[T], by: str | Callable[[T], Any], *, share: float, seed: int
) -> tuple[list[T], list[T]]:
    """(the rest, at least `share` of the rows): whole groups, so that nothing of a group is on both sides.

    by: the column that names the group (say, the film under review), or a function of the row.
    """
    group_of = by if callable(by) else lambda row: row[by]
    if not callable(by) and (missing := [i for i, row in enumerate(rows, 1) if by not in row]):
        raise InputError(f"row {missing[0]} has no `{by}` to split by; it has {', '.join(rows[missing[0] - 1])}")
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(group_of(row), []).append(i)
    held, names = set(), list(groups)
    for g in np.random.default_rng(seed).permutation(len(names)):
        if len(held) >= share * len(rows):
            break
        held |= set(groups[names[g]])
    if not 0 < len(held) < len(rows):
        raise InputError(f"share = {share} of {len(names)} groups leaves one side empty; change it, or split finer")
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]


def _kind(row: Row) -> str:
    example = _example(1, row)
    return "pairs" if len(example.completions) == 2 else "answers" if example.label is None else "labels"


def _example(number: int, row: Row) -> Any:
    try:
        return understand(row)
    except InputError as error:
        raise InputError(f"row {number} {error}") from error


def _answer_of(row: Row, example: Any, side: str) -> Row:
    completion = example.completions[("chosen", "rejected").index(side)]
    rest = {k: v for k, v in row.items() if k not in ("prompt", "chosen", "rejected", "label", "messages")}
    messages = isinstance(completion, dict)
    if messages and example.prompt[:1] == [{"role": "system", "content": rest.get("system")}]:
        del rest["system"]  # it is in the prompt
    return {"prompt": example.prompt, "completion": [completion] if messages else completion, **rest}


def _unpaired(rows: Sequence[Row], seed: int) -> Chosen:
    made, numbers = [], []
    for i, row in enumerate(rows, 1):
        example = _example(i, row)
        if len(example.completions) != 2:
            raise InputError(f"row {i} is of {example.format}; only pairs can be unpaired")
        made += [_answer_of(row, example, s) | {"label": s == "chosen"} for s in ("chosen", "rejected")]
        numbers += [i, i]
    order = np.random.default_rng(seed).permutation(len(made))
    note = f"{len(rows)} pairs, each taken as a good and a bad answer"
    return Chosen([made[i] for i in order], note, [numbers[i] for i in order])


def _chosen(rows: Sequence[Row], seed: int) -> Chosen:
    if all(row.get("messages") is not None for row in rows):
        spoken = [{k: v for k, v in row.items() if k not in ("prompt", "chosen", "rejected", "label")} for row in rows]
        return _as_they_are(spoken, 0)._replace(note=f"{len(rows)} pairs, of which `messages` are learned from")
    answers = [_answer_of(row, _example(i, row), "chosen") for i, row in enumerate(rows, 1)]
    return _as_they_are(answers, 0)._replace(note=f"{len(rows)} pairs, of which the chosen answers are learned from")


def _good(rows: Sequence[Row], seed: int) -> Chosen:
    numbers = [i for i, row in enumerate(rows, 1) if _example(i, row).label is not False]
    if not numbers:
        raise InputError(f"all {len(rows)} rows are labelled false, and SFT would imitate them; use KTO")
    kept = [{k: v for k, v in rows[i - 1].items() if k != "label"} for i in numbers]
    return Chosen(kept, f"{len(kept)} of {len(rows)} rows, those labelled true: SFT would imitate the others", numbers)


def _refuse(sentence: str) -> Callable[[Sequence[Row], int], Chosen]:
    def refuse(rows: Sequence[Row], seed: int) -> Chosen:
        raise InputError(sentence)

    return refuse


_TABLE = {
    ("answers", "pairs"): _chosen,
    ("answers", "labels"): _good,
    ("pairs", "answers"): _refuse(
        "DPO learns from {prompt, chosen, rejected}, and these rows have one answer each; use SFT, or give each a "
        "rejected answer"
    ),
    ("pairs", "labels"): _refuse(
        "DPO learns from {prompt, chosen, rejected}, and these rows have one labelled answer each; use KTO"
    ),
    ("comparisons", "answers"): _refuse(
        "a reward model learns from {prompt, chosen, rejected}, and these rows have one answer each; give each a "
        "rejected answer"
    ),
    ("comparisons", "labels"): _refuse(
        "a reward model learns from {prompt, chosen, rejected}, and these rows have one labelled answer each; pair "
        "good and bad answers to the same prompt"
    ),
    ("labels", "pairs"): _unpaired,
    ("labels", "answers"): _refuse(
        "KTO learns from {prompt, completion, label}, and these rows have no label; give every row one, or use SFT"
    ),
}
