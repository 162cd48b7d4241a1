"""Spaces: what they draw, and what they equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.types import InputError

SPACES = [
    Discrete(3),
    Discrete(3, start=-1),
    MultiDiscrete((2, 3)),
    Box((2,), -1.0, 2.0),
    Box((2,), 0.0),
    Box((2,), 0, 255, np.uint8),
    Box((2,), -1, 1, jnp.bfloat16),
]


def draws(space, num=200):
    return np.asarray(jax.vmap(space.sample)(jax.random.split(jax.random.key(0), num)))


def test_a_discrete_space_starts_where_it_says():
    space = Discrete(3, start=5)
    assert set(draws(space).tolist()) == {5, 6, 7}
    assert space.zero() == 5 and space != Discrete(3)
    assert set(draws(Discrete(3)).tolist()) == {0, 1, 2}


def test_a_box_of_integers_draws_both_bounds():
    assert set(draws(Box((), 3, 5, np.uint8)).tolist()) == {3, 4, 5}


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("x64", [False, True])
def test_what_is_drawn_and_the_zero_have_the_shape_and_dtype_of_the_space(space, x64, key):
    with jax.enable_x64(x64):
        for x in (jax.eval_shape(space.sample, key), jax.eval_shape(space.zero)):
            assert (x.shape, x.dtype) == (space.shape, np.dtype(space.dtype))


def test_a_box_of_float64_has_the_bounds_of_float64():
    with jax.enable_x64(True):
        assert Box((), 0.1, 1.0, np.float64).bounds[0] == 0.1
        assert Box((), 0.1, 1.0).bounds[0] == np.float32(0.1)


def test_boxes_are_equal_and_hash_by_value():
    box = Box((2,), -1.0, 1.0)
    arrays = Box((2,), np.array([-1.0, -1.0]), [1, 1])
    for same in (arrays, Box((2,), -1, 1, jnp.float32), Box((2,), jnp.full(2, -1.0), 1)):
        assert same == box and hash(same) == hash(box)
    others = (Box((3,), -1.0, 1.0), Box((2,), -1.0, 2.0), Box((2,), -1.0, 1.0, np.float16), Box((2,)), Discrete(2))
    assert all(other != box for other in others)
    assert Box((1,), -0.0) == Box((1,), 0.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((-1.0, 5.0, (1,)), r"shape = -1\.0 of a Box is no tuple of sizes; a Box is Box\(shape, low, high\)"),
        (((2, -1),), r"shape = \(2, -1\)"),
        ((3,), "shape = 3"),
        (((2,), [0.0, 1.0, 2.0]), r"low of a Box of shape \(2,\) has shape \(3,\); give one number"),
        (((2,), -1.0, np.ones((2, 2))), r"high of a Box of shape \(2,\) has shape \(2, 2\)"),
    ],
)
def test_a_box_that_cannot_be_is_refused(arguments, sentence):
    """The first is in Gymnasium's order, which many know by heart."""
    with pytest.raises(InputError, match=sentence):
        Box(*arguments)
