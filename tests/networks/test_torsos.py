import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import actor_critic
from jaxrl.networks.torsos import make_torso
from jaxrl.ops.platform import tuned
from jaxrl.spaces import Box, Discrete, Spaces

pytestmark = pytest.mark.computes
MINATAR = Box((10, 10, 4), 0, 1)
ATARI = Box((84, 84, 4), 0, 255, np.uint8)


@pytest.mark.parametrize(
    ("kind", "space", "kernels", "size"),
    [
        ("minatar", MINATAR, [(3, 3, 4, 16)], 128),
        ("nature", ATARI, [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64)], 512),
        ("impala", MINATAR, [(3, 3, 4, 16), (3, 3, 16, 32), (3, 3, 32, 32)], 256),
    ],
)
def test_the_layers_are_those_of_the_papers(kind, space, kernels, size, key):
    torso = make_torso(kind, space, key)
    assert [conv.kernel.shape for conv in torso.convs] == kernels
    assert torso.dense.kernel.shape[1] == torso.size == size
    inputs = {"minatar": 8 * 8 * 16, "nature": 7 * 7 * 64, "impala": 2 * 2 * 32}  # pixels left, times filters
    assert torso.dense.kernel.shape[0] == inputs[kind]
    batch = jnp.ones((2, 3, *space.shape), space.dtype)
    assert torso(batch).shape == (2, 3, size)
    np.testing.assert_allclose(torso(batch)[1, 2], torso(batch[0, 0]), rtol=1e-4, atol=1e-4)


def test_a_convolution_is_that_of_a_loop_over_its_windows(key):
    torso, picture = make_torso("minatar", MINATAR, key), jax.random.normal(key, MINATAR.shape)
    kernel, by_hand = torso.convs[0].kernel[...], np.zeros((8, 8, 16))
    for i in range(8):
        for j in range(8):
            by_hand[i, j] = np.einsum("hwc,hwcf->f", picture[i : i + 3, j : j + 3], kernel)
    hidden = np.maximum(by_hand, 0).reshape(-1) @ torso.dense.kernel[...]
    np.testing.assert_allclose(torso(picture), np.maximum(hidden, 0), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "shape"), [("minatar", (10, 10, 4)), ("nature", (40, 37, 3)), ("impala", (11, 14, 2))]
)
def test_patches_times_a_matrix_are_xlas_convolution(kind, shape, key):
    with tuned(convolution="native"):
        torso = make_torso(kind, Box(shape), key)
        x = jax.random.uniform(key, (3, *shape))

        def total(torso, x):
            return jnp.mean(jnp.square(torso(x)))

        expected = jax.value_and_grad(total, argnums=(0, 1))(torso, x)
    with tuned(convolution="patches"):
        found = jax.value_and_grad(total, argnums=(0, 1))(torso, x)
    chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-5)


def test_bytes_are_shown_between_zero_and_one(key):
    torso = make_torso("nature", ATARI, key)
    floats = make_torso("nature", Box(ATARI.shape, 0, 1), key)
    picture = jax.random.randint(key, ATARI.shape, 0, 256).astype(jnp.uint8)
    np.testing.assert_allclose(torso(picture), floats(picture / 255.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("space", "kind"), [(MINATAR, "minatar"), (ATARI, "nature")])
def test_a_picture_is_never_flattened_unasked(space, kind, key):
    seen = {"picture": space, "vector": Box((3,))}
    params = actor_critic(Spaces(seen, Discrete(2)), hidden=(8,)).init(key)
    assert jax.tree.structure(params.torsos[0]) == jax.tree.structure(make_torso(kind, space, key))
    assert params.actor.layers[0].kernel.shape == (params.torsos[0].size + 3, 8)
    flat = actor_critic(Spaces(seen, Discrete(2)), hidden=(8,), torso="flat").init(key)
    assert not hasattr(flat, "torsos") and flat.actor.layers[0].kernel.shape == (np.prod(space.shape) + 3, 8)


def test_actor_and_critic_share_the_torso_and_both_teach_it(key):
    network = actor_critic(Spaces(MINATAR, Discrete(3)), hidden=(8,))
    params, picture = network.init(key), jax.random.uniform(key, (5, *MINATAR.shape))

    def value(params):
        return jnp.sum(network.apply(params, picture)[1])

    def log_prob(params):
        return jnp.sum(network.apply(params, picture)[0].log_prob(jnp.zeros(5, int)))

    for loss in (value, log_prob):
        assert float(jnp.abs(jax.grad(loss)(params).torsos[0].convs[0].kernel[...]).max()) > 0
