"""Value losses: arrays in, per-element losses out; the caller takes the mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def value_loss(value: Float[Array, "*b"], target: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """½(V - G)², with the target G held constant."""
    return 0.5 * jnp.square(value - jax.lax.stop_gradient(target))


def clipped_value_loss(
    value: Float[Array, "*b"],
    behaviour_value: Float[Array, "*b"],
    target: Float[Array, "*b"],
    clip_eps: float | Float[Array, ""],
) -> Float[Array, "*b"]:
    """max(½(V - G)², ½(V_old + clip(V - V_old, -ε, ε) - G)²): OpenAI baselines' PPO; no measurable gain is known.

    ε is in units of the (scaled) return. ε = inf gives `value_loss`.
    """
    behaviour_value = jax.lax.stop_gradient(behaviour_value)
    near = behaviour_value + jnp.clip(value - behaviour_value, -clip_eps, clip_eps)
    return jnp.maximum(value_loss(value, target), value_loss(near, target))
