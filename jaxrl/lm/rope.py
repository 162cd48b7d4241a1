"""Rotary frequencies, and the ways of stretching them beyond the context that a model was first trained on.

Each way is a dataclass whose fields are named as in Hugging Face's config.json. LongRoPE is left out: it has one set of
frequencies for short rows and another for long ones, so that a row's first tokens would change as the row grows.
"""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Every rotation slowed by `factor` (Chen et al. 2023, arXiv 2306.15595)."""

    factor: float


@dataclasses.dataclass(frozen=True)
class DynamicScaling:
    """Dynamic NTK: a larger θ for sequences longer than max_position_embeddings, so nothing changes up to there.

    Beyond, θ would depend on the length of the whole sequence: in a padded batch on the row's neighbours, and with a
    cache on when a key was computed. So the decoder refuses longer rows instead (see `language_model`).
    """

    factor: float


@dataclasses.dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: slow rotations are slowed by `factor`, fast ones kept, those between interpolated.

    A rotation is slow below `low_freq_factor` turns, fast above `high_freq_factor` turns in the original context.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class YarnScaling:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): the same by a ramp over the index of the rotation, and longer q and k.

    beta_fast, beta_slow: turns in the original context at which the ramp begins and ends. truncate: begin and end at
    whole indices. attention_factor: of q and of k; None gives 0.1 ln(factor) + 1, or the ratio of 0.1 m ln(factor) + 1
    for m = mscale and m = mscale_all_dim where both are given.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    @property
    def attention(self) -> float:
        """What q and k are multiplied by."""
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._mscale(self.mscale) / self._mscale(self.mscale_all_dim)
        return self._mscale(1.0)

    def _mscale(self, m: float) -> float:
        return 0.1 * m * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0


RopeScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling


def frequencies(theta: float, head_dim: int, scaling: RopeScaling | None = None) -> tuple[Float[Array, " f"], float]:
    """Angles per position of the head_dim / 2 rotations, θ^(-2i/C) stretched, and what q and k are multiplied by."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if isinstance(scaling, LinearScaling):
        return frequency / scaling.factor, 1.0
    if isinstance(scaling, Llama3Scaling):
        turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
        kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        return _between(frequency, scaling.factor, kept), 1.0
    if isinstance(scaling, YarnScaling):
        return _between(frequency, scaling.factor, _yarn_kept(theta, head_dim, scaling)), scaling.attention
    return frequency, 1.0


def _between(frequency: Float[Array, " f"], factor: float, kept: Float[Array, " f"]) -> Float[Array, " f"]:
    kept = jnp.clip(kept, 0.0, 1.0)
    return frequency * (kept + (1 - kept) / factor)


def _yarn_kept(theta: float, head_dim: int, s: YarnScaling) -> Float[Array, " f"]:
    def index(turns: float) -> float:
        """The rotation that makes so many turns in the original context."""
        return head_dim * math.log(s.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = index(s.beta_fast), index(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001
    return 1 - (jnp.arange(head_dim // 2, dtype=jnp.float32) - low) / width
