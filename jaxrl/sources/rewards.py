"""What scores completions: a function of tokens within the compiled program, a reward model, or any function of texts,
which the host calls between sampling and learning.
"""

import dataclasses
import functools
import importlib
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl.data.fingerprints import name_of
from jaxrl.lm.heads import last_scores
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.pretrained.tensors import listing
from jaxrl.lm.pretrained.weights import Pretrained, load_model
from jaxrl.lm.sampling import Generation
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import Decoder, LanguageModel, language_model
from jaxrl.settings import closest
from jaxrl.sources.sampled import Completed, Reward, contained
from jaxrl.types import InputError, RewardFailed

_SHOWN = 200  # characters of a text in a sentence


def as_reward(
    asked: Any, tokenizer: Tokenizer, rows: Sequence[Mapping[str, Any]], timeout: float | None = None
) -> "Reward | TextReward":
    """What scores completions: a function of tokens (jax.tree_util.Partial) as it is; any other function as one of
    texts; by name, the folder of a reward model, or "package.module:function" of texts.

    rows, timeout: as of TextReward. Raises InputError for what is none of these, for a reward model with another
    tokenizer, and for a timeout that is none, or that nothing reads.
    """
    _check_timeout(asked, timeout)
    if isinstance(asked, jax.tree_util.Partial):
        return asked
    if isinstance(asked, str | Path) and Path(asked).is_dir():
        found = load_model(asked, score=True)
        if found.tokenizer is None or not found.tokenizer.same_ids(tokenizer):
            raise InputError(
                f"reward = {str(asked)!r} has another tokenizer than the policy; take one that was trained from the "
                "same model, or give a function of texts that asks it"
            )
        return model_reward(found)
    function = _named_function(asked) if isinstance(asked, str) else asked
    if not callable(function):
        raise InputError(
            f"reward = {asked!r:.80} is neither a function nor a reward model; give the folder of one "
            '(`jaxrl finetune reward`), a function of (prompts, completions), or "package.module:function"'
        )
    return TextReward(function, tokenizer, rows, timeout)


def _check_timeout(asked: Any, timeout: float | None) -> None:
    if timeout is None:
        return
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise InputError(
            f"reward_timeout = {timeout} is no time to wait; give seconds, or leave it out to wait for ever"
        )
    if isinstance(asked, jax.tree_util.Partial) or (isinstance(asked, str | Path) and Path(asked).is_dir()):
        raise InputError(
            f"reward_timeout = {timeout} is for functions of texts, and this reward is asked in the compiled program; "
            "leave it out"
        )


def _named_function(name: str) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon:
        return None
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError, TypeError) as error:
        raise InputError(
            f"reward = {name!r}: cannot import {module!r} ({error}); run jaxrl in the folder that holds it, or say "
            "where that is, before the same command: PYTHONPATH=FOLDER"
        ) from error
    if not hasattr(found, attribute):
        near = closest(attribute, [own for own, x in vars(found).items() if callable(x)])
        raise InputError(f"reward = {name!r}: {module} has no {attribute!r}{near or '; name a function of it'}")
    return getattr(found, attribute)


def model_reward(found: Pretrained) -> Callable[[TokenRows], Float[Array, " B"]]:
    """The score of a reward model, of the same tokenizer: a function of tokens, whose parameters are arrays that it
    brings along. Raises InputError for a model that has no `score`.
    """
    if found.params.score is None:
        raise InputError("this model has no score: it speaks; train a reward model with it (`jaxrl finetune reward`)")
    score = functools.partial(model_score, language_model(found.config, remat=False))
    return jax.tree_util.Partial(score, found.params)


def model_score(model: LanguageModel, params: Decoder, rows: TokenRows) -> Float[Array, " B"]:
    """What a reward model says of texts."""
    return last_scores(model, params, params.score.kernel[...], rows)


@dataclasses.dataclass(frozen=True)
class TextReward:
    """function(prompts, completions, **columns) -> a number for each: called with lists, of the prompts as they were
    given, of what was said after them as text without special tokens, and of those columns of the rows that it has an
    argument for, None where a row lacks them. With an argument named completions it is called by name, as TRL's are,
    and need not take prompts. None, NaN and infinities count as no reward: nothing is learned from such a completion.

    rows: that were given. timeout: seconds that a call may take; the completions of one that takes longer count as
    late, and as without reward. None waits. Raises InputError for a function that cannot be called so.
    """

    function: Callable[..., Sequence[float | None]]
    tokenizer: Tokenizer
    rows: Sequence[Mapping[str, Any]]
    timeout: float | None = None

    def __post_init__(self):
        try:
            by_place, by_name = self._arguments(self.rows, [""] * len(self.rows))
            inspect.signature(self.function).bind(*by_place, **by_name)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"reward = {name_of(self.function)} cannot be called with (prompts, completions) and columns of the "
                f"rows ({error}); the rows have {listing(self._columns, 8) or 'no columns beside the prompt'}"
            ) from error

    def called(self) -> str:
        """Which function, for people."""
        return name_of(self.function) + ("" if self.timeout is None else f" within {self.timeout:g} s")

    def score(self, batch: Completed) -> Completed:
        """The batch with its scores, in float32. Raises RewardFailed."""
        rows = [self.rows[i] for i in np.asarray(batch.row).tolist()]
        texts = self._texts(batch)
        told = self._in_time(rows, texts)
        late = np.full(len(texts), told is None)
        found = [np.nan] * len(texts) if told is None else self._numbers(told, rows, texts)
        return contained(batch._replace(score=np.asarray(found, np.float32), late=late))

    def _texts(self, batch: Completed) -> list[str]:
        told = zip(np.asarray(batch.tokens), batch.prompt_length.tolist(), batch.length.tolist(), strict=True)
        return [self.tokenizer.decode_after(row[:start], row[start:end], True) for row, start, end in told]

    @functools.cached_property
    def _columns(self) -> list[str]:
        return sorted({name for row in self.rows for name in row} - {"prompt"})

    def _arguments(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> tuple[tuple, dict[str, Any]]:
        """Of the function, by place and by name."""
        parameters = inspect.signature(self.function).parameters
        every = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        both = {"prompts": [row.get("prompt") for row in rows], "completions": list(texts)}
        given = {name: [row.get(name) for row in rows] for name in self._columns}
        by_place = () if "completions" in parameters else tuple(both.values())
        by_name = given if by_place else given | both
        return by_place, {name: x for name, x in by_name.items() if every or name in parameters}

    def _call(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Any:
        by_place, by_name = self._arguments(rows, texts)
        return self.function(*by_place, **by_name)

    def _in_time(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Any:
        """What the function says; None where it takes too long. Raises RewardFailed, which names the first text that it
        fails on by itself."""
        found: dict[str, Any] = {}

        def work() -> None:
            try:
                found["told"] = self._call(rows, texts)
            except (Exception, SystemExit) as error:  # whatever it is, it is said which text it is about
                found["failed"] = error

        if self.timeout is None:
            work()
        else:
            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            worker.join(self.timeout)
            if worker.is_alive():
                return None
        if "failed" in found:
            raise self._named(found["failed"], rows, texts) from found["failed"]
        return found["told"]

    def _named(self, error: BaseException, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> RewardFailed:
        what = f"{type(error).__name__}: {error}"
        for row, text in zip(rows, texts, strict=True):
            try:
                self._call([row], [text])
            except (Exception, SystemExit):
                return RewardFailed(f"the reward raised {what}, on the completion {_short(text)}")
        return RewardFailed(f"the reward raised {what}, on {len(texts)} completions together, and on none by itself")

    def _numbers(self, told: Any, rows: Sequence[Any], texts: Sequence[str]) -> list[float]:
        told = told.tolist() if hasattr(told, "tolist") else told
        if not isinstance(told, Sequence) or len(told) != len(texts):
            many = f"{len(told)} numbers" if isinstance(told, Sequence) else f"{told!r:.80}"
            raise RewardFailed(
                f"the reward gave {many} for {len(texts)} completions; it should give a list, one of each"
            )
        made = []
        for value, text in zip(told, texts, strict=True):
            try:
                made.append(np.nan if value is None else float(value))
            except (TypeError, ValueError):
                raise RewardFailed(
                    f"the reward gave {value!r:.80} for the completion {_short(text)}; it should be a number"
                ) from None
        return made


def scored(reward: "Reward | TextReward", made: Generation, row: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
    """What a reward says of completions; NaN where it says nothing. row: which prompt each is of."""
    said, none = TokenRows(made.tokens, made.prompt_length, made.length), np.zeros(len(row), bool)
    if not isinstance(reward, TextReward):
        return np.asarray(jax.jit(lambda reward, said: reward(said))(reward, said), np.float64)
    blank = np.zeros((len(row), 1), np.float32)
    batch = Completed(*said, made.finished, row, blank, blank, blank[:, 0], ~none, none)
    found = reward.score(jax.device_get(batch))
    return np.where(found.valid, np.asarray(found.score, np.float64), np.nan)


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …")
