import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import actor_critic
from jaxrl.ops.masks import action_mask, allowed_logits, random_actions, without_mask, zero_actions
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Spaces
from jaxrl.types import InputError


def masked(action, size):
    return Spaces({"action_mask": Box((size,), 0, 1, np.int8), "seen": Box((3,))}, action)


FOUR = masked(Discrete(4, start=1), 4)
TWO_THREE = masked(MultiDiscrete((2, 3)), 5)


def obs(mask, n=1):
    mask = jnp.broadcast_to(jnp.asarray(mask, jnp.int8), (n, len(mask)))
    return {"action_mask": mask, "seen": jnp.ones((n, 3))}


def test_what_is_forbidden_has_probability_zero_and_the_rest_its_own_shares():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    left = jax.nn.softmax(allowed_logits((4,), logits, jnp.array([True, False, True, False])))
    np.testing.assert_allclose(left, [0.25, 0.0, 0.75, 0.0], rtol=1e-6)


def test_a_group_of_which_nothing_is_allowed_is_left_as_it_was():
    logits = jnp.arange(5.0)
    left = allowed_logits((2, 3), logits, jnp.array([False, False, True, False, True]))
    np.testing.assert_array_equal(left, [0.0, 1.0, 2.0, -jnp.inf, 4.0])


@pytest.mark.parametrize(
    ("spaces", "mask", "allowed"),
    [
        (FOUR, [0, 1, 0, 1], {2, 4}),
        (FOUR, [0, 0, 0, 0], {1, 2, 3, 4}),
        (TWO_THREE, [0, 1, 1, 0, 1], {(1, 0), (1, 2)}),
        (masked(MultiDiscrete((2, 3), (5, -1)), 5), [0, 1, 1, 0, 1], {(6, -1), (6, 1)}),
    ],
)
def test_random_actions_are_those_allowed_each_as_often(spaces, mask, allowed, key):
    drawn = np.asarray(random_actions(spaces, key, obs(mask, 4000), 4000)).reshape(4000, -1)
    found, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(x) if len(x) > 1 else x[0] for x in found.tolist()} == allowed
    assert np.abs(counts / 4000 - 1 / len(allowed)).max() < 0.04


def test_the_zero_action_is_the_first_that_is_allowed():
    assert zero_actions(FOUR, obs([0, 0, 1, 1]), 1).tolist() == [3]
    assert zero_actions(TWO_THREE, obs([0, 1, 0, 1, 1]), 1).tolist() == [[1, 1]]
    assert zero_actions(Spaces(Box((3,)), Discrete(4, start=1)), None, 2).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("spaces", "mask", "forbidden"), [(FOUR, [0, 1, 0, 1], [0, 2]), (TWO_THREE, [0, 1, 1, 0, 1], [0])]
)
def test_a_policy_never_takes_what_its_observation_forbids_and_its_gradient_is_finite(spaces, mask, forbidden, key):
    network = actor_critic(spaces, hidden=(8,))
    params, seen = network.init(key), obs(mask, 500)
    distribution, _ = network.apply(params, seen)
    action = distribution.sample(key)
    first = action if action.ndim == 1 else action[:, 0]
    assert not set(np.unique(first).tolist()) & set(forbidden)
    assert bool(jnp.all(jnp.isfinite(distribution.log_prob(action))))
    at = jnp.full(500, forbidden[0]) if action.ndim == 1 else action.at[:, 0].set(forbidden[0])
    assert bool(jnp.all(distribution.log_prob(at) == -jnp.inf))

    def loss(params):
        distribution, value = network.apply(params, seen)
        return jnp.mean(distribution.log_prob(action) + distribution.entropy() + value)

    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(jax.grad(loss)(params)))


def test_the_mask_is_not_among_what_the_network_sees(key):
    network = actor_critic(FOUR, hidden=(8,))
    assert network.init(key).actor.layers[0].kernel.shape == (3, 8)
    assert without_mask(FOUR.observation) == {"seen": Box((3,))}


@pytest.mark.parametrize(
    ("spaces", "words"), [(masked(Discrete(4), 3), r"shape \(3,\).*\(4,\)"), (masked(Box((2,)), 2), "not discrete")]
)
def test_a_mask_that_does_not_suit_the_actions_is_said(spaces, words):
    with pytest.raises(InputError, match=words):
        action_mask(spaces, None)
