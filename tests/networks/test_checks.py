"""What a network must give: ours pass, and each mistake has its sentence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxrl.networks import actor_critic
from jaxrl.networks.checks import check_distribution, check_outputs
from jaxrl.ops.distributions import Categorical, DiagGaussian, MultiCategorical, TanhDiagGaussian
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Spaces
from jaxrl.types import Network

VECTOR, BOUNDED = Box((3,)), Box((2,), -1.0, 2.0)
TO_DISCRETE, TO_BOX = Spaces(VECTOR, Discrete(2)), Spaces(VECTOR, BOUNDED)


@pytest.mark.parametrize(
    ("spaces", "head"),
    [
        (TO_DISCRETE, "auto"),
        (Spaces(VECTOR, Discrete(3, start=4)), "auto"),
        (Spaces(VECTOR, MultiDiscrete((2, 3))), "auto"),
        (TO_BOX, "normal"),
        (TO_BOX, "tanh_normal"),
        (Spaces({"a": Box((4, 4), 0, 255, jnp.uint8), "b": (Discrete(3),)}, Discrete(2)), "auto"),
    ],
)
def test_ours_pass(spaces, head):
    check_outputs(actor_critic(spaces, head=head), spaces)


def network(give):
    """A network whose outputs are `give(features of the last axis made of the observation)`."""
    return Network(lambda key: jnp.ones((3, 8)), lambda params, obs: give(obs @ params))


def gaussian(kind, x, width):
    bound = jnp.ones(width)
    return kind(x[..., :width], jnp.ones(width), -bound, bound)


def test_bfloat16_is_allowed():
    half = lambda x: x.astype(jnp.bfloat16)  # noqa: E731
    check_outputs(network(lambda x: (Categorical(half(x)[..., :2]), half(x)[..., 2])), TO_DISCRETE)
    check_outputs(network(lambda x: (gaussian(DiagGaussian, half(x), 2), half(x)[..., 2])), TO_BOX)


@pytest.mark.parametrize(
    ("spaces", "give", "sentence"),
    [
        (TO_DISCRETE, lambda x: (Categorical(x[..., :2]), x[..., 2:3]), r"a 1; give value\[..., 0\]"),
        (
            TO_DISCRETE,
            lambda x: (Categorical(x[..., :2]), x[0, :, 2]),
            r"value has shape \(3,\) for a batch of \(2, 3\)",
        ),
        (
            TO_DISCRETE,
            lambda x: (Categorical(x[..., :2]), jnp.argmax(x, -1)),
            "value has dtype int32; it must be of floats",
        ),
        (TO_DISCRETE, lambda x: (Categorical(x[..., :3]), x[..., 3]), "gives 3 logits for 2 actions"),
        (TO_DISCRETE, lambda x: Categorical(x[..., :2]), "gives a Categorical; it must give"),
        (TO_DISCRETE, lambda x: (x[..., :2], x[..., 2]), "which has no sample, log_prob, entropy, mode, env_action"),
        (TO_DISCRETE, lambda x: (x, x, x), r"gives a tuple of 3; it must give \(distribution, value\)"),
        (
            TO_DISCRETE,
            lambda x: (gaussian(DiagGaussian, x, 2), x[..., 2]),
            r"sample has shape \(2, 3, 2\).*be \(2, 3\)",
        ),
        (TO_BOX, lambda x: (gaussian(DiagGaussian, x, 3), x[..., 3]), "gives 3 means for 2 entries of an action"),
        (TO_BOX, lambda x: (gaussian(TanhDiagGaussian, x, 1), x[..., 3]), "gives 1 means for 2 entries of an action"),
        (TO_BOX, lambda x: (Categorical(x[..., :2]), x[..., 3]), r"sample has shape \(2, 3\).*must be \(2, 3, 2\)"),
        (
            Spaces(VECTOR, MultiDiscrete((2, 3))),
            lambda x: (MultiCategorical((Categorical(x[..., :2]), Categorical(x[..., :2]))), x[..., 2]),
            "gives 2 logits of a part for 3 values",
        ),
        (Spaces(VECTOR, Box(())), lambda x: (Categorical(x[..., :2]), x[..., 2]), "dtype int32, which does not suit"),
        (
            TO_DISCRETE,
            lambda x: (Categorical(x.reshape(3, 99)), x),
            r"fails on observations with the leading axes \(2, 3\)",
        ),
    ],
)
def test_each_mistake_has_its_sentence(spaces, give, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_outputs(network(give), spaces)


class Unsummed(NamedTuple):
    mean: jax.Array

    def sample(self, key=None):
        return self.mean

    def log_prob(self, action):
        return action

    mode = entropy = sample
    env_action = log_prob


def test_log_probabilities_per_entry_are_refused():
    with pytest.raises(ValueError, match=r"log_prob has shape \(5, 2\) for a batch of \(5,\); sum it over"):
        check_distribution(Unsummed(jnp.zeros((5, 2))), BOUNDED, (5,))
    check_distribution(gaussian(DiagGaussian, jnp.zeros((5, 2)), 2), BOUNDED, (5,))
