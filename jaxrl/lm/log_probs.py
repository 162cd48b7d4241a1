"""Log-probabilities of tokens: the only door through which losses see a language model.

The logits of a batch, [B, L, V], are the largest array of language-model training by far. So the vocabulary is reduced
a few tokens at a time, forwards and again backwards, and what is kept is three numbers a token.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.lm.transformer import LanguageModel
from jaxrl.types import Params, PyTree

CHUNK = 128


class TokenRows(NamedTuple):
    """The least that rows must tell: right-padded tokens, and where completions begin and end."""

    tokens: Int[Array, "B L"]
    prompt_length: Int[Array, " B"]
    length: Int[Array, " B"]


class TokenStats(NamedTuple):
    """Of the distribution that a token was drawn from: its log-probability, the entropy -Σ p ln p (nats), and Σ p²."""

    log_prob: Float[Array, "*b"]
    entropy: Float[Array, "*b"]
    sum_p2: Float[Array, "*b"]


def token_stats(logits: Float[Array, "*b V"], target: Int[Array, "*b"]) -> TokenStats:
    """The reducer over the vocabulary, in at least float32.

    ln p_y = z_y - logsumexp z. Arguments: unnormalised logits, and the index of each token.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    log_p = logits - normalizer[..., None]
    p = jnp.exp(log_p)
    # Σ p is 1 but for the rounding of a large normalizer, which it thus tells: a common offset changes no number.
    total = jax.lax.stop_gradient(jnp.sum(p, axis=-1))
    entropy = jnp.log(total) - jnp.sum(p * log_p, axis=-1) / total
    return TokenStats(chosen - normalizer - jnp.log(total), entropy, jnp.sum(p * p, axis=-1) / (total * total))


def per_token_log_probs(
    model: LanguageModel, params: Params, tokens: Int[Array, "B L"], *, chunk: int | None = CHUNK
) -> TokenStats:
    """Statistics of every token given those before it: [B, L-1], of which entry t is about tokens[:, t + 1].

    Rows are right-padded; entries that belong to padding mean nothing and are to be masked by the caller.

    chunk: tokens whose logits exist at the same time; None forms all of [B, L-1, V]. The numbers are the same.
    """
    hidden, target = model.hidden(params, tokens)[:, :-1], tokens[:, 1:]
    if chunk is None or target.size == 0:
        return token_stats(model.unembed(params, hidden), target)

    @jax.checkpoint
    def reduce(params: Params, hidden: Float[Array, "n D"], target: Int[Array, " n"]) -> TokenStats:
        return token_stats(model.unembed(params, hidden), target)

    count = target.size
    padding = -count % chunk
    hidden = jnp.pad(hidden.reshape(count, -1), ((0, padding), (0, 0))).reshape(-1, chunk, hidden.shape[-1])
    padded = jnp.pad(target.reshape(-1), (0, padding)).reshape(-1, chunk)
    stats = jax.lax.map(lambda x: reduce(params, *x), (hidden, padded))
    return jax.tree.map(lambda x: x.reshape(-1)[:count].reshape(target.shape), stats)


def completion_stats(
    model: LanguageModel, params: Params, rows: PyTree, chunk: int | None = CHUNK
) -> tuple[TokenStats, Bool[Array, "B L-1"]]:
    """Per-token statistics of rows (tokens, prompt_length, length), and which of them are the completion's tokens."""
    return per_token_log_probs(model, params, rows.tokens, chunk=chunk), completion_mask(rows)


def completion_mask(rows: PyTree) -> Bool[Array, "B L-1"]:
    """Which entries of `per_token_log_probs` are about tokens of the completion, its end token included."""
    place = jnp.arange(1, rows.tokens.shape[1])
    return (place >= rows.prompt_length[:, None]) & (place < rows.length[:, None])


class Scores(NamedTuple):
    """Of whole completions: log_prob, summed over its tokens; length, how many; entropy, summed; and log_sum_p2, the
    mean over tokens of ln Σp².
    """

    log_prob: Float[Array, " B"]
    length: Float[Array, " B"]
    entropy: Float[Array, " B"]
    log_sum_p2: Float[Array, " B"]

    @property
    def mean_log_prob(self) -> Float[Array, " B"]:
        """log_prob per token; 0 for a completion without tokens."""
        return self.log_prob / jnp.maximum(self.length, 1)


def completion_scores(model: LanguageModel, params: Params, rows: PyTree, chunk: int | None = CHUNK) -> Scores:
    """Scores of rows (tokens, prompt_length, length). A row without completion tokens scores 0 and has no gradient."""
    stats, where = completion_stats(model, params, rows, chunk)

    def total(x: Float[Array, "B L"]) -> Float[Array, " B"]:
        return jnp.sum(jnp.where(where, x, 0), axis=1)

    length = jnp.sum(where, axis=1, dtype=stats.log_prob.dtype)
    log_sum_p2 = total(jnp.log(jnp.where(where, stats.sum_p2, 1))) / jnp.maximum(length, 1)
    return Scores(total(stats.log_prob), length, total(stats.entropy), log_sum_p2)
