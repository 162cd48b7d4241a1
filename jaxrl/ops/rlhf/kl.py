"""How far a policy has moved from its reference, token by token, and what holds it there."""

import jax.numpy as jnp
from jaxtyping import Array, Float

KL_ESTIMATES = ("k1", "k2", "k3")
_MOST = 80.0  # nats; e to that is finite in float32


def kl_estimate(log_prob: Float[Array, "*b"], ref_log_prob: Float[Array, "*b"], kind: str) -> Float[Array, "*b"]:
    """KL(π ‖ ref) of one token, estimated from one that π said, with Δ = ln π - ln ref.

    k1 = Δ: unbiased, often negative. k2 = ½Δ²: biased, and its gradient is that of the KL. k3 = e^-Δ - 1 + Δ: unbiased,
    never negative, of less variance where the two are close. Schulman 2020, "Approximating KL divergence".
    """
    difference = log_prob - ref_log_prob
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * difference**2
    # Where exp would overflow the estimate is beyond any use, and an infinite one would be a NaN further on.
    return jnp.expm1(jnp.minimum(-difference, _MOST)) + difference


def adapted(
    coef: Float[Array, ""],
    kl: Float[Array, ""],
    target: float | Float[Array, ""],
    count: int | Float[Array, ""],
    horizon: float | Float[Array, ""],
) -> Float[Array, ""]:
    """The adaptive controller: coef·(1 + clip(KL/target - 1, -0.2, 0.2)·n/horizon).

    Ziegler et al. 2019, eq. 4 and §2.2, arXiv 1909.08593. kl: of whole completions, in nats, as just measured; where it
    is not finite nothing changes. count: n, completions since the last time. horizon: so many completions move the
    coefficient by a fifth, at most.
    """
    error = jnp.clip(kl / target - 1, -0.2, 0.2)
    return jnp.where(jnp.isfinite(kl), coef * (1 + error * count / horizon), coef)
