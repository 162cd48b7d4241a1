"""From the numbers that a network gives to a distribution over actions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl.ops.distributions import Beta, Categorical, DiagGaussian, Distribution, MultiCategorical, TanhDiagGaussian
from jaxrl.ops.masks import action_mask, allowed_logits
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, PyTree

HEADS = ("auto", "normal", "state_normal", "tanh_normal", "beta")
MIN_STD = 1e-3  # of a std that depends on the state, as in Brax
_Std = float | Float[Array, ""]


class PolicyHead(NamedTuple):
    """num_outputs: that the network must give. log_std(init_std) -> the parameter that holds the std where it does not
    depend on the state, else None. bias(init_std) -> what the last layer's bias starts with, None for zeros.
    distribution(out, log_std, obs) -> of the actions; obs as the environment shows it, for what it forbids.
    """

    num_outputs: int
    log_std: Callable[[_Std], Array | None]
    bias: Callable[[_Std], Array | None]
    distribution: Callable[[Float[Array, "*b o"], Array | None, PyTree], Distribution]


def policy_head(spaces: Spaces, head: str = "auto") -> PolicyHead:
    """The head for an action space; `networks.actor_critic` says what each is.

    Raises InputError for one that does not suit the space, and for a space that none suits.
    """
    space = spaces.action
    _check_head(space, head)
    if isinstance(space, Discrete | MultiDiscrete):
        return _discrete(spaces)
    if isinstance(space, Box) and not jnp.issubdtype(space.dtype, jnp.floating):
        raise InputError(f"no policy head for whole numbers in {space}; let the environment declare MultiDiscrete")
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(f"no policy head for actions of {space}; pass a Network of your own")
    return {"state_normal": _state_normal, "tanh_normal": _tanh_normal, "beta": _beta}.get(head, _normal)(space)


def _discrete(spaces: Spaces) -> PolicyHead:
    space = spaces.action
    sizes = (space.n,) if isinstance(space, Discrete) else space.nvec
    ends = np.cumsum(sizes)[:-1]
    action_mask(spaces, None)  # one of another size is said now

    def distribution(out: Array, log_std: None, obs: PyTree) -> Distribution:
        out = allowed_logits(sizes, out, action_mask(spaces, obs))
        starts = (space.start,) if isinstance(space, Discrete) else space.start
        parts = [
            Categorical(x, jnp.full(x.shape[:-1], start) if start else None)
            for x, start in zip(jnp.split(out, ends, axis=-1), starts, strict=True)
        ]
        return parts[0] if isinstance(space, Discrete) else MultiCategorical(tuple(parts))

    return PolicyHead(sum(sizes), _nothing, _nothing, distribution)


def _normal(space: Box) -> PolicyHead:
    (n,) = space.shape

    def distribution(out: Array, log_std: Array, obs: PyTree) -> Distribution:
        return DiagGaussian(*_in_action_units(space, out, jnp.exp(log_std)), *space.bounds)

    return PolicyHead(n, lambda init_std: jnp.log(init_std) * jnp.ones(n), _nothing, distribution)


def _state_normal(space: Box) -> PolicyHead:
    def distribution(out: Array, log_std: None, obs: PyTree) -> Distribution:
        mean, raw_std = jnp.split(out, 2, axis=-1)
        return DiagGaussian(*_in_action_units(space, mean, jax.nn.softplus(raw_std) + MIN_STD), *space.bounds)

    return PolicyHead(2 * space.shape[0], _nothing, _bias_of_std(space), distribution)


def _tanh_normal(space: Box) -> PolicyHead:
    def distribution(out: Array, log_std: None, obs: PyTree) -> Distribution:
        mean, raw_std = jnp.split(out, 2, axis=-1)
        return TanhDiagGaussian(mean, jax.nn.softplus(raw_std) + MIN_STD, *space.bounds)

    return PolicyHead(2 * space.shape[0], _nothing, _bias_of_std(space), distribution)


def _beta(space: Box) -> PolicyHead:
    def distribution(out: Array, log_std: None, obs: PyTree) -> Distribution:
        # Both at least 1, so that there is one mode (Chou et al. 2017, §3.2).
        alpha, beta = jnp.split(1 + jax.nn.softplus(out), 2, axis=-1)
        return Beta(alpha, beta, *space.bounds)

    def bias(init_std: _Std) -> Array:
        # α = β = c spreads by 1/√(2c + 1) in units of half the range: at most 0.577, the uniform.
        above_one = jnp.maximum((1 / jnp.square(init_std) - 1) / 2 - 1, 1e-2)
        return jnp.full(2 * space.shape[0], _before_softplus(above_one))

    return PolicyHead(2 * space.shape[0], _nothing, bias, distribution)


def _nothing(init_std: _Std) -> None:
    return None


def _bias_of_std(space: Box) -> Callable[[_Std], Array]:
    (n,) = space.shape
    return lambda init_std: (
        jnp.zeros(2 * n).at[n:].set(_before_softplus(jnp.maximum(jnp.asarray(init_std) - MIN_STD, 1e-6)))
    )


def _before_softplus(x: Array) -> Array:
    return x + jnp.log(-jnp.expm1(-x))  # the inverse of softplus, without overflow


def _in_action_units(space: Box, mean: Float[Array, "*b o"], std: Float[Array, "*#b o"]) -> tuple[Array, Array]:
    middle, half = action_units(space)
    if np.all(middle == 0) and np.all(half == 1):
        return mean, std
    return mean * half + middle, std * half


def action_units(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """(middle, half): a "normal" head's mean is middle + half · output, and its std half · exp(log_std)."""
    low, high = (bound.reshape(-1) for bound in space.static_bounds)
    both = np.isfinite(low) & np.isfinite(high) & (low < high)
    # Unbounded actions have the units of [-1, 1]; bounded on one side they start a unit inside of it, or at 0.
    centre = np.clip(0, np.where(both, -np.inf, low + 1), np.where(both, np.inf, high - 1))
    with np.errstate(invalid="ignore"):  # the middle of what has no ends, which is not taken
        return np.where(both, low / 2 + high / 2, centre), np.where(both, high / 2 - low / 2, 1)


def _check_head(space: Space, head: str) -> None:
    if head not in HEADS:
        raise InputError(f"head = {head!r} is not one of {', '.join(HEADS)}")
    if head != "auto" and head != "normal" and not isinstance(space, Box):
        raise InputError(f"head = {head!r} is for continuous actions, not {space}; use 'auto'")
    if head in ("tanh_normal", "beta") and not space.bounded:
        raise InputError(f"head = {head!r} needs finite action bounds; use 'normal' for this environment")


def check_width(distribution: Any, space: Space) -> None:
    """Raises InputError for a distribution of ours over more or fewer actions than the space has."""
    if isinstance(distribution, Categorical) and isinstance(space, Discrete):
        _same("logits", distribution.logits.shape[-1], space.n, "actions")
    if isinstance(distribution, MultiCategorical) and isinstance(space, MultiDiscrete):
        _same("parts", len(distribution.parts), len(space.nvec), "entries of an action")
        for part, n in zip(distribution.parts, space.nvec, strict=True):
            _same("logits of a part", part.logits.shape[-1], n, "values of that entry")
    if isinstance(distribution, DiagGaussian | TanhDiagGaussian) and isinstance(space, Box):
        _same("means", distribution.mean.shape[-1], int(np.prod(space.shape)), "entries of an action")
    if isinstance(distribution, Beta) and isinstance(space, Box):
        _same("concentrations", distribution.alpha.shape[-1], int(np.prod(space.shape)), "entries of an action")


def _same(what: str, given: int, wanted: int, of: str) -> None:
    if given != wanted:
        raise InputError(f"the policy gives {given} {what} for {wanted} {of}; give as many as there are")
