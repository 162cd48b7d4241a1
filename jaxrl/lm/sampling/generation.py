"""Sampling from a language model with a key-value cache.

Prompts are right-padded and each row goes on where its own prompt ends, so results hold no left padding: they are what
`per_token_log_probs` takes. Rows draw from keys of their own: what a row says does not depend on its neighbours, so
rows that have ended may leave the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl.lm.sampling.checks import check_prompts, check_settings
from jaxrl.lm.sampling.choice import Chooser
from jaxrl.lm.transformer import KVCache, LanguageModel, Layer
from jaxrl.ops.platform import in_turns, tuning
from jaxrl.ops.shards import by_rows, in_step, typed_by_rows
from jaxrl.types import InputError, Key, Params


class Generation(NamedTuple):
    """Prompts with what was sampled after them, right-padded with zeros.

    tokens: row b holds its prompt, then its completion. length: of both together, a stop token included.
    log_prob: of each sampled token under the distribution it was drawn from (temperature and truncation applied, 0 for
    greedy), at the token's own place; 0 elsewhere. finished: whether the row ended with a stop token.
    """

    tokens: Int[Array, "B S"]
    prompt_length: Int[Array, " B"]
    length: Int[Array, " B"]
    log_prob: Float[Array, "B S"]
    finished: Bool[Array, " B"]


def generate(
    model: LanguageModel,
    params: Params,
    tokens: Int[Array, "B P"],
    length: Int[Array, " B"],
    keys: Key,
    *,
    max_new_tokens: int,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[int] = (),
) -> Generation:
    """Sample a completion for every row; ends early once all rows have ended.

    Main arguments:
    tokens, length: prompts, right-padded, and their lengths. keys: one random key a row, [B].
    temperature: logits are divided by it; 0 is greedy. Traced: a new one compiles nothing.
    Other arguments:
    top_k: only the k most likely tokens (0 is off). top_p: only the fewest most likely tokens that have this
    probability together (Holtzman et al. 2020, arXiv 1904.09751; 1 is off). min_p: only tokens at least this share as
    likely as the likeliest (Nguyen et al. 2024, arXiv 2407.01082; 0 is off). Ties at the edge stay.
    stop: tokens that end a row.
    Raises InputError for an empty or over-long prompt, a token out of range, or a setting out of range.
    """
    if keys.shape != (len(tokens),):
        raise InputError(f"keys have shape {keys.shape}, but there are {len(tokens)} rows; split the key, one a row")
    check_prompts(model, tokens, length, max_new_tokens)
    check_settings(temperature, top_k, top_p, min_p)
    choose = Chooser(top_k, top_p, min_p)
    draw = (keys, jnp.asarray(temperature, jnp.float32))
    above = tuning().halve_above if stop else None
    above = None if above is None else max(above, len(tokens) // 4)  # twice at most: each takes as long to compile
    static = (model, choose, tuple(stop), max_new_tokens, above)
    return _generate(*static, params, tokens, length, draw)


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _generate(model, choose, stop, max_new_tokens, halve_above, params, tokens, length, draw):

    def said(params: Params, tokens: Array, length: Array, draw: tuple) -> Generation:
        state = _start(model, choose, stop, max_new_tokens, params, tokens, length, draw)
        advance = partial(_advance, model, choose, stop, params, model.unstack(params))
        return _finish(advance, max_new_tokens, halve_above, draw, jnp.asarray(1), state)

    keys, temperature = draw

    def by_device(params: Params, tokens: Array, length: Array, keys: Key, temperature: Array) -> Generation:
        # On a mesh each device draws until its own rows have ended, and holds the parameters for that long.
        def own(tokens: Array, length: Array, keys: Key, params: Params, temperature: Array) -> Generation:
            return said(params, tokens, length, (keys, temperature))

        return by_rows(own, (tokens, length, keys), (params, temperature))

    # Models side by side, in one loop, would all wait for the one whose rows end last, at every halving.
    return in_turns(typed_by_rows(by_device, 1), params, tokens, length, keys, temperature)


def _finish(advance: Callable, max_new_tokens: int, halve_above: int | None, draw, count, state) -> Generation:
    """Draw until every row has ended, or has all of its tokens: it has `count`. Once half of the rows have ended, the
    others go on as a batch of their own.
    """
    rows = len(state[0].length)
    half = rows // 2 if halve_above is not None and rows > halve_above else 0

    def going_on(count: Array, state: tuple) -> tuple[Array, Array, tuple]:
        unfinished = in_step(jnp.sum(~state[0].finished))
        return (count < max_new_tokens) & (unfinished > half), count, state

    def body(carry: tuple[Array, Array, tuple]) -> tuple[Array, Array, tuple]:
        _, count, state = carry
        return going_on(count + 1, advance(draw, state))

    _, count, (out, cache) = jax.lax.while_loop(lambda carry: carry[0], body, going_on(count, state))
    if half == 0:
        return out
    left = jnp.argsort(out.finished, stable=True)[:half]  # where all have said enough instead, none draws any more
    (keys, temperature), some = draw, jax.tree.map(lambda x: x[left], (out, cache))
    ended = _finish(advance, max_new_tokens, halve_above, (keys[left], temperature), count, some)
    return jax.tree.map(lambda x, y: x.at[left].set(y), out, ended)


def stream(
    model: LanguageModel,
    params: Params,
    prompt: Sequence[int],
    key: Key,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    stop: Sequence[int] = (),
) -> Iterator[int]:
    """Tokens of one completion as they come, stop token included: the same that `generate` gives with the same key.

    Arguments and errors as for `generate`.
    """
    length = np.asarray([len(prompt)], np.int32)
    check_prompts(model, np.asarray([prompt], np.int32), length, max_new_tokens)
    room = model.config.max_position_embeddings - max_new_tokens
    tokens = np.zeros((1, min(max(16, 1 << (len(prompt) - 1).bit_length()), room)), np.int32)  # few shapes to compile
    tokens[0, : len(prompt)] = prompt
    check_settings(temperature, top_k, top_p, min_p)
    static, draw = (model, Chooser(top_k, top_p, min_p), tuple(stop)), (key[None], jnp.float32(temperature))
    out, cache = _jit_start(*static, max_new_tokens, params, tokens, length, draw)
    yield int(out.tokens[0, len(prompt)])
    layers = None
    for position in range(len(prompt) + 1, len(prompt) + max_new_tokens):
        if out.finished[0]:
            return
        layers = jax.jit(model.unstack)(params) if layers is None else layers
        out, cache = _jit_advance(*static, params, layers, draw, (out, cache))
        yield int(out.tokens[0, position])


def _start(model, choose, stop, max_new_tokens: int, params: Params, tokens: Array, length: Array, draw):
    """Read the prompts and draw the first token of every row. Returns (Generation, cache)."""
    rows, width = tokens.shape
    inside = jnp.arange(width) < length[:, None]
    hidden, cache = model.prefill(params, tokens, width + max_new_tokens)
    last = jnp.take_along_axis(hidden, length[:, None, None] - 1, axis=1)[:, 0]
    out = Generation(
        tokens=jnp.pad(jnp.where(inside, tokens, 0), ((0, 0), (0, max_new_tokens))),
        prompt_length=length,
        length=length,
        log_prob=jnp.zeros((rows, width + max_new_tokens), jnp.float32),
        finished=jnp.zeros(rows, bool),
    )
    return _append(choose, stop, draw, out, model.unembed(params, last)), cache


def _advance(model, choose, stop, params: Params, layers: list[Layer], draw, state: tuple[Generation, KVCache]):
    """Read the last token of every row and draw the next."""
    out, cache = state
    last = jnp.take_along_axis(out.tokens, out.length[:, None] - 1, axis=1)
    hidden, cache = model.extend(params, layers, last, out.length - 1, cache)
    return _append(choose, stop, draw, out, model.unembed(params, hidden[:, 0])), cache


_jit_start = jax.jit(_start, static_argnums=(0, 1, 2, 3))
_jit_advance = jax.jit(_advance, static_argnums=(0, 1, 2), donate_argnums=6)


def _append(choose, stop: tuple[int, ...], draw, out: Generation, logits: Float[Array, "B V"]) -> Generation:
    keys, temperature = draw
    rows = jnp.arange(len(keys))
    token_keys = jax.vmap(jax.random.fold_in)(keys, out.length - out.prompt_length)
    token, log_prob = jax.vmap(choose, (0, 0, None))(token_keys, logits, temperature)
    place = jnp.where(out.finished, out.tokens.shape[1], out.length)  # of finished rows out of bounds: dropped
    return Generation(
        tokens=out.tokens.at[rows, place].set(token, mode="drop"),
        prompt_length=out.prompt_length,
        length=out.length + ~out.finished,
        log_prob=out.log_prob.at[rows, place].set(log_prob, mode="drop"),
        finished=out.finished | jnp.isin(token, jnp.asarray(stop, token.dtype)),
    )
