"""Multi-layer perceptrons for actor and critic: Flax NNX modules used directly as pytrees."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxrl.networks.initializers import orthogonal_matrices
from jaxrl.ops.distributions import Categorical, DiagGaussian, Distribution, MultiCategorical, TanhDiagGaussian
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, Key, Network, PyTree

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "swish": jax.nn.silu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
}
HEADS = ("auto", "normal", "tanh_normal")
MIN_STD = 1e-3  # of tanh-normal policies, as in Brax


def features(space: Space, obs: PyTree) -> Float[Array, "*b f"]:
    """An observation as one float vector: one-hot for Discrete, flattened for Box, the parts of a pytree in turn."""
    if not isinstance(space, Discrete | MultiDiscrete | Box) and jax.tree.leaves(space):
        parts = jax.tree.map(features, space, obs)
        return jnp.concatenate(jax.tree.leaves(parts), axis=-1)
    if isinstance(space, Discrete):
        return jax.nn.one_hot(obs - space.start, space.n)
    if isinstance(space, Box):
        return obs.reshape(*obs.shape[: obs.ndim - len(space.shape)], -1).astype(jnp.float32)
    raise InputError(f"no MLP features for observation space {space}; pass a Network of your own")


def num_features(space: Space) -> int:
    """Length of that vector."""
    return jax.eval_shape(lambda: features(space, jax.tree.map(lambda part: part.zero(), space))).shape[-1]


class MLP(nnx.Module):
    """Dense layers of these weights, no bias at first, with `activation` between them and a linear output."""

    def __init__(self, kernels: Sequence[Float[Array, "i o"]], activation: Callable):
        self.activation = activation
        self.layers = nnx.List(
            nnx.Linear(*kernel.shape, kernel_init=lambda *_, kernel=kernel: kernel, rngs=nnx.Rngs(0))
            for kernel in kernels
        )

    def __call__(self, x: Float[Array, "*b f"]) -> Float[Array, "*b o"]:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)


def orthogonal_layers(
    key: Key, networks: Sequence[Sequence[int]], final_scales: Sequence[float]
) -> list[list[Float[Array, "i o"]]]:
    """Orthogonal weights for networks of these widths: of scale √2, and of their last layers a scale of their own."""
    shapes = [pair for widths in networks for pair in itertools.pairwise(widths)]
    kernels = iter(orthogonal_matrices(jax.random.split(key, len(shapes)), shapes))
    of_each = [[next(kernels) for _ in widths[1:]] for widths in networks]
    return [
        [2**0.5 * kernel for kernel in hidden] + [scale * last]
        for (*hidden, last), scale in zip(of_each, final_scales, strict=True)
    ]


class ActorCritic(nnx.Module):
    """The parameters of an actor and a critic that share nothing, and a state-independent log std if there is one."""

    def __init__(self, actor: MLP, critic: MLP, log_std: Array | None):
        self.actor = actor
        self.critic = critic
        self.log_std = None if log_std is None else nnx.Param(log_std)


def actor_critic(
    spaces: Spaces,
    *,
    hidden: Sequence[int] = (64, 64),
    critic_hidden: Sequence[int] | None = None,
    activation: str = "tanh",
    head: str = "auto",
    init_std: float | Float[Array, ""] = 1.0,
) -> Network:
    """An actor and a critic for the given spaces: apply(params, obs) -> (distribution, value), of which
    what is not used is not computed under jit.

    hidden, critic_hidden: layer widths; None gives the critic the actor's.
    head: "normal" is a Gaussian with a state-independent std. Where an action is bounded on both sides, mean and std
    are in units of half its range, around the middle: mean = (low + high)/2 + (high - low)/2 · output, so that the
    first policy sits in the middle and reaches the bounds. "tanh_normal" is a Gaussian squashed to the bounds, with a
    state-dependent std = softplus(x) + 0.001. "auto" takes "normal". Discrete actions have one head only.
    init_std: standard deviation of the first policy: for "normal" in units of half the range where an action is bounded
    on both sides, else in units of the action; for "tanh_normal" before tanh.
    Raises InputError for an unknown activation or head, for tanh_normal on discrete or unbounded actions, and for
    widths below 1.
    """
    _check_choices(spaces, activation, head)
    _check_widths(hidden=hidden, critic_hidden=critic_hidden or ())
    act, space = ACTIVATIONS[activation], spaces.action
    n_in = num_features(spaces.observation)
    state_std = head == "tanh_normal" and isinstance(space, Box)
    n_out = _num_outputs(space) * (2 if state_std else 1)
    widths = (n_in, *hidden, n_out), (n_in, *(hidden if critic_hidden is None else critic_hidden), 1)

    def init(key: Key) -> ActorCritic:
        actor, critic = (MLP(kernels, act) for kernels in orthogonal_layers(key, widths, (0.01, 1.0)))
        if state_std:
            std = jnp.maximum(init_std - MIN_STD, 1e-6)
            raw = std + jnp.log(-jnp.expm1(-std))  # the inverse of softplus, without overflow
            actor.layers[-1].bias[...] = jnp.zeros(n_out).at[n_out // 2 :].set(raw)
        gaussian = isinstance(space, Box) and not state_std
        return ActorCritic(actor, critic, jnp.log(init_std) * jnp.ones(n_out) if gaussian else None)

    def apply(params: ActorCritic, obs: PyTree) -> tuple[Distribution, Float[Array, "*b"]]:
        x = features(spaces.observation, obs)
        log_std = None if params.log_std is None else params.log_std[...]
        return _distribution(space, params.actor(x), log_std), params.critic(x)[..., 0]

    return Network(init, apply)


def _distribution(space: Space, out: Float[Array, "*b o"], log_std: Float[Array, " o"] | None) -> Distribution:
    if isinstance(space, Discrete):
        return Categorical(out, jnp.full(out.shape[:-1], space.start) if space.start else None)
    if isinstance(space, MultiDiscrete):
        ends = [sum(space.nvec[: i + 1]) for i in range(len(space.nvec) - 1)]
        return MultiCategorical(tuple(Categorical(x) for x in jnp.split(out, ends, axis=-1)))
    low, high = (bound.reshape(-1) for bound in space.bounds)
    if log_std is not None:
        return DiagGaussian(*_in_action_units(space, out, jnp.exp(log_std)), low, high)
    mean, raw_std = jnp.split(out, 2, axis=-1)
    return TanhDiagGaussian(mean, jax.nn.softplus(raw_std) + MIN_STD, low, high)


def _in_action_units(space: Box, mean: Float[Array, "*b o"], std: Float[Array, " o"]) -> tuple[Array, Array]:
    middle, half = action_units(space)
    if np.all(middle == 0) and np.all(half == 1):
        return mean, std
    return middle + half * mean, half * std


def action_units(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """(middle, half): a "normal" head's mean is middle + half · output, and its std half · exp(log_std)."""
    low, high = (bound.reshape(-1) for bound in space.static_bounds)
    both = np.isfinite(low) & np.isfinite(high) & (low < high)
    # Unbounded actions have the units of [-1, 1]; bounded on one side they start a unit inside of it, or at 0.
    centre = np.clip(0, np.where(both, -np.inf, low + 1), np.where(both, np.inf, high - 1))
    with np.errstate(invalid="ignore"):  # the middle of what has no ends, which is not taken
        return np.where(both, low / 2 + high / 2, centre), np.where(both, high / 2 - low / 2, 1)


def _num_outputs(space: Space) -> int:
    if isinstance(space, Discrete):
        return space.n
    if isinstance(space, MultiDiscrete):
        return sum(space.nvec)
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(f"no policy head for actions of {space}; pass a Network of your own")
    return space.shape[0]


def _check_choices(spaces: Spaces, activation: str, head: str) -> None:
    if activation not in ACTIVATIONS:
        raise InputError(f"activation = {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    if head not in HEADS:
        raise InputError(f"head = {head!r} is not one of {', '.join(HEADS)}")
    if head == "tanh_normal" and not isinstance(spaces.action, Box):
        raise InputError(f"head = 'tanh_normal' is for continuous actions, not {spaces.action}; use 'auto'")
    if head == "tanh_normal" and not spaces.action.bounded:
        raise InputError("head = 'tanh_normal' needs finite action bounds; use 'normal' for this environment")


def _check_widths(**layers: Sequence[int]) -> None:
    for name, widths in layers.items():
        if any(width < 1 for width in widths):
            raise InputError(f"{name} = {tuple(widths)}: each width must be at least 1; () is a linear network")
