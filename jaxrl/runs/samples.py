"""What a language model says while it is trained: completions of some prompts at every evaluation, kept in a file, and
how far the model that says them has moved from where it began.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.data.prompts import Prompts
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.reference import sampled_kl
from jaxrl.lm.sampling import Generation, generate
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.runs.logger import keep_until
from jaxrl.types import Key, Learner, Params, TrainState


def sampler(
    model: LanguageModel,
    reference: Params,
    of_learner: Callable[[Learner], Params],
    tokenizer: Tokenizer,
    prompts: Prompts,
    max_new_tokens: int,
    file: Path,
) -> Callable[[TrainState, Key], dict[str, float]]:
    """probe(state, key) -> figures of one completion of each prompt at temperature 1: length, share that ended,
    KL to `reference` in nats per completion (k1 and k3 of `sampled_kl`). The texts are appended to `file`, a row
    {step, samples} per evaluation; rows that a stopped run had written later than that are cut.
    """
    stop = sorted(tokenizer.stops)

    @jax.jit
    def measure(params: Params, reference: Params, made: Generation):
        return sampled_kl(model, params, reference, TokenRows(made.tokens, made.prompt_length, made.length))

    def probe(state: TrainState, key: Key) -> dict[str, float]:
        step, params = int(state.num_steps), of_learner(state.learner)  # not jitted: a base model would be a constant
        keys = jax.random.split(key, len(prompts.length))
        made = generate(model, params, *prompts, keys, max_new_tokens=max_new_tokens, stop=stop)
        k1, k3 = measure(params, reference, made)
        keep_until(file, step - 1)
        with file.open("a") as out:
            out.write(json.dumps({"step": step, "samples": said(tokenizer, made)}) + "\n")
        figures = {"sample_kl": k1, "sample_kl_k3": k3, "sample_length": made.length - made.prompt_length}
        figures["sample_ended"] = made.finished
        return {name: float(jnp.mean(x)) for name, x in figures.items()}

    return probe


def said(tokenizer: Tokenizer, made: Generation) -> list[dict[str, str]]:
    """Prompt and completion of every row, as text."""
    rows = zip(np.asarray(made.tokens), np.asarray(made.prompt_length), np.asarray(made.length), strict=True)
    return [
        {"prompt": tokenizer.decode(row[:start]), "completion": tokenizer.decode(row[start:end], True)}
        for row, start, end in rows
    ]


def first_prompts(held_out: Sequence, count: int) -> Prompts:
    """Up to `count` different prompts of held-out rows, as they were encoded."""
    found: dict[tuple[int, ...], None] = {}
    for bucket in held_out:
        rows = bucket if hasattr(bucket, "tokens") else bucket[0]
        for row, length in zip(np.asarray(rows.tokens), np.asarray(rows.prompt_length), strict=True):
            found.setdefault(tuple(row[:length].tolist()), None)
    chosen = list(found)[:count]
    tokens = np.zeros((len(chosen), max(map(len, chosen))), np.int32)
    for row, ids in zip(tokens, chosen, strict=True):
        row[: len(ids)] = ids
    return Prompts(tokens, np.array([len(ids) for ids in chosen], np.int32))
