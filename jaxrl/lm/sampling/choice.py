"""How the next token is drawn: which tokens are left out, and a draw from those that stay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.types import Key


class Chooser(NamedTuple):
    """How the next token is drawn. Hashable: a part of the compiled program."""

    top_k: int
    top_p: float
    min_p: float

    def __call__(self, key: Key, logits: Float[Array, " V"], temperature: Float[Array, ""]):
        """(token, its log-probability under the tempered and truncated distribution)."""
        greedy = temperature <= 0
        logits = truncate(logits / jnp.where(greedy, 1.0, temperature), self.top_k, self.top_p, self.min_p)
        likeliest = _first(logits == jnp.max(logits))
        token = jnp.where(greedy, likeliest, categorical(key, logits))
        log_prob = logits[token] - jax.nn.logsumexp(logits)
        return token, jnp.where(greedy, 0.0, log_prob).astype(jnp.float32)


def categorical(key: Key, logits: Float[Array, " V"]) -> Int[Array, ""]:
    """A draw from softmax(logits) by inverting the distribution function, first over blocks, then within one.

    `jax.random.categorical` draws a Gumbel number for each entry of the vocabulary, which on a CPU costs more than
    the model does.
    """
    size = 256
    p = jnp.exp(logits - jnp.max(logits))
    blocks = jnp.pad(p, (0, -len(p) % size)).reshape(-1, size)
    k_block, k_token = jax.random.split(key)
    block = _invert(k_block, jnp.sum(blocks, axis=1))
    return block * size + _invert(k_token, blocks[block])


def _invert(key: Key, p: Float[Array, " n"]) -> Int[Array, ""]:
    """An index with probability p / Σ p; never one of probability 0, however the sums are rounded."""
    below = jnp.where(p > 0, jnp.cumsum(p), 0)
    total = jnp.max(below)
    uniform = jax.random.uniform(key) + 2.0**-24  # an exact 0 would always be the first index
    drawn = jnp.minimum(uniform * total, jnp.nextafter(total, 0.0))
    return _first(below > drawn)


def _first(where: Bool[Array, " n"]) -> Int[Array, ""]:
    # argmax, which is slow on CPU
    return jnp.min(jnp.where(where, jnp.arange(len(where)), len(where) - 1))


def truncate(logits: Float[Array, " V"], top_k: int, top_p: float, min_p: float) -> Float[Array, " V"]:
    """Logits with -inf for the tokens that the settings leave out: top-k, then top-p, then min-p, as others do."""
    if 0 < top_k < logits.shape[-1]:
        p = jax.nn.softmax(logits)
        logits = jnp.where(_likeliest(p, jnp.ones_like(p), top_k), logits, -jnp.inf)
    if top_p < 1:
        p = jax.nn.softmax(logits)
        logits = jnp.where(_likeliest(p, p, top_p), logits, -jnp.inf)
    if min_p > 0:
        logits = jnp.where(logits >= jnp.max(logits) + jnp.log(min_p), logits, -jnp.inf)
    return logits


def _likeliest(p: Float[Array, " V"], mass: Float[Array, " V"], wanted: float) -> Bool[Array, " V"]:
    """Where p ≥ t, for the largest number t with Σ mass[p ≥ t] ≥ wanted, by bisection over the bits of t (float32).

    Floats that are not negative are ordered as their bits are; 31 sums are far cheaper than a sort of the vocabulary.
    """
    bits = jax.lax.bitcast_convert_type(p.astype(jnp.float32), jnp.int32)

    def halve(_, bounds):
        low, high = bounds  # low satisfies it, high does not
        middle = low + (high - low) // 2
        enough = jnp.sum(jnp.where(bits >= middle, mass, 0)) >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    one = jnp.asarray(1.0, jnp.float32).view(jnp.int32)
    low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(one), one + 1))
    return bits >= low
