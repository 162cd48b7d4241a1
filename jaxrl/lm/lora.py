"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = x·W + (α/r)·(x·A)·B, of which only A and B are trained.

Adapters are a pytree of their own, so the optimiser keeps state for nothing else, and the reference model of
preference learning is the same parameters without them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxrl.lm.settings import LMConfig
from jaxrl.lm.transformer import Decoder, Linear
from jaxrl.settings import closest
from jaxrl.types import InputError, Key, Params

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapter(NamedTuple):
    """A and B of one projection, in all layers."""

    a: Float[Array, "N i r"]
    b: Float[Array, "N r o"]


Adapters = dict[str, Adapter]


def init_adapters(key: Key, params: Decoder, rank: int, targets: Sequence[str] = TARGETS) -> Adapters:
    """Adapters that change nothing yet: A uniform in ±1/√in, B zero. Raises InputError for an unknown projection."""
    _check(rank, targets)
    made = {}
    for name, k in zip(targets, jax.random.split(key, len(targets)), strict=True):
        layers, n_in, n_out = getattr(params.layers, name).kernel.shape
        a = jax.random.uniform(k, (layers, n_in, rank), minval=-1.0, maxval=1.0) / jnp.sqrt(n_in)
        made[name] = Adapter(a, jnp.zeros((layers, rank, n_out)))
    return made


def attach(params: Decoder, adapters: Adapters, scale: float | Float[Array, ""]) -> Decoder:
    """The model with its adapters on; `params` itself stays the model with its adapters off. scale: α/r."""

    def on(linear: Linear, adapter: Adapter) -> None:
        linear.lora_a, linear.lora_b = nnx.Param(adapter.a), nnx.Param(scale * adapter.b)

    return _changed(params, adapters, on)


def merge(params: Decoder, adapters: Adapters, scale: float | Float[Array, ""]) -> Decoder:
    """The model with W + (α/r)·A·B in place of W: computes what `attach` does, and can be saved. scale: α/r.

    `merge(merged, adapters, -scale)` takes them out again, up to rounding.
    """

    def on(linear: Linear, adapter: Adapter) -> None:
        linear.kernel[...] = linear.kernel[...] + scale * (adapter.a @ adapter.b)

    return _changed(params, adapters, on)


class Trained(NamedTuple):
    """What of a model is trained: init(key) -> trained; model(trained) -> params to compute with; and merged(trained)
    -> params to save.
    """

    init: Callable[[Key], Params]
    model: Callable[[Params], Decoder]
    merged: Callable[[Params], Decoder]


def trained(settings: LMConfig, params: Decoder) -> Trained:
    """Adapters of `params`, or at rank 0 all of them. Raises InputError for an unknown projection."""
    if settings.lora_rank == 0:
        return Trained(lambda key: params, lambda x: x, lambda x: x)
    _check(settings.lora_rank, settings.lora_targets)
    scale = settings.lora_alpha / settings.lora_rank
    return Trained(
        lambda key: init_adapters(key, params, settings.lora_rank, settings.lora_targets),
        lambda adapters: attach(params, adapters, scale),
        lambda adapters: merge(params, adapters, scale),
    )


def _changed(params: Decoder, adapters: Adapters, change: Callable[[Linear, Adapter], None]) -> Decoder:
    copy = jax.tree.map(lambda x: x, params)
    for name, adapter in adapters.items():
        change(getattr(copy.layers, name), adapter)
    return copy


def _check(rank: int, targets: Sequence[str]) -> None:
    if rank < 1:
        raise InputError(f"lora_rank = {rank}; adapters need at least 1")
    for name in targets:
        if name not in TARGETS:
            raise InputError(f"lora_targets: no projection {name!r}{closest(name, TARGETS)}; there are {TARGETS}")
