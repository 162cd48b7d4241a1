"""Learners with every kind of head and observation, and their exported folders, without training."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.algorithms import PPO
from jaxrl.ops.normalization import RunningStats
from jaxrl.runs.exporting.folder import described
from jaxrl.runs.loading import LoadedRun, SavedRun
from jaxrl.settings import EnvConfig
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Spaces
from jaxrl.types import TrainState

VECTOR, KEY = Box((3,)), jax.random.key(0)
NESTED = {"b": (VECTOR, Box(())), "a": Discrete(3, start=1), "image": Box((4, 4, 2), 0, 255, np.uint8)}
UNEVEN = Box((3,), np.array([-1.0, -2.0, 0.0]), np.array([3.0, 0.5, np.inf]))
KINDS = {
    "discrete": (Spaces(VECTOR, Discrete(4, start=3)), {}),
    "multidiscrete": (Spaces(VECTOR, MultiDiscrete((2, 3, 4), (5, 0, -2))), {"activation": "relu"}),
    "normal": (Spaces(VECTOR, UNEVEN), {"activation": "swish", "normalize_obs": True}),
    "normal, unbounded": (Spaces(VECTOR, Box((2,))), {"activation": "elu", "hidden": ()}),
    "tanh_normal": (
        Spaces(VECTOR, Box((2,), np.array([-1.0, -2.0]), np.array([3.0, 0.5]))),
        {"head": "tanh_normal", "activation": "gelu", "normalize_obs": True},
    ),
    "nested observation": (Spaces(NESTED, Discrete(5)), {"normalize_obs": True, "hidden": (16,), "torso": "flat"}),
}


@functools.cache
def made(kind):
    """(config, its policy, learner, spaces) of random parameters and statistics."""
    spaces, options = KINDS[kind]
    config = PPO(**{"env": EnvConfig("gymnax/CartPole-v1"), "hidden": (8, 7), **options})
    algorithm = config.make(spaces)
    learner = jax.jit(algorithm.init)(KEY)
    leaves, structure = jax.tree.flatten(learner.params)
    keys = jax.random.split(KEY, len(leaves))
    noise = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    stats = jax.tree.map(
        lambda s: RunningStats(s.count + 9, s.mean + 0.5, 4 * s.var),
        learner.obs_stats,
        is_leaf=lambda s: isinstance(s, RunningStats),
    )
    learner = learner._replace(params=jax.tree.unflatten(structure, noise), obs_stats=stats)
    return config, jax.jit(algorithm.policy), learner, spaces


def written(kind, folder):
    """The folder of such a learner: (its spaces, policy.json, arrays)."""
    config, _, learner, spaces = made(kind)
    saved = SavedRun(folder, config, {"seed": 0, "given": {}})
    state = TrainState(KEY, learner, (), jnp.zeros((), jnp.int32))
    about, arrays = described(LoadedRun(saved, None, state, []), spaces)
    np.savez(folder / "policy.npz", **arrays)
    (folder / "policy.json").write_text(json.dumps(about))
    return spaces, about, arrays


def observations(space, n, seed=0):
    """n random observations, wide enough to be clipped by the normaliser."""
    rng = np.random.default_rng(seed)

    def draw(part):
        if isinstance(part, Discrete):
            return rng.integers(part.start, part.start + part.n, size=n)
        if part.dtype == np.uint8:
            return rng.integers(0, 256, size=(n, *part.shape)).astype(np.uint8)
        return (8 * rng.standard_normal((n, *part.shape))).astype(np.float32)

    return jax.tree.map(draw, space)


def distribution(kind, obs):
    """What the policy in JAX makes of a batch."""
    _, policy, learner, _ = made(kind)
    n = len(jax.tree.leaves(obs)[0])
    return policy(learner, (), jax.tree.map(jnp.asarray, obs), jnp.ones(n, bool))[1]
