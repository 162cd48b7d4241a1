"""Losses of reward models: scores of two answers in, a loss for each pair out; the caller takes the mean."""

from jax.nn import log_sigmoid
from jaxtyping import Array, Float

Batch = Float[Array, "*b"]
Scalar = float | Float[Array, ""]


def bradley_terry_loss(chosen: Batch, rejected: Batch, margin: Scalar | Batch = 0.0, centring: Scalar = 0.0) -> Batch:
    """-log σ(r_w - r_l - m) + c·(r_w + r_l)²: how surprising the preference is to a reward model.

    Bradley & Terry 1952; Ouyang et al. 2022, eq. 1, arXiv 2203.02155; the margin is of Llama 2 (Touvron et al. 2023,
    eq. 2, arXiv 2307.09288), the centring of Eisenstein et al. 2023, §2, arXiv 2312.09244.

    chosen, rejected: r of the preferred and the other answer. margin: m ≥ 0, how much better the preferred one is said
    to be, one number or one a pair. centring: c ≥ 0; the loss does not change with a constant added to both rewards,
    and this holds them around 0; 0.01 as a rule.
    """
    return -log_sigmoid(chosen - rejected - margin) + centring * (chosen + rejected) ** 2
