"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): y = x·W + s·(x·A)·B, of which only A and B are trained.

s is α/r, or α/√r where rank-stabilized. Adapters are a pytree of their own, so the optimiser keeps state for nothing
else, and the reference model of preference learning is the parameters as they were given: without adapters, or with
those that training goes on from.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


def scale_of(settings: LMConfig) -> float | Float[Array, ""]:
    """What A·B is multiplied by: α/r, or α/√r where rank-stabilized."""
    return settings.lora_alpha / (np.sqrt(settings.lora_rank) if settings.lora_rank_stabilized else settings.lora_rank)


def attach(params: Decoder, adapters: Adapters, scale: float | Float[Array, ""]) -> Decoder:
    """The model with its adapters on; `params` itself stays as it is. scale: as of `scale_of`."""

    def on(linear: Linear, adapter: Adapter) -> None:
        linear.lora_a, linear.lora_b = nnx.Param(adapter.a), nnx.Param(scale * adapter.b)

    return _changed(params, adapters, on)


def merge(params: Decoder, adapters: Adapters, scale: float | Float[Array, ""]) -> Decoder:
    """The model with W + scale·A·B in place of W: computes what `attach` does, and can be saved. Adapters that are on
    already are dropped.

    `merge(merged, adapters, -scale)` takes them out again, up to rounding.
    """

    def on(linear: Linear, adapter: Adapter) -> None:
        kernel = linear.kernel[...]
        linear.kernel[...] = (kernel + scale * (adapter.a @ adapter.b)).astype(kernel.dtype)
        linear.lora_a = linear.lora_b = nnx.data(None)

    return _changed(params, adapters, on)


class Trained(NamedTuple):
    """What of a model is trained: init(key) -> trained; model(trained) -> params to compute with; and merged(trained)
    -> params to save.
    """

    init: Callable[[Key], Params]
    model: Callable[[Params], Decoder]
    merged: Callable[[Params], Decoder]


def trained(settings: LMConfig, params: Decoder) -> Trained:
    """Adapters of `params`, or at rank 0 all of them. Where `settings.lora_continue`, `params` have adapters on, which
    training starts from; else they have none. Raises InputError for an unknown projection, and where they do not fit.
    """
    found = _attached(params)
    if bool(found) != settings.lora_continue:
        some, remedy = ("", "set it, or merge them") if found else ("no ", "`attach` them, or leave it out")
        raise InputError(
            f"lora_continue = {settings.lora_continue}, and the parameters have {some}adapters on; {remedy}"
        )
    if settings.lora_rank == 0 and not found:
        return Trained(lambda key: params, lambda x: x, lambda x: x)
    _check(settings.lora_rank, settings.lora_targets)
    scale = scale_of(settings)
    if found:
        _check_fits(settings, found)
        start = {name: Adapter(a, b / scale) for name, (a, b) in found.items()}
    return Trained(
        lambda key: start if found else init_adapters(key, params, settings.lora_rank, settings.lora_targets),
        lambda adapters: attach(params, adapters, scale),
        lambda adapters: merge(params, adapters, scale),
    )


def _attached(params: Params) -> Adapters:
    """The adapters that are on, B scaled; of another network's parameters, none."""
    if not isinstance(params, Decoder):
        return {}
    linears = {name: getattr(params.layers, name) for name in TARGETS}
    return {name: Adapter(x.lora_a[...], x.lora_b[...]) for name, x in linears.items() if x.lora_a is not None}


def _check_fits(settings: LMConfig, found: Adapters) -> None:
    ranks = sorted({adapter.a.shape[-1] for adapter in found.values()})
    if ranks != [settings.lora_rank] or set(found) != set(settings.lora_targets):
        raise InputError(
            f"the adapters to continue have rank {ranks[0]} and targets {tuple(found)}, and the settings lora_rank = "
            f"{settings.lora_rank} and lora_targets = {settings.lora_targets}; set those of the adapters"
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
