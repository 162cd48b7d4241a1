"""AdamW as language models are trained with it: clipped, warmed up, its learning rate lowered along a cosine."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from jaxrl.ops import metrics as m
from jaxrl.ops.schedules import warmup_cosine
from jaxrl.settings import config, leaf
from jaxrl.types import Metrics, Params, PyTree


@config
class AdamW:
    """Settings of AdamW and of its learning rate's course. All can be traced and swept. What rate is usual differs with
    the algorithm, so each has its own default.
    """

    learning_rate: float = leaf(dataclasses.MISSING, 0.0)
    """AdamW's step size at its peak."""
    warmup: float = leaf(0.1, 0.0, 1.0)
    """Share of the updates over which the learning rate rises."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached along a cosine."""
    weight_decay: float = leaf(0.0, 0.0)
    """AdamW's decoupled decay, of matrices only."""
    adam_b1: float = leaf(0.9, 0.0, 1.0)
    """Adam's β₁."""
    adam_b2: float = leaf(0.999, 0.0, 1.0)
    """Adam's β₂."""
    adam_eps: float = leaf(1e-8, 0.0)
    """Adam's ε."""
    max_grad_norm: float = leaf(1.0, 1e-9, infinite=True)
    """Global norm that gradients are clipped to; inf is off."""


def adamw(c: AdamW) -> optax.GradientTransformation:
    """Scale by Adam, decay matrices; all but clipping and the learning rate (Loshchilov & Hutter 2019,
    arXiv 1711.05101). Its settings may be traced.
    """
    return optax.chain(
        optax.scale_by_adam(c.adam_b1, c.adam_b2, c.adam_eps),
        optax.add_decayed_weights(c.weight_decay, mask=matrices),
    )


def adamw_step(
    c: AdamW, params: Params, opt_state: PyTree, grads: Params, done: Int[Array, ""], total: int
) -> tuple[Params, PyTree, Metrics]:
    """Update `done` (from 0) of `total`: (params, opt_state, metrics), gradients clipped by their global norm, the
    learning rate warmed up, then a cosine. Where the gradient is not finite nothing moves, and skipped_updates is 1.
    """
    learning_rate = warmup_cosine(c.learning_rate, c.warmup, c.lr_final, done, total)
    norm = optax.tree.norm(grads)
    # one factor, which XLA folds into Adam's sums; optax.clip_by_global_norm makes a second copy of the gradient
    clipped = optax.tree.scale(jnp.minimum(1.0, c.max_grad_norm / jnp.maximum(norm, 1e-30)), grads)
    before = opt_state
    updates, opt_state = adamw(c).update(clipped, opt_state, params)
    stepped = optax.apply_updates(params, optax.tree.scale(-learning_rate, updates))
    skipped = ~jnp.isfinite(norm)
    params, opt_state = unless(skipped, (params, before), (stepped, opt_state))
    figures = {"grad_norm": norm, "learning_rate": learning_rate, "skipped_updates": skipped}
    return params, opt_state, {name: m.mean(value) for name, value in figures.items()}


def unless(skipped: Bool[Array, ""], before: PyTree, after: PyTree) -> PyTree:
    """`after` of a gradient step, or `before` it, bit for bit, where it is skipped. A gradient that is not finite would
    leave nothing of parameters and moments: zeros in its place still move both.
    """
    return jax.tree.map(lambda old, new: jnp.where(skipped, old, new), before, after)


def matrices(params: Params) -> PyTree:
    """Which parameters decay: kernels, embeddings and adapters, not norms and biases."""

    def decays(path: tuple, _: Any) -> bool:
        return not any(name in jax.tree_util.keystr(path) for name in ("norm", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)
