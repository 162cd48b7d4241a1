"""Action distributions: NamedTuples of arrays with `sample, log_prob, entropy, mode, kl, env_action`.

`sample` gives the action that is stored and scored; `env_action` maps it to what the environment executes (clipped,
or squashed by tanh and scaled). Scoring what was sampled keeps the first PPO ratio at 1: an action near ±1 has no
accurate arctanh in float32, and a clipped one has another density than the Gaussian that drew it.

`entropy` takes a key because TanhDiagGaussian's has no closed form; the others ignore it.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma
from jaxtyping import Array, Float, Int

from jaxrl.types import Key

_LOG_2PI = math.log(2 * math.pi)


class Categorical(NamedTuple):
    """p(i) = softmax(logits)_i over the last axis. A logit of -inf forbids an action.

    Actions are stored and scored as 0 … n-1; the environment counts them from `start`, None for 0.
    """

    logits: Float[Array, "*b n"]
    start: Int[Array, "*b"] | None = None

    def sample(self, key: Key) -> Int[Array, "*b"]:
        """An action 0 … n-1."""
        return jax.random.categorical(key, self.logits)

    def log_prob(self, action: Int[Array, "*b"]) -> Float[Array, "*b"]:
        """log p(action) in nats; -inf of what is not one of 0 … n-1."""
        log_p = jax.nn.log_softmax(self.logits)
        # A sum over so few is faster than to look one up, whose gradient is a scatter.
        n = log_p.shape[-1]
        found = jnp.sum(jnp.where(jnp.arange(n) == action[..., None], log_p, 0.0), axis=-1)
        return jnp.where((action >= 0) & (action < n), found, -jnp.inf)

    def entropy(self, key: Key | None = None) -> Float[Array, "*b"]:
        """In nats."""
        log_p = jax.nn.log_softmax(self.logits)
        p = jnp.exp(log_p)
        return -jnp.sum(p * jnp.where(p > 0, log_p, 0.0), axis=-1)

    def mode(self) -> Int[Array, "*b"]:
        """The likeliest action, the first of several."""
        return jnp.argmax(self.logits, axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*b"]:
        """KL(self ‖ other) in nats."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        p = jnp.exp(log_p)
        return jnp.sum(p * jnp.where(p > 0, log_p - log_q, 0.0), axis=-1)

    def env_action(self, action: Int[Array, "*b"]) -> Int[Array, "*b"]:
        """Counted from `start`."""
        return action if self.start is None else action + self.start


class MultiCategorical(NamedTuple):
    """Independent categoricals, one per entry of the action vector; the log-probability is their sum."""

    parts: tuple[Categorical, ...]

    def sample(self, key: Key) -> Int[Array, "*b k"]:
        """An action of every part."""
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([part.sample(k) for part, k in zip(self.parts, keys, strict=True)], axis=-1)

    def log_prob(self, action: Int[Array, "*b k"]) -> Float[Array, "*b"]:
        """Sum over the parts, in nats."""
        return jnp.asarray(sum(part.log_prob(action[..., i]) for i, part in enumerate(self.parts)))

    def entropy(self, key: Key | None = None) -> Float[Array, "*b"]:
        """Sum over the parts, in nats."""
        return jnp.asarray(sum(part.entropy() for part in self.parts))

    def mode(self) -> Int[Array, "*b k"]:
        """The likeliest action of every part."""
        return jnp.stack([part.mode() for part in self.parts], axis=-1)

    def kl(self, other: "MultiCategorical") -> Float[Array, "*b"]:
        """KL(self ‖ other) in nats: the sum over the parts."""
        return jnp.asarray(sum(p.kl(q) for p, q in zip(self.parts, other.parts, strict=True)))

    def env_action(self, action: Int[Array, "*b k"]) -> Int[Array, "*b k"]:
        """Each part counted from its `start`."""
        if all(part.start is None for part in self.parts):
            return action
        return jnp.stack([part.env_action(action[..., i]) for i, part in enumerate(self.parts)], axis=-1)


def _normal_log_prob(x: Array, mean: Array, std: Array) -> Array:
    return jnp.sum(-0.5 * jnp.square((x - mean) / std) - jnp.log(std) - 0.5 * _LOG_2PI, axis=-1)


def _normal_entropy(mean: Array, std: Array) -> Array:
    return jnp.sum(jnp.broadcast_to(jnp.log(std) + 0.5 * (1 + _LOG_2PI), mean.shape), axis=-1)


def _normal_kl(p_mean: Array, p_std: Array, q_mean: Array, q_std: Array) -> Array:
    scaled = jnp.square(p_std / q_std) + jnp.square((p_mean - q_mean) / q_std)
    return jnp.sum(0.5 * (scaled - 1) - jnp.log(p_std / q_std), axis=-1)


class DiagGaussian(NamedTuple):
    """Normal(mean, std²) per action dimension; the environment receives it clipped to [low, high]."""

    mean: Float[Array, "*b a"]
    std: Float[Array, "*#b a"]
    low: Float[Array, "*#b a"]
    high: Float[Array, "*#b a"]

    def sample(self, key: Key) -> Float[Array, "*b a"]:
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, action: Float[Array, "*b a"]) -> Float[Array, "*b"]:
        """Density of the unclipped action."""
        return _normal_log_prob(action, self.mean, self.std)

    def entropy(self, key: Key | None = None) -> Float[Array, "*b"]:
        return _normal_entropy(self.mean, self.std)

    def mode(self) -> Float[Array, "*b a"]:
        return self.mean

    def kl(self, other: "DiagGaussian") -> Float[Array, "*b"]:
        return _normal_kl(self.mean, self.std, other.mean, other.std)

    def env_action(self, action: Float[Array, "*b a"]) -> Float[Array, "*b a"]:
        return jnp.clip(action, self.low, self.high)


class TanhDiagGaussian(NamedTuple):
    """u ~ Normal(mean, std²); the environment receives low + (high - low)(tanh u + 1)/2.

    `sample` and `log_prob` speak of u, the pre-tanh action; the density is that of tanh u on [-1, 1]:
    log p = log Normal(u) - Σ log(1 - tanh² u)  (Haarnoja et al. 2018, arXiv 1801.01290, appendix C).
    """

    mean: Float[Array, "*b a"]
    std: Float[Array, "*#b a"]
    low: Float[Array, "*#b a"]
    high: Float[Array, "*#b a"]

    def sample(self, key: Key) -> Float[Array, "*b a"]:
        return self.mean + self.std * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def log_prob(self, action: Float[Array, "*b a"]) -> Float[Array, "*b"]:
        return _normal_log_prob(action, self.mean, self.std) - _log_det_tanh(action)

    def entropy(self, key: Key) -> Float[Array, "*b"]:
        """H = H[Normal] + E[Σ log(1 - tanh² u)], the expectation by one sample (unbiased, also its gradient)."""
        return _normal_entropy(self.mean, self.std) + _log_det_tanh(self.sample(key))

    def mode(self) -> Float[Array, "*b a"]:
        """The pre-tanh mean: the median action. (The density's true mode may sit at the bounds.)"""
        return self.mean

    def kl(self, other: "TanhDiagGaussian") -> Float[Array, "*b"]:
        """KL(self ‖ other): a bijection leaves the Gaussians' KL as it was."""
        return _normal_kl(self.mean, self.std, other.mean, other.std)

    def env_action(self, action: Float[Array, "*b a"]) -> Float[Array, "*b a"]:
        return self.low + (self.high - self.low) * 0.5 * (jnp.tanh(action) + 1)


def _log_det_tanh(u: Float[Array, "*b a"]) -> Float[Array, "*b"]:
    # log(1 - tanh²u) = 2(log 2 - u - softplus(-2u)): exact where 1 - tanh²u underflows
    return jnp.sum(2 * (math.log(2) - u - jax.nn.softplus(-2 * u)), axis=-1)


_INSIDE = 1e-6  # of (0, 1): at its ends a density may be 0 or infinite


class Beta(NamedTuple):
    """x ~ Beta(α, β) per action dimension; the environment receives low + (high - low)·x. Chou, Maturana & Scherer
    2017, "Improving Stochastic Policy Gradients ... with the Beta Distribution": unlike a clipped Gaussian's, its
    probability lies within the bounds.

    `sample` and `log_prob` speak of x in (0, 1), at least 1e-6 from its ends.
    """

    alpha: Float[Array, "*b a"]
    beta: Float[Array, "*b a"]
    low: Float[Array, "*#b a"]
    high: Float[Array, "*#b a"]

    def sample(self, key: Key) -> Float[Array, "*b a"]:
        """x of every dimension."""
        drawn = jax.random.beta(key, self.alpha, self.beta, dtype=self.alpha.dtype)
        return jnp.clip(drawn, _INSIDE, 1 - _INSIDE)

    def log_prob(self, action: Float[Array, "*b a"]) -> Float[Array, "*b"]:
        """Density of x in (0, 1)."""
        kernel = (self.alpha - 1) * jnp.log(action) + (self.beta - 1) * jnp.log1p(-action)
        return jnp.sum(kernel - betaln(self.alpha, self.beta), axis=-1)

    def entropy(self, key: Key | None = None) -> Float[Array, "*b"]:
        """In closed form: ln B(α, β) - (α-1)ψ(α) - (β-1)ψ(β) + (α+β-2)ψ(α+β)."""
        a, b = self.alpha, self.beta
        of_both = (a + b - 2) * digamma(a + b)
        return jnp.sum(betaln(a, b) - (a - 1) * digamma(a) - (b - 1) * digamma(b) + of_both, axis=-1)

    def mode(self) -> Float[Array, "*b a"]:
        """(α-1)/(α+β-2), where both are above 1; of the uniform its middle."""
        a, b = self.alpha - 1, self.beta - 1
        total = a + b
        peak = jnp.where(total > 0, a / jnp.where(total > 0, total, 1.0), 0.5)
        return jnp.clip(peak, _INSIDE, 1 - _INSIDE)

    def kl(self, other: "Beta") -> Float[Array, "*b"]:
        """KL(self ‖ other) in nats: the sum over the dimensions."""
        a, b, c, d = self.alpha, self.beta, other.alpha, other.beta
        of_each = (a - c) * digamma(a) + (b - d) * digamma(b) + (c - a + d - b) * digamma(a + b)
        return jnp.sum(betaln(c, d) - betaln(a, b) + of_each, axis=-1)

    def env_action(self, action: Float[Array, "*b a"]) -> Float[Array, "*b a"]:
        """Spread over the bounds."""
        return self.low + (self.high - self.low) * action


Distribution = Categorical | MultiCategorical | DiagGaussian | TanhDiagGaussian | Beta
