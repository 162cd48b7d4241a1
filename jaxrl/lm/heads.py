"""One number for a text, or for each of its tokens: the scalar head of a reward model, and of a critic.

A reward model is a decoder with `score` in place of the head that speaks; its reward is read off the last token, which
has seen all the others.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl.lm.transformer import Decoder, LanguageModel, Linear
from jaxrl.types import PyTree

Head = Float[Array, "D 1"]


def init_head(width: int) -> Head:
    """Zeros: every score is 0 at first, and a loss starts where that puts it."""
    return jnp.zeros((width, 1))


def with_head(params: Decoder, head: Head) -> Decoder:
    """The decoder with this head as its `score`; `params` itself stays as it is."""
    copy = jax.tree.map(lambda x: x, params)
    copy.score = Linear(head)
    return copy


def once(model: LanguageModel, params: Decoder, tokens: Int[Array, "B L"]) -> LanguageModel:
    """The model with what it makes of these tokens at hand, and of no others: two heads then share one pass, forwards
    and backwards, where a compiler would not see that two are the same."""
    hidden = model.hidden(params, tokens)
    return model._replace(hidden=lambda params, tokens: hidden)


def token_scores(model: LanguageModel, params: Decoder, head: Head, tokens: Int[Array, "B L"]) -> Float[Array, "B L"]:
    """A number for each token and those before it, in at least float32. Rows are right-padded; those of padding mean
    nothing."""
    return _read(model.hidden(params, tokens), head)


def last_scores(model: LanguageModel, params: Decoder, head: Head, rows: PyTree) -> Float[Array, " B"]:
    """The number at the last token of each row. rows: tokens [B, L], and length [B], of at least 1."""
    hidden = model.hidden(params, rows.tokens)
    last = jnp.take_along_axis(hidden, jnp.maximum(rows.length, 1)[:, None, None] - 1, axis=1)[:, 0]
    return _read(last, head)


def _read(hidden: Float[Array, "*b D"], head: Head) -> Float[Array, "*b"]:
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    return jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=wide)[..., 0]
