"""Policy-gradient losses: arrays in, per-element losses out; the caller takes the mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def policy_gradient_loss(log_prob: Float[Array, "*b"], advantage: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """-log π(a|s)·A, with A held constant. Williams 1992 (REINFORCE); Mnih et al. 2016 (A2C), arXiv 1602.01783."""
    return -log_prob * jax.lax.stop_gradient(advantage)


def clipped_surrogate_loss(
    log_prob: Float[Array, "*b"],
    behaviour_log_prob: Float[Array, "*b"],
    advantage: Float[Array, "*b"],
    clip_eps: float | Float[Array, ""],
) -> Float[Array, "*b"]:
    """-min(ρA, clip(ρ, 1-ε, 1+ε)A) with ρ = π(a|s)/π_behaviour(a|s).

    Schulman et al. 2017, eq. 7, arXiv 1707.06347. `behaviour_log_prob` and `advantage` are held constant.
    """
    # The bound lies where exp would overflow: inf in the branch not taken would make its zero gradient NaN.
    ratio = jnp.exp(jnp.minimum(log_prob - jax.lax.stop_gradient(behaviour_log_prob), 80.0))
    advantage = jax.lax.stop_gradient(advantage)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_eps, 1 + clip_eps) * advantage)


def approx_kl(log_prob: Float[Array, "*b"], behaviour_log_prob: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """k3 = (ρ - 1) - log ρ: an unbiased, never negative estimate of KL(behaviour ‖ π) from behaviour's samples.

    Schulman 2020, "Approximating KL divergence".
    """
    log_ratio = log_prob - behaviour_log_prob
    return jnp.expm1(log_ratio) - log_ratio


def clipped(
    log_prob: Float[Array, "*b"], behaviour_log_prob: Float[Array, "*b"], clip_eps: float | Float[Array, ""]
) -> Float[Array, "*b"]:
    """1 where the ratio lies outside [1-ε, 1+ε], else 0. Its mean is the clip fraction."""
    return (jnp.abs(jnp.expm1(log_prob - behaviour_log_prob)) > clip_eps).astype(log_prob.dtype)
