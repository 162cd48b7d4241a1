"""Text in, text out."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrl.lm.sampling import generate
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.types import InputError, Key, Params


def complete(
    model: LanguageModel,
    params: Params,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    key: Key,
    *,
    markup: str = "text",
    **sampling: Any,
) -> list[str]:
    """What the model says after each prompt, without the prompt and without special tokens.

    markup: what special tokens that a prompt spells are, "text" or "tokens", as in DataConfig. sampling: as for
    `generate`, max_new_tokens among them; a completion ends with any of the tokenizer's stop tokens.
    """
    encoded = [tokenizer.encode_prompt(prompt, markup) for prompt in prompts]
    if not encoded or not all(encoded):
        empty = next((i for i, ids in enumerate(encoded, 1) if not ids), None)
        what = f"prompt {empty} is empty, and the tokenizer adds no BOS to it" if empty else "there are no prompts"
        raise InputError(f"{what}; give each a text to go on from")
    length = np.array([len(ids) for ids in encoded], np.int32)
    tokens = np.zeros((len(encoded), length.max()), np.int32)
    for row, ids in zip(tokens, encoded, strict=True):
        row[: len(ids)] = ids
    keys = jax.random.split(key, len(encoded))
    made = generate(model, params, tokens, length, keys, stop=sorted(tokenizer.stops), **sampling)
    said = zip(np.asarray(made.tokens), made.prompt_length, made.length, strict=True)
    return [tokenizer.decode_after(row[:start], row[start:end], skip_special_tokens=True) for row, start, end in said]
