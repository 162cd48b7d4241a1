"""What a person may ask of a sampler, or is told why not."""

import jax
import numpy as np
from jaxtyping import Array

from jaxrl.lm.transformer import LanguageModel
from jaxrl.types import InputError


def check_prompts(model: LanguageModel, tokens: Array, length: Array, max_new_tokens: int) -> None:
    """Raises InputError for prompts that the model cannot take. Values are not looked at inside a trace."""
    context, vocabulary = model.config.max_position_embeddings, model.config.vocab_size
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens = {max_new_tokens}; it must be at least 1")
    if isinstance(tokens, jax.core.Tracer) or isinstance(length, jax.core.Tracer):
        return
    ids, lengths = np.asarray(tokens), np.asarray(length)
    if lengths.min() < 1:
        raise InputError(f"prompt {lengths.argmin() + 1} is empty; give it a token to go on from, such as BOS")
    if lengths.max() > ids.shape[1]:
        raise InputError(f"a prompt length is {lengths.max()}, but tokens have only {ids.shape[1]} columns")
    room = context - lengths.max()
    if max_new_tokens > room:
        raise InputError(
            f"a prompt of {lengths.max()} tokens and max_new_tokens = {max_new_tokens} exceed the model's context of "
            f"{context}; shorten the prompt{f' or ask for at most {room} tokens' if room > 0 else ''}"
        )
    inside = ids[np.arange(ids.shape[1]) < lengths[:, None]]
    if inside.min() < 0 or inside.max() >= vocabulary:
        bad = inside[(inside < 0) | (inside >= vocabulary)][0]
        raise InputError(f"token {bad} is not in the vocabulary of {vocabulary}; is this the model's own tokenizer?")


def check_settings(temperature: float | Array, top_k: int, top_p: float, min_p: float) -> None:
    """Raises InputError for a setting that leaves no token, or means nothing. A traced temperature is not looked at."""
    if not isinstance(temperature, jax.core.Tracer) and not 0 <= float(temperature) < float("inf"):
        raise InputError(f"temperature = {float(temperature):g}; it must be 0 (greedy) or a positive number")
    if top_k < 0:
        raise InputError(f"top_k = {top_k}; it must be 0 (off) or a positive number of tokens")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p = {top_p:g}; it must be above 0 and at most 1 (off)")
    if not 0 <= min_p <= 1:
        raise InputError(f"min_p = {min_p:g}; it must be between 0 (off) and 1")
