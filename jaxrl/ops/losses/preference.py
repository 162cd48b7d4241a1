"""Preference losses: log-probabilities of whole answers in, one loss per pair (or per answer) out; the caller takes
the mean. "DPO" is Direct Preference Optimization here, not the Discovered Policy Optimisation of other JAX libraries.

`chosen` and `rejected` are log π(y|x) of the preferred and the other answer, summed over completion tokens, EOS
included, prompt excluded; `ref_*` the same under the reference, `*_mean` per token. In equations h = log π - log ref
is an answer's log-ratio (w preferred, l other), Δ = h_w - h_l. Nothing is clamped but where a docstring says so.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, sigmoid
from jaxtyping import Array, Bool, Float, Real

Batch = Float[Array, "*b"]
Lengths = Real[Array, "*b"]
Scalar = float | Float[Array, ""]

MAX_EXPONENT = 40.0


def _margin(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch) -> Batch:
    """Δ = h_w - h_l. Each answer against its own reference first: that is exactly 0 where the two models agree."""
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, label_smoothing: Scalar = 0.0
) -> Batch:
    """-(1-ε) log σ(βΔ) - ε log σ(-βΔ). Rafailov et al. 2023, eq. 7, arXiv 2305.18290.

    With ε > 0 it is cDPO: Mitchell 2023, "A note on DPO with noisy preferences", eq. 3.
    The chosen log-probs fall: is it broken? Usually not: only the margin Δ is trained, so both sides may fall while the
    rejected one falls faster. Look at rewards/chosen, rewards/margin and the KL to the reference instead.

    chosen, rejected: log π(y|x), summed (not averaged) over completion tokens, EOS included.
    ref_chosen, ref_rejected: from the same code, dtype and padding, dropout off; then the loss starts at ln 2.
    beta: reward per nat of log-ratio, 0.1 as a rule, 0.01 to 0.5; larger stays closer to the reference.
    label_smoothing: ε < ½, the share of labels believed wrong; the optimum is at σ(βΔ) = 1-ε, no longer at infinity.
    """
    logit = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    return -(1 - label_smoothing) * log_sigmoid(logit) - label_smoothing * log_sigmoid(-logit)


def robust_dpo_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, label_smoothing: Scalar
) -> Batch:
    """[-(1-ε) log σ(βΔ) + ε log σ(-βΔ)]/(1-2ε): in expectation over flips of rate ε, the DPO loss of the true labels.

    Ray Chowdhury et al. 2024, arXiv 2403.00409. It may be negative, and has no lower bound. Arguments as `dpo_loss`'s.
    """
    logit = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    loss = -(1 - label_smoothing) * log_sigmoid(logit) + label_smoothing * log_sigmoid(-logit)
    return loss / (1 - 2 * label_smoothing)


def ipo_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, tau: Scalar) -> Batch:
    """(Δ - 1/(2τ))². Azar et al. 2023, eq. 17, arXiv 2310.12036.

    Of the two conventions in the wild this is the sum over completion tokens, EOS included (the DPO authors' code,
    OpenRLHF); `ipo_mean_loss` is the other. Their τ differ by the answers' length. Arguments as `dpo_loss`'s, and
    tau: 1/(2τ) is the margin in nats at which a pair is settled, 5 at τ = 0.1. Larger stays closer to the reference.
    """
    return jnp.square(_margin(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * tau))


def ipo_mean_loss(
    chosen: Batch,
    rejected: Batch,
    ref_chosen: Batch,
    ref_rejected: Batch,
    chosen_length: Lengths,
    rejected_length: Lengths,
    tau: Scalar,
) -> Batch:
    """(h_w/|y_w| - h_l/|y_l| - 1/(2τ))²: `ipo_loss` of averages over tokens, which IPO's authors meant (TRL, HALOs).

    Arguments as `dpo_norm_loss`'s. tau: 1/(2τ) is the margin in nats per token.
    """
    n_w, n_l = jnp.maximum(chosen_length, 1), jnp.maximum(rejected_length, 1)
    return ipo_loss(chosen / n_w, rejected / n_l, ref_chosen / n_w, ref_rejected / n_l, tau)


def dpo_norm_loss(
    chosen: Batch,
    rejected: Batch,
    ref_chosen: Batch,
    ref_rejected: Batch,
    chosen_length: Lengths,
    rejected_length: Lengths,
    beta: Scalar,
) -> Batch:
    """-log σ(β(h_w/|y_w| - h_l/|y_l|)): DPO per token. Lambert et al. 2024 (Tülu 3), eq. 6, arXiv 2411.15124.

    Log-probs are sums, as in `dpo_loss`. `*_length`: the tokens summed over, EOS included; 0 counts as 1.
    beta: 5 in Tülu 3, much larger than DPO's because log-ratios per token are small.
    """
    n_w, n_l = jnp.maximum(chosen_length, 1), jnp.maximum(rejected_length, 1)
    return dpo_loss(chosen / n_w, rejected / n_l, ref_chosen / n_w, ref_rejected / n_l, beta)


def hinge_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar) -> Batch:
    """max(0, 1 - βΔ): DPO's margin under a hinge (also "SLiC-norm"). Liu et al. 2023 (RSO), arXiv 2309.06657.

    Arguments as `dpo_loss`'s. A pair with Δ > 1/β has no gradient.
    """
    return jax.nn.relu(1 - beta * _margin(chosen, rejected, ref_chosen, ref_rejected))


def apo_zero_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar) -> Batch:
    """1 - σ(βh_w) + σ(βh_l): raises the chosen answer and lowers the other, each against the reference.

    For answers better than the model's own. D'Oosterlinck et al. 2024, eq. 7, arXiv 2408.06266; one side of it is
    `kto_loss` with z0 = 0. Arguments as `dpo_loss`'s.
    """
    return sigmoid(-beta * (chosen - ref_chosen)) + sigmoid(beta * (rejected - ref_rejected))


def apo_down_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar) -> Batch:
    """σ(βh_w) + 1 - σ(βΔ): lowers both answers, the rejected one more.

    For answers worse than the model's own. D'Oosterlinck et al. 2024, eq. 8. Arguments as `dpo_loss`'s.
    """
    margin = _margin(chosen, rejected, ref_chosen, ref_rejected)
    return sigmoid(beta * (chosen - ref_chosen)) + sigmoid(-beta * margin)


def bco_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, delta: Scalar
) -> Batch:
    """-log σ(βh_w - δ) - log σ(δ - βh_l): a classifier of answers whose logit is the reward.

    Jung et al. 2024, arXiv 2404.04656. Arguments as `dpo_loss`'s, and
    delta: running mean of the rewards βh of both sides, held constant. TRL's `bco_pair` has 0.
    """
    delta = jax.lax.stop_gradient(delta)
    return -log_sigmoid(beta * (chosen - ref_chosen) - delta) - log_sigmoid(delta - beta * (rejected - ref_rejected))


def nca_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar) -> Batch:
    """-log σ(βh_w) - ½ log σ(-βh_w) - ½ log σ(-βh_l): rewards themselves, not only their margin, stay bounded.

    Chen et al. 2024, arXiv 2402.05369, for pairs. Arguments as `dpo_loss`'s.
    """
    reward = beta * (chosen - ref_chosen)
    return -log_sigmoid(reward) - 0.5 * (log_sigmoid(-reward) + log_sigmoid(-beta * (rejected - ref_rejected)))


def exo_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, label_smoothing: Scalar = 1e-3
) -> Batch:
    """KL(q ‖ (1-ε, ε)) with q = (σ(βΔ), σ(-βΔ)): the reverse of cDPO's direction. Needs ε > 0.

    Ji et al. 2024, eq. 16, arXiv 2402.00856. Arguments as `dpo_loss`'s. It saturates: a pair that is far wrong
    (βΔ ≪ 0) has hardly a gradient.
    """
    logit = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    right = sigmoid(logit) * (log_sigmoid(logit) - jnp.log1p(-label_smoothing))
    return right + sigmoid(-logit) * (log_sigmoid(-logit) - jnp.log(label_smoothing))


def sppo_loss(chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar) -> Batch:
    """(h_w - 1/(2β))² + (h_l + 1/(2β))²: each log-ratio has its target. SPPO with win probabilities 1 and 0.

    Wu et al. 2024, arXiv 2405.00675, where 1/β is η. Arguments as `dpo_loss`'s.
    """
    target = 1 / (2 * beta)
    return jnp.square(chosen - ref_chosen - target) + jnp.square(rejected - ref_rejected + target)


def discopop_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, tau: Scalar = 0.05
) -> Batch:
    """-(1-m) log σ(βΔ) + m e^{-βΔ} with m = σ(βΔ/τ), 0 < τ < 1: a loss that a language model proposed.

    Lu et al. 2024, eq. 5, arXiv 2406.08414. Arguments as `dpo_loss`'s.
    """
    logit = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    # One exponential: e^{-βΔ} overflows where m is 0.
    return -sigmoid(-logit / tau) * log_sigmoid(logit) + jnp.exp(log_sigmoid(logit / tau) - logit)


def f_dpo_loss(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar, link: Callable[[Batch], Batch]
) -> Batch:
    """-log σ(β(f′(e^{h_w}) - f′(e^{h_l}))): DPO for a policy held to the reference by another f-divergence.

    Wang et al. 2023, arXiv 2309.16240. Arguments as `dpo_loss`'s, and
    link: h -> f′(e^h), `forward_kl_link`, `jensen_shannon_link` or `alpha_link`; the identity is reverse KL, plain DPO.
    """
    zero = jnp.zeros_like(chosen)
    return dpo_loss(link(chosen - ref_chosen), link(rejected - ref_rejected), zero, zero, beta)


def jensen_shannon_link(log_ratio: Batch) -> Batch:
    """log(2u/(1+u)) with u = e^h: at most ln 2, so nothing is gained by raising an answer ever further."""
    return log_sigmoid(log_ratio) + math.log(2)


def alpha_link(log_ratio: Batch, alpha: Scalar) -> Batch:
    """(1 - e^{-αh})/α, 0 < α <= 1: α → 0 is reverse KL, α = 1 forward KL. Others write (e^{(a-1)h} - 1)/(a-1), a = 1-α.

    Where -αh > 40 the exponential is continued by its tangent: finite, with a gradient that still points back.
    """
    exponent = -alpha * log_ratio
    near = jnp.minimum(exponent, MAX_EXPONENT)
    return -(jnp.expm1(near) + jnp.exp(near) * (exponent - near)) / alpha


def forward_kl_link(log_ratio: Batch) -> Batch:
    """1 - e^{-h}: covers the reference's modes; explodes for answers much less likely than under the reference."""
    return alpha_link(log_ratio, 1.0)


def slic_loss(chosen: Batch, rejected: Batch, delta: Scalar, regularizer: Scalar) -> Batch:
    """max(0, δ - log π_w + log π_l) - λ log π_w: no reference. Zhao et al. 2023 (SLiC-HF), arXiv 2305.10425.

    Log-probs are summed over completion tokens, EOS included. `delta`: the margin, in nats.
    regularizer: λ. The paper's target is the SFT answer; here, as is usual, it is the chosen one.
    """
    return jax.nn.relu(delta - chosen + rejected) - regularizer * chosen


def cpo_loss(chosen: Batch, rejected: Batch, beta: Scalar, nll_coef: Scalar) -> Batch:
    """-log σ(β(log π_w - log π_l)) - α log π_w: DPO under a uniform reference, held by the chosen answer's NLL.

    Xu et al. 2024, arXiv 2401.08417. Log-probs are summed over completion tokens, EOS included, in both terms.
    nll_coef: α. 1 in the paper, but some code averages the NLL over tokens: α is then as many times larger.
    """
    return -log_sigmoid(beta * (chosen - rejected)) - nll_coef * chosen


def simpo_loss(chosen_mean: Batch, rejected_mean: Batch, beta: Scalar, gamma: Scalar) -> Batch:
    """-log σ(β(ā_w - ā_l) - γ), ā the mean log-prob: no reference. Meng et al. 2024, eq. 6, arXiv 2405.14734.

    chosen_mean, rejected_mean: averaged over completion tokens, EOS included.
    beta: 2 to 2.5. gamma: 0.5 to 1.5, the margin in units of reward; some code asks for γ/β instead.
    """
    return -log_sigmoid(beta * (chosen_mean - rejected_mean) - gamma)


def odds_ratio_loss(chosen_mean: Batch, rejected_mean: Batch) -> Batch:
    """-log σ(log odds_w - log odds_l), odds = p/(1-p), log p the mean log-prob over completion tokens, EOS included.

    Hong et al. 2024 (ORPO), arXiv 2403.07691. Means above -1e-7, where the odds are infinite, are clamped to it.
    """

    def log_odds(mean: Batch) -> Batch:
        mean = jnp.minimum(mean, -1e-7)
        return mean - jax.nn.log1mexp(-mean)

    return -log_sigmoid(log_odds(chosen_mean) - log_odds(rejected_mean))


def orpo_loss(chosen_mean: Batch, rejected_mean: Batch, odds_coef: Scalar) -> Batch:
    """-ā_w + λ·`odds_ratio_loss`: supervised tuning and preferences at once, no reference. `odds_coef`: λ, often 0.1.

    The NLL is of the completion. The authors' code and TRL take prompt and completion: add λ·`odds_ratio_loss` to that.
    """
    return -chosen_mean + odds_coef * odds_ratio_loss(chosen_mean, rejected_mean)


def kto_loss(
    log_ratio: Batch,
    desirable: Bool[Array, "*b"],
    z0: Scalar,
    beta: Scalar,
    desirable_weight: Scalar = 1.0,
    undesirable_weight: Scalar = 1.0,
) -> Batch:
    """λ_D(1 - σ(β(h - z0))) of desirable answers, λ_U(1 - σ(β(z0 - h))) of the others: a thumb up or down is enough.

    Ethayarajh et al. 2024, eq. 7 and 8, arXiv 2402.01306. The loss is the mean over both classes together.

    log_ratio: h, summed over completion tokens, EOS included.
    z0: see `kto_z0`; held constant.
    beta: 0.1 as a rule; larger stays closer to the reference. The learning rate matters as much: 5e-7 to 5e-6.
    *_weight: λ; so that λ_D n_D/(λ_U n_U) lies in 1 to 4/3 (TRL) or to 3/2 (the paper), n the size of each class.
    """
    away = jnp.where(desirable, -beta, beta) * (log_ratio - jax.lax.stop_gradient(z0))
    return jnp.where(desirable, desirable_weight, undesirable_weight) * sigmoid(away)


def kto_z0(mismatched_log_ratio_sum: Float[Array, ""], count: Real[Array, ""]) -> Float[Array, ""]:
    """max(0, Σ/count), held constant: KTO's estimate of KL(π ‖ ref), and 0 where nothing was counted.

    Both arguments belong to the whole optimizer batch, all micro-batches and devices: the clamp is not linear, so
    clamping parts of a batch and averaging them gives another number.

    mismatched_log_ratio_sum: Σ h of prompts with another prompt's completion, summed over its tokens, EOS included.
    """
    return jax.lax.stop_gradient(jnp.maximum(mismatched_log_ratio_sum / jnp.maximum(count, 1), 0))


def wpo_weight(mean_log_prob: Batch, mean_log_sum_p2: Batch) -> Batch:
    """exp(mean_t[log π(y_t) - log Σ_v π(v)²]), held constant: how much an answer looks like the policy's own.

    Zhou et al. 2024, arXiv 2406.11827. A pair's loss is multiplied by the weights of both sides.
    Arguments: means over completion tokens, EOS included, of log π(y_t) and of log Σ_v π(v)² over the vocabulary.
    """
    return jax.lax.stop_gradient(jnp.exp(mean_log_prob - mean_log_sum_p2))


def implicit_reward(log_prob: Batch, ref_log_prob: Batch, beta: Scalar) -> Batch:
    """βh: the reward, up to a constant per prompt, for which the policy is optimal. Rafailov et al. 2023, eq. 5.

    Log-probs are summed over completion tokens, EOS included.
    """
    return beta * (log_prob - ref_log_prob)


def preference_metrics(
    chosen: Batch, rejected: Batch, ref_chosen: Batch, ref_rejected: Batch, beta: Scalar
) -> dict[str, Batch]:
    """Implicit rewards, their margin, and 1 where the chosen one is larger (a tie counts as 0), per pair.

    Arguments as `dpo_loss`'s.
    """
    reward_chosen = implicit_reward(chosen, ref_chosen, beta)
    reward_rejected = implicit_reward(rejected, ref_rejected, beta)
    margin = reward_chosen - reward_rejected
    return {
        "rewards/chosen": reward_chosen,
        "rewards/rejected": reward_rejected,
        "rewards/margin": margin,
        "rewards/accuracy": (margin > 0).astype(margin.dtype),
    }
