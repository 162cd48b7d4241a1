"""AdamW as language models are trained with it, for every config that has its fields."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxrl.ops import metrics as m
from jaxrl.ops.schedules import warmup_cosine
from jaxrl.types import Metrics, Params, PyTree


def adamw(c: Any) -> optax.GradientTransformation:
    """Scale by Adam, decay matrices; all but clipping and the learning rate (Loshchilov & Hutter 2019,
    arXiv 1711.05101). Its settings may be traced.
    """
    return optax.chain(
        optax.scale_by_adam(c.adam_b1, c.adam_b2, c.adam_eps),
        optax.add_decayed_weights(c.weight_decay, mask=matrices),
    )


def adamw_step(
    c: Any, params: Params, opt_state: PyTree, grads: Params, done: Int[Array, ""], total: int
) -> tuple[Params, PyTree, Metrics]:
    """Update `done` (from 0) of `total`: (params, opt_state, metrics), gradients clipped by their global norm, the
    learning rate warmed up, then a cosine.
    """
    learning_rate = warmup_cosine(c.learning_rate, c.warmup, c.lr_final, done, total)
    norm = optax.tree.norm(grads)
    # one factor, which XLA folds into Adam's sums; optax.clip_by_global_norm makes a second copy of the gradient
    clipped = optax.tree.scale(jnp.minimum(1.0, c.max_grad_norm / jnp.maximum(norm, 1e-30)), grads)
    updates, opt_state = adamw(c).update(clipped, opt_state, params)
    params = optax.apply_updates(params, optax.tree.scale(-learning_rate, updates))
    metrics = {"grad_norm": m.mean(norm), "learning_rate": m.mean(learning_rate)}
    return params, opt_state, metrics


def matrices(params: Params) -> PyTree:
    """Which parameters decay: kernels, embeddings and adapters, not norms and biases."""

    def decays(path: tuple, _: Any) -> bool:
        return not any(name in jax.tree_util.keystr(path) for name in ("norm", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)


def check_micro_batches(c: Any) -> None:
    """Raises ValueError, naming the nearest divisors, unless batch_size is a whole number of micro-batches."""
    micro, batch = c.micro_batch_size, c.batch_size
    if micro is not None and batch % micro:
        divisors = sorted((d for d in range(1, batch + 1) if batch % d == 0), key=lambda d: abs(d - micro))
        near = " or ".join(map(str, sorted(divisors[:2])))
        raise ValueError(f"batch_size = {batch} is not a multiple of micro_batch_size = {micro}; try {near}")
