"""Rewards and advantages of completions. One that ended is terminated; one that was cut by length is truncated: what
it would have gone on to is worth what the critic says.

Arrays are [B, T], a row's own completion from place 0 on, right-padded; `real` tells its tokens. What is not real is 0
in every result, and changes no number.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.ops.returns import gae

Tokens = Float[Array, "B T"]
Scalar = float | Float[Array, ""]


def token_rewards(score: Float[Array, " B"], kl: Tokens, length: Int[Array, " B"], kl_coef: Scalar) -> Tokens:
    """r_t = -k·KL_t, and the score on top at the last real token. Stiennon et al. 2020, §3.4, arXiv 2009.01325.

    kl: per token, as `kl_estimate` gives it. length: real tokens of each completion, its end token included; 0 gives no
    reward at all.
    """
    place, length = jnp.arange(kl.shape[1]), length[:, None]
    return jnp.where(place < length, -kl_coef * kl, 0.0) + jnp.where(place == length - 1, score[:, None], 0.0)


def completion_gae(
    reward: Tokens,
    value: Float[Array, "B T+1"],
    length: Int[Array, " B"],
    finished: Bool[Array, " B"],
    gamma: Scalar,
    lam: Scalar,
) -> Tokens:
    """`gae` along completions. value: V of the prompt and of the completion up to and with each of its tokens.

    finished: whether it ended; the value after the last token of one that did not is bootstrapped from.
    """
    place = jnp.arange(reward.shape[1])
    real, last = place < length[:, None], place == length[:, None] - 1
    terminated, truncated = last & finished[:, None], last & ~finished[:, None]
    steps = (reward.T, value[:, :-1].T, value[:, 1:].T, terminated.T, truncated.T)
    return jnp.where(real, gae(*steps, gamma, lam).T, 0.0)


def whiten(x: Tokens, real: Bool[Array, "B T"], centre: bool = True) -> Tokens:
    """(x - mean)/std over the real tokens, or x/std about their mean where `centre` is False; 0 elsewhere.

    Where fewer than two are real, or all are equal, it is 0: there is nothing to compare.
    """
    count = jnp.maximum(jnp.sum(real), 1)
    mean = jnp.sum(jnp.where(real, x, 0.0)) / count
    away = jnp.where(real, x - mean, 0.0)
    std = jnp.sqrt(jnp.sum(away**2) / count)
    return jnp.where(real & (std > 0), (away if centre else x) / (std + 1e-8), 0.0)


def group_advantage(score: Float[Array, "N G"], by_std: bool = True) -> Float[Array, "N G"]:
    """(r - mean)/(std + 1e-4) among the G completions of a prompt: GRPO (Shao et al. 2024, arXiv 2402.03300).

    by_std: False leaves the division out, which weighs prompts of little spread more than others (Liu et al. 2025,
    "Dr. GRPO", arXiv 2503.20783). std with G - 1 in its divisor, as in the authors' code; a group of one is 0.
    """
    away = score - jnp.mean(score, axis=-1, keepdims=True)
    if not by_std:
        return away
    return away / (jnp.std(score, axis=-1, keepdims=True, ddof=1 if score.shape[-1] > 1 else 0) + 1e-4)


def rloo_advantage(score: Float[Array, "N G"]) -> Float[Array, "N G"]:
    """r_i less the mean of the other completions of the same prompt: REINFORCE leave-one-out.

    Kool et al. 2019; Ahmadian et al. 2024, eq. 8, arXiv 2402.14740. A group of one is left without a baseline: r.
    """
    others = score.shape[-1] - 1
    if not others:
        return score
    return score - (jnp.sum(score, axis=-1, keepdims=True) - score) / others
