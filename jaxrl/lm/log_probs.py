"""Log-probabilities of tokens: the only door through which losses see a language model.

The logits of a batch, [B, L, V], are the largest array of language-model training by far. So the vocabulary is reduced
a few tokens at a time, forwards and again backwards, and what is kept is a few numbers a token. Tokens that nobody asks
about, those of prompts and padding, are put last, and their logits are never formed.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops.shards import by_rows, in_step, typed_by_rows
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
    return _reduce(logits, target)[0]


def _reduce(logits: Float[Array, "*b V"], target: Int[Array, "*b"]) -> tuple[TokenStats, tuple[Array, Array]]:
    # Also the two numbers that logits are lowered by to be ln p: their sum would lose what the second corrects.
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    chosen = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    log_p = logits - normalizer[..., None]
    p = jnp.exp(log_p)
    # Σ p is 1 but for the rounding of a large normalizer, which it thus tells: a common offset changes no number.
    total = jax.lax.stop_gradient(jnp.sum(p, axis=-1))
    entropy = jnp.log(total) - jnp.sum(p * log_p, axis=-1) / total
    stats = TokenStats(chosen - normalizer - jnp.log(total), entropy, jnp.sum(p * p, axis=-1) / (total * total))
    return stats, (normalizer, jnp.log(total))


def per_token_log_probs(
    model: LanguageModel,
    params: Params,
    tokens: Int[Array, "B L"],
    *,
    where: Bool[Array, "B L-1"] | None = None,
    chunk: int | None = CHUNK,
) -> TokenStats:
    """Statistics of every token given those before it: [B, L-1], of which entry t is about tokens[:, t + 1].

    Rows are right-padded; entries that belong to padding mean nothing and are to be masked by the caller.

    where: entries that are asked for; the others are 0, have no gradient and, but for the last chunk's, cost nothing.
    chunk: tokens whose logits exist at the same time; None forms all of [B, L-1, V]. The numbers are the same.
    """
    return typed_by_rows(partial(_per_token, model, chunk), 1)(params, jnp.asarray(tokens), where)


def _per_token(
    model: LanguageModel, chunk: int | None, params: Params, tokens: Int[Array, "B L"], where: Array | None
) -> TokenStats:
    hidden, target = jnp.asarray(model.hidden(params, tokens))[:, :-1], tokens[:, 1:]
    if chunk is None or target.size == 0:
        stats = token_stats(model.unembed(params, hidden), target)
        return stats if where is None else jax.tree.map(lambda x: jnp.where(where, x, 0), stats)
    unembed, weights = _explicit(model.unembed, params, jax.ShapeDtypeStruct((chunk, hidden.shape[-1]), hidden.dtype))
    asked = jnp.ones(target.shape, bool) if where is None else where
    return by_rows(partial(_sorted, unembed, chunk), (hidden, target, asked), (weights,))


def _explicit(function: Callable, params: Params, example: PyTree) -> tuple[Callable, list[Array]]:
    """(f, weights) with f(x, *weights) = function(params, x): of the parameters only those that it reads, lest
    gradients of all the others are carried along."""
    leaves, structure = jax.tree.flatten(params)
    jaxpr = jax.make_jaxpr(lambda leaves, x: function(jax.tree.unflatten(structure, leaves), x))(leaves, example).jaxpr
    read = {id(x) for equation in jaxpr.eqns for x in equation.invars}
    reads = [id(x) in read for x in jaxpr.invars[: len(leaves)]]

    def called(x: PyTree, *weights: Array) -> PyTree:
        given = iter(weights)
        whole = [next(given) if needed else leaf for needed, leaf in zip(reads, leaves, strict=True)]
        return function(jax.tree.unflatten(structure, whole), x)

    return called, [leaf for needed, leaf in zip(reads, leaves, strict=True) if needed]


def _sorted(
    unembed: Callable[..., Float[Array, "c V"]],
    chunk: int,
    hidden: Float[Array, "B l D"],
    target: Int[Array, "B l"],
    where: Bool[Array, "B l"],
    weights: list[Array],
) -> TokenStats:
    asked = where.reshape(-1)
    order = jnp.argsort(~asked)  # stable: those asked for come first, otherwise as they lie
    padding = (0, -target.size % chunk)
    rows = jnp.pad(hidden.reshape(target.size, -1)[order], (padding, (0, 0)))
    count = in_step(jnp.sum(asked))
    stats = _in_chunks(unembed, chunk, rows, jnp.pad(target.reshape(-1)[order], padding), count, weights)
    place = jnp.argsort(order)
    return jax.tree.map(lambda x: jnp.where(asked, x[place], 0).reshape(target.shape), stats)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _in_chunks(
    unembed: Callable[..., Float[Array, "c V"]],
    chunk: int,
    hidden: Float[Array, "n D"],
    target: Int[Array, " n"],
    count: Int[Array, ""],
    weights: list[Array],
) -> TokenStats:
    """Statistics of the first `count` tokens, a chunk at a time. unembed(hidden, *weights) -> logits."""
    return _forwards(unembed, chunk, hidden, target, count, weights)[0]


def _forwards(unembed: Callable, chunk: int, hidden: Array, target: Array, count: Array, weights: list[Array]):
    def reduced(i: Int[Array, ""]) -> PyTree:
        return _reduce(unembed(_part(hidden, i, chunk), *weights), _part(target, i, chunk))

    empty = jax.tree.map(lambda x: jnp.zeros(len(target), x.dtype), jax.eval_shape(reduced, count))
    return jax.lax.fori_loop(0, -(-count // chunk), lambda i, kept: _put(kept, reduced(i), i, chunk), empty)


def _in_chunks_fwd(unembed: Callable, chunk: int, *inputs: PyTree):
    values = jax.tree.map(lambda x: x.value, inputs)
    stats, lowered_by = _forwards(unembed, chunk, *values)
    return stats, (values, [w.perturbed for w in inputs[-1]], stats, lowered_by)


def _in_chunks_bwd(unembed: Callable, chunk: int, kept: PyTree, cotangents: TokenStats):
    (hidden, target, count, weights), perturbed, stats, lowered_by = kept
    given = [None if isinstance(g, jax.custom_derivatives.SymbolicZero) else g for g in cotangents]
    trained = [w for w, moves in zip(weights, perturbed, strict=True) if moves]

    def logits_of(hidden: Array, *trained: Array) -> Array:  # adapters leave the embedding as it is
        moved = iter(trained)
        return unembed(hidden, *(next(moved) if moves else w for w, moves in zip(weights, perturbed, strict=True)))

    def step(i: Int[Array, ""], totals: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        part = partial(_part, i=i, chunk=chunk)
        logits, pull = jax.vjp(logits_of, part(hidden), *trained)
        grads = _logits_gradient(logits, *jax.tree.map(part, (target, stats, lowered_by, given)))
        of_hidden, *of_weights = pull(grads.astype(logits.dtype))
        return _put(totals[0], of_hidden, i, chunk), jax.tree.map(jnp.add, totals[1], of_weights)

    start = jnp.zeros_like(hidden), [jnp.zeros_like(w) for w in trained]
    of_hidden, of_trained = jax.lax.fori_loop(0, -(-count // chunk), step, start)
    moved = iter(of_trained)
    return of_hidden, None, None, [next(moved) if moves else None for moves in perturbed]


_in_chunks.defvjp(_in_chunks_fwd, _in_chunks_bwd, symbolic_zeros=True)


def _logits_gradient(
    logits: Float[Array, "c V"], target: Int[Array, " c"], stats: TokenStats, lowered_by: PyTree, given: list
) -> Float[Array, "c V"]:
    """∂/∂z of ln p_y is 1[y] - p, of the entropy H is -p (ln p + H), of Σp² is 2p (p - Σp²); each times what is given,
    None where nothing is.
    """
    log_p = logits.astype(stats.log_prob.dtype) - lowered_by[0][:, None] - lowered_by[1][:, None]
    p, (of_log_prob, of_entropy, of_sum_p2) = jnp.exp(log_p), given
    total = jnp.zeros_like(p)
    if of_log_prob is not None:
        total += of_log_prob[:, None] * ((jnp.arange(p.shape[1]) == target[:, None]) - p)
    if of_entropy is not None:
        total -= of_entropy[:, None] * p * (log_p + stats.entropy[:, None])
    if of_sum_p2 is not None:
        total += of_sum_p2[:, None] * 2 * p * (p - stats.sum_p2[:, None])
    return total


def _part(x: Array, i: Int[Array, ""], chunk: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, i * chunk, chunk)


def _put(whole: PyTree, part: PyTree, i: Int[Array, ""], chunk: int) -> PyTree:
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, i * chunk, 0), whole, part)


def completion_stats(
    model: LanguageModel, params: Params, rows: PyTree, chunk: int | None = CHUNK
) -> tuple[TokenStats, Bool[Array, "B L-1"]]:
    """Statistics of the completions' tokens in rows (tokens, prompt_length, length), 0 elsewhere; where those are."""
    where = completion_mask(rows)
    return per_token_log_probs(model, params, rows.tokens, where=where, chunk=chunk), where


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
