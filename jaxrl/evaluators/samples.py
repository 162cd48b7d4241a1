"""What a language model says while it is trained: completions of some prompts at every evaluation, kept in a file, and
how far the model that says them has moved from where it began.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxrl.data.prompts import Prompts
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.reference import sampled_kl
from jaxrl.lm.sampling import Generation, check_prompts, generate
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.types import Evaluator, Key, Learner, Line, Panel, Params


class Ask(NamedTuple):
    """What a model is asked at every evaluation: prompts, how many tokens it may say, and whose words they are."""

    prompts: Prompts
    max_new_tokens: int
    tokenizer: Tokenizer


class Said(NamedTuple):
    """Completions, and their KL to the reference in nats each (k1 and k3 of `sampled_kl`)."""

    made: Generation
    k1: Float[Array, " B"]
    k3: Float[Array, " B"]


def sampled_completions(
    model: LanguageModel, reference: Params, params_of: Callable[[Learner], Params], ask: Ask
) -> Evaluator:
    """One completion of each prompt at temperature 1: its length, the share that ended, and the KL to `reference` in
    nats per completion. The texts are kept.

    params_of(learner) -> what the model computes with. Raises InputError for prompts that the model cannot take.
    """
    check_prompts(model, *ask.prompts, ask.max_new_tokens)
    stop = sorted(ask.tokenizer.stops)

    def measure(key: Key, learner: Learner, case: Int[Array, ""]) -> Said:
        params, keys = params_of(learner), jax.random.split(key, len(ask.prompts.length))
        made = generate(model, params, *ask.prompts, keys, max_new_tokens=ask.max_new_tokens, stop=stop)
        return Said(
            made, *sampled_kl(model, params, reference, TokenRows(made.tokens, made.prompt_length, made.length))
        )

    def read(case: str, said: Said) -> dict[str, float]:
        figures = {"sample_kl": said.k1, "sample_kl_k3": said.k3}
        figures["sample_length"] = said.made.length - said.made.prompt_length
        figures["sample_ended"] = said.made.finished
        return {name: float(jnp.mean(x)) for name, x in figures.items()}

    return Evaluator(
        name="samples",
        measure=measure,
        read=read,
        at_start=True,
        keep=lambda said: as_texts(ask.tokenizer, said.made),
        panels=(
            Panel(
                "KL, nats a text", (Line("eval_sample_kl", "k1, to the model before"), Line("eval_sample_kl_k3", "k3"))
            ),
        ),
    )


def as_texts(tokenizer: Tokenizer, made: Generation) -> list[dict[str, Any]]:
    """Prompt and completion of every row, as text."""
    rows = zip(np.asarray(made.tokens), np.asarray(made.prompt_length), np.asarray(made.length), strict=True)
    return [
        {
            "prompt": tokenizer.decode(row[:start]),
            "completion": tokenizer.decode_after(row[:start], row[start:end], True),
        }
        for row, start, end in rows
    ]


def first_prompts(held_out: Sequence, count: int, at_most: int | None = None) -> Prompts:
    """Up to `count` different prompts of held-out rows, as they were encoded. at_most: tokens each."""
    found: dict[tuple[int, ...], None] = {}
    for bucket in held_out:
        rows = bucket if hasattr(bucket, "tokens") else bucket[0]
        for row, length in zip(np.asarray(rows.tokens), np.asarray(rows.prompt_length), strict=True):
            if at_most is None or length <= at_most:
                found.setdefault(tuple(row[:length].tolist()), None)
    chosen = list(found)[:count]
    tokens = np.zeros((len(chosen), max(map(len, chosen))), np.int32)
    for row, ids in zip(tokens, chosen, strict=True):
        row[: len(ids)] = ids
    return Prompts(tokens, np.array([len(ids) for ids in chosen], np.int32))
