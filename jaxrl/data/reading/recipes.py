"""Recipes by name: rows in the shapes that data sets have, as {prompt, chosen, rejected}, {prompt, completion} or
{messages}. A recipe only renames and regroups; other columns stay, `system` and `label` among them.

A question or an instruction and its answer become messages of the user and the assistant: as text, nothing would stand
between them.
"""

import datetime
import decimal
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from jaxrl.data.reading import conversations
from jaxrl.data.reading.conversations import HUMAN, Row, first, has, settled
from jaxrl.settings import closest
from jaxrl.types import InputError


class Recipe(NamedTuple):
    """about: one line for people. convert: a row in our columns; raises InputError with a clause after "row 17 ".

    sure, maybe: whether a row can only be, or may be, of this shape. odd, oddity: which rows are worth a word, and it.
    """

    about: str
    convert: Callable[[Row], Row]
    sure: Callable[[Any], bool] = lambda row: False
    maybe: Callable[[Any], bool] = lambda row: False
    odd: Callable[[Row], bool] = lambda row: False
    oddity: str = ""


class Taken(NamedTuple):
    """Rows in our columns, and sentences that say how they were come by."""

    rows: list[Row]
    notes: list[str]


def take(found: Iterable[tuple[str, Any]], format: str, check: Callable[[Row], Any], *, prompts: bool = False) -> Taken:
    """Rows, given as (where, row), by the recipe called `format`; "auto" is the only one that the first row can be of.

    Times, decimals and NumPy arrays in them become text, numbers and lists. check: raises InputError with a clause, as
    `understand` does. prompts: a `prompt` is all that a row needs. Raises InputError, naming the row, where it or its
    recipe does, and for rows that may be meant in two ways.
    """
    if format not in FORMATS:
        raise InputError(f"format = {format!r} is not one of {', '.join(map(repr, FORMATS))}{closest(format, FORMATS)}")
    rows, name, odd = [], None, 0
    for where, row in found:
        try:
            row = plain(row)
            name = name or (named(row, prompts) if format == "auto" else format)
            row = _converted(row, name)
            check(row)
        except InputError as error:
            taken = f" (taken as {name}: {RECIPES[name].about})" if name not in (None, "plain") else ""
            raise InputError(f"{where} {error}{taken}") from error
        odd += RECIPES[name].odd(row)
        rows.append(row)
    notes = [] if name in (None, "plain") else [f"rows are taken as {name}: {RECIPES[name].about}"]
    return Taken(rows, notes + ([f"{odd} of {len(rows)} rows {RECIPES[name].oddity}"] if odd else []))


def named(row: Any, prompts: bool = False) -> str:
    """The recipe that a row is of. Raises InputError with a clause where it has to be said, and how to say it."""
    ours = settled(row) or (prompts and has(row, "prompt"))
    able = {name: recipe for name, recipe in RECIPES.items() if name in _INSIDE or not ours}
    fits = [name for name, recipe in able.items() if recipe.sure(row)]
    if len(fits) == 1:
        return fits[0]
    fits = fits or [name for name, recipe in able.items() if recipe.maybe(row)]
    if not fits:
        return "plain"
    ways = [f"format = {name!r} (--format {name}) for {RECIPES[name].about}" for name in fits]
    ways += ["format = 'plain' (--format plain) for the text as it is"] if ours else []
    raise InputError(f"has {', '.join(row)}, which may be meant in more than one way; say {'; or '.join(ways)}")


def plain(value: Any) -> Any:
    """What JSON can hold, however deep: times as ISO text, decimals as numbers, arrays as lists; others as they are."""
    if type(value) in (str, int, float, bool):  # nearly all there is
        return value
    if isinstance(value, dict):
        return {key: plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta) or (isinstance(value, decimal.Decimal) and not value.is_finite()):
        return str(value)
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return plain(value.tolist()) if isinstance(value, np.ndarray | np.generic) else value


def _converted(row: Any, name: str) -> Row:
    if name != "plain" and not isinstance(row, dict) and not (name == "sharegpt" and isinstance(row, list)):
        raise InputError(f"is {row!r:.60}, not an object")
    return RECIPES[name].convert(row)


def _text(row: Row, *names: str) -> Any:
    found = first(row, *names)
    if not isinstance(found, str):
        what = "no" if found is None else "no text as"
        raise InputError(
            f"has {what} {' or '.join(f'`{name}`' for name in names)}; it has {', '.join(row) or 'nothing'}"
        )
    return found


def _asked(row: Row, prompt: list[Row], **answers: Any) -> Row:
    """Prompt and answers as messages. Answers that are messages stay as they are, and one that is missing missing."""
    made = {
        name: answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
        for name, answer in answers.items()
        if answer is not None
    }
    system = {"system": row["system_prompt"]} if has(row, "system_prompt") and not has(row, "system") else {}
    return {**row, **system, "prompt": prompt, **made}


def _user(row: Row, text: str) -> list[Row]:
    """Text as the user's message, after the turns of a `history` where there is one: pairs of what was said before."""
    before = first(row, "history") or []
    if not isinstance(before, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in before):
        raise InputError(f"has history {before!r:.60}; it must be a list of [instruction, output]")
    said = [*(text for turn in before for text in turn), text]
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]


def _of_orca(row: Row) -> Row:
    prompt = _user(row, _text(row, "question", "prompt"))
    if has(row, "chosen") or has(row, "rejected"):
        return _asked(row, prompt, chosen=first(row, "chosen"), rejected=first(row, "rejected"))
    return _asked(row, prompt, completion=first(row, "completion", "response", "answer"))


def _of_alpaca(row: Row) -> Row:
    more = _text(row, "input", "context") if first(row, "input", "context") else ""
    prompt = _user(row, _text(row, "instruction") + (more and f"\n\n{more}"))
    if has(row, "chosen", "rejected"):
        return _asked(row, prompt, chosen=row["chosen"], rejected=row["rejected"])
    return _asked(row, prompt, completion=first(row, "output", "response"))


def _of_qa(row: Row) -> Row:
    prompt = _user(row, _text(row, "question", "query", "prompt", "input"))
    return _asked(row, prompt, completion=first(row, "answer", "response", "output"))


def _is_question(row: Any) -> bool:
    """A question by itself: not beside what would be lost, a passage or choices that it is about or worse answers."""
    if not (has(row, "question") or has(row, "query")):
        return False
    return not any(has(row, name) for name in row if name in _BESIDE or "reject" in str(name))


def _may_be_question(row: Any) -> bool:
    answered = any(has(row, name) for name in ("response", "answer", "output"))
    return answered and (has(row, "prompt") or has(row, "input"))


RECIPES = {
    "plain": Recipe("{prompt, chosen, rejected}, {prompt, completion} or {messages} as they are", lambda row: row),
    "hh": Recipe(
        "{chosen, rejected} of whole dialogues as text: what both share, up to the last '\\n\\nAssistant:' before they"
        " part, is the prompt",
        conversations.of_dialogues,
        maybe=conversations.are_dialogues,
        odd=lambda row: HUMAN in row["chosen"] + row["rejected"],
        oddity=f"part before the last answer: what is learned there goes on with turns of the human ({HUMAN!r})",
    ),
    "sharegpt": Recipe(
        "{conversations} or other messages of {from, value}, and roles such as human and gpt, are messages of the user"
        " and the assistant",
        conversations.of_sharegpt,
        sure=conversations.are_foreign,
    ),
    "json": Recipe(
        "messages that are written as JSON text in their columns",
        conversations.of_json,
        sure=conversations.are_json,
    ),
    "orca": Recipe(
        "{question, chosen, rejected}[, system]: the question (or prompt) is the user's message, the answers the"
        " assistant's",
        _of_orca,
        sure=lambda row: has(row, "question", "chosen", "rejected"),
    ),
    "alpaca": Recipe(
        "{instruction, input, output}: instruction and input are the user's message, the output the assistant's",
        _of_alpaca,
        sure=lambda row: has(row, "instruction"),
    ),
    "qa": Recipe(
        "{question, answer} or {prompt, response}: a message of the user and one of the assistant",
        _of_qa,
        sure=_is_question,
        maybe=_may_be_question,
    ),
}
_BESIDE = ("context", "passage", "choices", "options", "chosen")
_INSIDE = ("hh", "sharegpt", "json")  # those that look into our own columns
FORMATS = ("auto", *RECIPES)
"""What `format` may be."""
