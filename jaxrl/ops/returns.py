"""Returns and advantages over rollouts [T, ...], with the truth at episode ends.

A terminated step has no successor value. A truncated one does: V(next_obs), and the recursion stops there, because
the step after it in the array belongs to another episode. Both flags at once count as terminated.
`where` selects rather than multiplies, so that a NaN in a value that does not count cannot spread.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_UNROLL = 4  # on CPU faster than 1 and than 16


def gae(
    reward: Float[Array, "T *n"],
    value: Float[Array, "T *n"],
    next_value: Float[Array, "T *n"],
    terminated: Bool[Array, "T *n"],
    truncated: Bool[Array, "T *n"],
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""],
) -> Float[Array, "T *n"]:
    """Generalised advantage estimates.

        δ_t = r_t + γ(1-terminated_t)·V(next_obs_t) - V(obs_t)
        A_t = δ_t + γλ(1-(terminated|truncated)_t)·A_{t+1}

    Schulman et al. 2016, eq. 16, arXiv 1506.02438; truncation as in Pardo et al. 2018, arXiv 1712.00378.
    `value` is V(obs_t), `next_value` V(next_obs_t) of the true successor, before any reset.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def backward(advantage, step):
        delta, done = step
        advantage = delta + gamma * lam * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    steps = (delta, terminated | truncated)
    return jax.lax.scan(backward, jnp.zeros_like(delta[0]), steps, reverse=True, unroll=_UNROLL)[1]


def lambda_returns(
    reward: Float[Array, "T *n"],
    next_value: Float[Array, "T *n"],
    terminated: Bool[Array, "T *n"],
    truncated: Bool[Array, "T *n"],
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""],
) -> Float[Array, "T *n"]:
    """TD(λ) returns: G_t = r_t + γ(1-terminated_t)·[(1-λ)V(next_obs_t) + λG_{t+1}], with G_{t+1} replaced by
    V(next_obs_t) where the episode was truncated and at the end of the rollout.

    Sutton & Barto 2018, eq. 12.18. Equal to gae(...) + value where V(next_obs_t) is V(obs_{t+1}) within an episode.
    """

    def backward(following, step):
        reward, next_value, terminated, truncated = step
        following = jnp.where(truncated, next_value, (1 - lam) * next_value + lam * following)
        ret = reward + gamma * jnp.where(terminated, 0.0, following)
        return ret, ret

    next_value = next_value.astype(jnp.result_type(reward, next_value, gamma, lam))
    steps = (reward, next_value, terminated, truncated)
    return jax.lax.scan(backward, next_value[-1], steps, reverse=True, unroll=_UNROLL)[1]


def discounted_returns(
    reward: Float[Array, "T *n"],
    next_value: Float[Array, "T *n"],
    terminated: Bool[Array, "T *n"],
    truncated: Bool[Array, "T *n"],
    gamma: float | Float[Array, ""],
) -> Float[Array, "T *n"]:
    """Monte-Carlo returns G_t = r_t + γG_{t+1} to the end of the episode, completed by V(next_obs) where the clock
    or the rollout cut it short. Without a critic pass zeros: a cut episode then counts what was seen of it.
    """
    return lambda_returns(reward, next_value, terminated, truncated, gamma, 1.0)


def vtrace(
    reward: Float[Array, "T *n"],
    value: Float[Array, "T *n"],
    next_value: Float[Array, "T *n"],
    terminated: Bool[Array, "T *n"],
    truncated: Bool[Array, "T *n"],
    log_ratio: Float[Array, "T *n"],
    gamma: float | Float[Array, ""],
    lam: float | Float[Array, ""] = 1.0,
    *,
    rho_clip: float | Float[Array, ""] = 1.0,
    c_clip: float | Float[Array, ""] = 1.0,
) -> tuple[Float[Array, "T *n"], Float[Array, "T *n"]]:
    """V-trace targets v_t and policy-gradient advantages, for data of an older policy.

    v_t = V_t + ρ_t δ_t + γ c_t(1-done_t)(v_{t+1} - V_{t+1});   A_t = ρ_t (r_t + γ v_{t+1} - V_t)

    with ρ = min(rho_clip, π/μ), c = λ min(c_clip, π/μ), and v_{t+1} = V(next_obs_t) at truncation and at the rollout's
    end. Espeholt et al. 2018, eq. 1, arXiv 1802.01561. `log_ratio` is log π(a|s) - log μ(a|s).
    """
    ratio = jnp.exp(log_ratio)
    rho, c = jnp.minimum(rho_clip, ratio), lam * jnp.minimum(c_clip, ratio)
    delta = rho * (reward + gamma * jnp.where(terminated, 0.0, next_value) - value)
    done = terminated | truncated

    def backward(correction, step):
        delta, c, done = step
        correction = delta + gamma * c * jnp.where(done, 0.0, correction)
        return correction, correction

    zero = jnp.zeros_like(delta[0])
    target = value + jax.lax.scan(backward, zero, (delta, c, done), reverse=True, unroll=_UNROLL)[1]
    following = jnp.where(truncated, next_value, jnp.concatenate([target[1:], next_value[-1:]]))
    advantage = rho * (reward + gamma * jnp.where(terminated, 0.0, following) - value)
    return target, advantage
