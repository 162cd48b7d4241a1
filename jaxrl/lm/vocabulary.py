"""A tokenizer's ids against the model's embedding: held to it, or the embedding grown to them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import Decoder, ModelConfig
from jaxrl.types import InputError

_GROW = "take the model's own tokenizer, or set lm.grow_vocabulary = True, which adds rows to the embedding"


def check_ids(ids: Sequence[int] | np.ndarray, model: ModelConfig, what: str) -> None:
    """Raises InputError for an id that the model has no embedding for, and for more ids than its context holds.

    what: has these ids, as in "row 17".
    """
    largest = int(np.max(ids, initial=0))
    if largest >= model.vocab_size:
        raise InputError(f"{what} has token {largest}, but the model's vocabulary has {model.vocab_size}; {_GROW}")
    context = model.max_position_embeddings
    if len(ids) > context:
        raise InputError(
            f"{what} has {len(ids)} tokens, but the model's context is {context}; set data.max_length = {context}"
        )


def check_tokenizer(tokenizer: Tokenizer, model: ModelConfig) -> None:
    """Raises InputError if a token that ends or begins texts is beyond the model's vocabulary."""
    named = {"BOS": tokenizer.bos, "EOS": tokenizer.eos} | {f"stop token {i}": i for i in tokenizer.stops}
    for name, i in named.items():
        if i is not None and i >= model.vocab_size:
            raise InputError(
                f"the tokenizer's {name} is {i}, but the model's vocabulary has {model.vocab_size}; {_GROW}"
            )


class Grown(NamedTuple):
    """A model whose embedding has grown."""

    config: ModelConfig
    params: Decoder


def grow(model: ModelConfig, params: Decoder, size: int) -> Grown:
    """The model with a vocabulary of at least `size`: new rows of embedding and head are the mean of the others, as the
    likeliest place for a token that nothing is known of (Hewitt 2021, "Initializing New Word Embeddings").
    """
    more = size - model.vocab_size
    if more <= 0:
        return Grown(model, params)
    grown = jax.tree.map(lambda x: x, params)

    def filled(x: jax.Array, axis: int) -> jax.Array:
        mean = jnp.mean(x, axis=axis, keepdims=True)
        return jnp.concatenate([x, jnp.repeat(mean, more, axis=axis)], axis=axis)

    grown.embed = nnx.Param(filled(params.embed[...], 0))
    if params.head is not None:
        grown.head.kernel = nnx.Param(filled(params.head.kernel[...], 1))
    return Grown(dataclasses.replace(model, vocab_size=size), grown)
