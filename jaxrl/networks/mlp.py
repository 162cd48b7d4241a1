"""Multi-layer perceptrons for actor and critic: Flax NNX modules used directly as pytrees."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxrl.networks.heads import policy_head
from jaxrl.networks.initializers import drawn_with, orthogonal_matrices
from jaxrl.networks.recurrent import CORES, make_core, no_memory_of
from jaxrl.networks.torsos import TORSOS, is_image, make_torso, torso_kind
from jaxrl.ops.distributions import Distribution
from jaxrl.ops.masks import without_mask
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, Key, Memory, Network, PyTree

PRIVILEGED = "privileged_state"
ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "swish": jax.nn.silu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
}


def features(space: Space, obs: PyTree) -> Float[Array, "*b f"]:
    """An observation as one float vector: one-hot for Discrete and each entry of MultiDiscrete, flattened for Box, the
    parts of a pytree in turn."""
    if not isinstance(space, Discrete | MultiDiscrete | Box) and jax.tree.leaves(space):
        parts = jax.tree.map(features, space, obs)
        return jnp.concatenate(jax.tree.leaves(parts), axis=-1)
    if isinstance(space, Discrete):
        return jax.nn.one_hot(obs - space.start, space.n)
    if isinstance(space, MultiDiscrete):
        return jnp.concatenate(
            [jax.nn.one_hot(obs[..., i] - space.start[i], n) for i, n in enumerate(space.nvec)], axis=-1
        )
    if isinstance(space, Box):
        return obs.reshape(*obs.shape[: obs.ndim - len(space.shape)], -1).astype(jnp.float32)
    raise InputError(f"no MLP features for observation space {space}; pass a Network of your own")


def num_features(space: Space) -> int:
    """Length of that vector."""
    return jax.eval_shape(lambda: features(space, jax.tree.map(lambda part: part.zero(), space))).shape[-1]


def privileged(space: Space) -> list[bool]:
    """Of each part of an observation, in the order of the space's leaves, whether only the critic sees it."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(space)]
    return [bool(path) and getattr(path[0], "key", None) == PRIVILEGED for path in paths]


class MLP(nnx.Module):
    """Dense layers of these weights, no bias at first, with `activation` between them and a linear output.

    activation: a name, for parameters with a function among them could not be pickled."""

    def __init__(self, kernels: Sequence[Float[Array, "i o"]], activation: str):
        self.activation = activation
        self.layers = nnx.List(
            nnx.Linear(*kernel.shape, kernel_init=lambda *_, kernel=kernel: kernel, rngs=drawn_with(None))
            for kernel in kernels
        )

    def __call__(self, x: Float[Array, "*b f"]) -> Float[Array, "*b o"]:
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
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


class Remembering(nnx.Module):
    """A dense layer, and a core of `recurrent` after it."""

    def __init__(self, core: str, n_in: int, size: int, activation: str, key: Key):
        k_embed, k_core = jax.random.split(key)
        (kernels,) = orthogonal_layers(k_embed, ((n_in, size),), (2**0.5,))
        self.embedding, self.core = MLP(kernels, activation), make_core(core, size, size, k_core)
        self.activation = activation

    def __call__(self, x: Float[Array, "*b f"], first: Bool[Array, "*b"], memory: Memory):
        return self.core(ACTIVATIONS[self.activation](self.embedding(x)), first, memory)


class ActorCritic(nnx.Module):
    """The parameters of an actor and a critic, each perhaps with a memory of its own, and a log std that depends on no
    state if there is one. They share nothing but the torsos, one for each picture of an observation.
    """

    def __init__(self, actor: MLP, critic: MLP, log_std: Array | None, torsos: Sequence, cores: Sequence):
        self.actor = actor
        self.critic = critic
        self.log_std = None if log_std is None else nnx.Param(log_std)
        # Not even an empty list where there are none: a checkpoint of a plain network holds what it always held.
        if torsos:
            self.torsos = nnx.List(torsos)
        if cores:
            self.actor_memory, self.critic_memory = cores

    def features(self, space: Space, obs: PyTree) -> tuple[Float[Array, "*b f"], Float[Array, "*b g"]]:
        """What the actor sees of an observation, and what the critic does."""
        torsos = iter(getattr(self, "torsos", ()))
        parts = zip(jax.tree.leaves(space), jax.tree.structure(space).flatten_up_to(obs), strict=True)
        pictures = hasattr(self, "torsos")
        made = [next(torsos)(x) if pictures and is_image(part) else features(part, x) for part, x in parts]
        of_actor = [x for x, hidden in zip(made, privileged(space), strict=True) if not hidden]
        return jnp.concatenate(of_actor, axis=-1), jnp.concatenate(made, axis=-1)


def actor_critic(
    spaces: Spaces,
    *,
    hidden: Sequence[int] = (64, 64),
    critic_hidden: Sequence[int] | None = None,
    activation: str = "tanh",
    head: str = "auto",
    init_std: float | Float[Array, ""] = 1.0,
    torso: str = "auto",
    core: str = "none",
    core_size: int = 128,
) -> Network:
    """An actor and a critic for the given spaces: apply(params, obs) -> (distribution, value), of which
    what is not used is not computed under jit. With a core it remembers, and `Network` says how.

    hidden, critic_hidden: layer widths; None gives the critic the actor's.
    head: "normal" is a Gaussian with a state-independent std. Where an action is bounded on both sides, mean and std
    are in units of half its range, around the middle: mean = (low + high)/2 + (high - low)/2 · output, so that the
    first policy sits in the middle and reaches the bounds. "state_normal" is the same with a state-dependent std =
    softplus(x) + 0.001, "tanh_normal" a Gaussian with such a std squashed to the bounds, "beta" a Beta distribution
    between them. "auto" takes "normal". Discrete actions have one head only, which heeds `ops.masks`.
    init_std: standard deviation of the first policy: for "normal" and "state_normal" in units of half the range where
    an action is bounded on both sides, else in units of the action; for "tanh_normal" before tanh; for "beta" in units
    of half the range, at most 0.577, the uniform.
    torso: what sees pictures, which actor and critic share: one of `torsos.make_torso`, "auto" by their size, or "flat"
    for none, which takes their pixels as a vector.
    An observation's entry "privileged_state", as Playground names it, is for the critic alone: what a simulator knows
    and a robot does not.
    core: "gru", "lstm" or "linear", of core_size, after a dense layer of as many units and before the hidden layers,
    in actor and critic each: one for both is pulled at by values that are larger than policies are. "none" for none.
    Raises InputError for an unknown activation, head, torso or core, for a head that does not suit the actions, a torso
    that does not suit the observations, and for widths below 1.
    """
    _check_choices(activation, torso, core)
    _check_widths(hidden=hidden, critic_hidden=critic_hidden or (), core_size=(core_size,))
    made = policy_head(spaces, head)
    seen = without_mask(spaces.observation)
    if all(privileged(seen)):
        raise InputError(f"observation space {spaces.observation} shows nothing to see; pass a Network of your own")
    pictures = [part for part in jax.tree.leaves(seen) if is_image(part)] if torso != "flat" else []
    if torso not in ("auto", "flat") and not pictures:
        raise InputError(f"torso = {torso!r} is for pictures [height, width, channels], not {seen}; leave it out")
    kinds = [(torso_kind(torso, part), part) for part in pictures]

    def init(key: Key) -> ActorCritic:
        # The key of a plain network is its own, so that its first parameters are what they always were.
        k_torso, k_actor, k_critic = jax.random.split(jax.random.fold_in(key, 1), 3)
        torsos = [make_torso(*one, jax.random.fold_in(k_torso, i)) for i, one in enumerate(kinds)]
        of_torsos = iter(torsos)
        sizes = [
            next(of_torsos).size if torsos and is_image(part) else num_features(part) for part in jax.tree.leaves(seen)
        ]
        n_actor = sum(size for size, hidden in zip(sizes, privileged(seen), strict=True) if not hidden)
        n_critic, cores = sum(sizes), []
        if core != "none":
            each = ((n_actor, k_actor), (n_critic, k_critic))
            cores = [Remembering(core, n, core_size, activation, k) for n, k in each]
            n_actor = n_critic = core_size
        of_critic = hidden if critic_hidden is None else critic_hidden
        widths = (n_actor, *hidden, made.num_outputs), (n_critic, *of_critic, 1)
        actor, critic = (MLP(kernels, activation) for kernels in orthogonal_layers(key, widths, (0.01, 1.0)))
        bias = made.bias(init_std)
        if bias is not None:
            actor.layers[-1].bias[...] = bias
        return ActorCritic(actor, critic, made.log_std(init_std), torsos, cores)

    def judged(params: ActorCritic, obs: PyTree, of_actor: Array, of_critic: Array) -> tuple[Distribution, Array]:
        log_std = None if params.log_std is None else params.log_std[...]
        return made.distribution(params.actor(of_actor), log_std, obs), params.critic(of_critic)[..., 0]

    def apply(params: ActorCritic, obs: PyTree) -> tuple[Distribution, Float[Array, "*b"]]:
        return judged(params, obs, *params.features(seen, without_mask(obs)))

    def apply_core(params: ActorCritic, obs: PyTree, first: Bool[Array, "*b"], memory: Memory):
        of_actor, of_critic = params.features(seen, without_mask(obs))
        of_actor, actor = params.actor_memory(of_actor, first, memory[0])
        of_critic, critic = params.critic_memory(of_critic, first, memory[1])
        return *judged(params, obs, of_actor, of_critic), (actor, critic)

    if core == "none":
        return Network(init, apply)
    return Network(init, apply_core, lambda num_envs: (no_memory_of(core, core_size, num_envs),) * 2)


def network_of(config: Any, spaces: Spaces, **more: Any) -> Network:
    """`actor_critic` with the settings that a config of control has by the same names."""
    names = ("hidden", "activation", "head", "init_std", "torso", "core", "core_size")
    return actor_critic(spaces, **{name: getattr(config, name) for name in names}, **more)


def _check_choices(activation: str, torso: str, core: str) -> None:
    for name, given, choices in (
        ("activation", activation, ACTIVATIONS),
        ("torso", torso, TORSOS),
        ("core", core, CORES),
    ):
        if given not in choices:
            raise InputError(f"{name} = {given!r} is not one of {', '.join(choices)}")


def _check_widths(**layers: Sequence[int]) -> None:
    for name, widths in layers.items():
        if any(width < 1 for width in widths):
            raise InputError(f"{name} = {tuple(widths)}: each width must be at least 1; () is a linear network")
