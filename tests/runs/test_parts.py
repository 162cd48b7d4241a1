"""Arrays put together of the parts that processes have saved."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.runs.checkpoints.parts import laid_out, needed, own_parts, whole
from jaxrl.types import InputError

TABLE = np.arange(24, dtype=np.int16).reshape(4, 6)
LIKE = {"x": jax.ShapeDtypeStruct((4, 6), jnp.int16)}


class Place:
    """Of an array, what the devices of one process are to have."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def addressable_devices_indices_map(self, shape):
        return {n: tuple(slice(*side) for side in box) for n, box in enumerate(self.boxes)}


def boxes(*cuts):
    """All boxes between cuts along each axis."""
    return list(itertools.product(*[itertools.pairwise(axis) for axis in cuts]))


def cut_out(box):
    return TABLE[tuple(slice(*side) for side in box)]


def manifests(*hosts):
    return [{"leaves": {f"['x'] {n}": ["int16[4, 6]", "", "['x']", box] for n, box in enumerate(own)}} for own in hosts]


@pytest.mark.parametrize("cuts", [((0, 4), (0, 3, 6)), ((0, 1, 4), (0, 6)), ((0, 2, 3, 4), (0, 1, 5, 6))])
def test_parts_make_the_whole_whichever_they_are(cuts):
    parts = [(box, cut_out(box)) for box in boxes(*cuts)]
    np.testing.assert_array_equal(laid_out(LIKE, None, {"['x']": parts})["x"], TABLE)
    with pytest.raises(ValueError, match="of 24 numbers were saved by no process"):
        laid_out(LIKE, None, {"['x']": parts[1:]})


def test_only_what_the_devices_of_a_process_have_a_part_in_is_read():
    saved = manifests(boxes((0, 1, 2), (0, 3, 6)), boxes((2, 3, 4), (0, 3, 6)))
    asked = needed(LIKE, {"x": Place(((1, 3), (0, 3)))}, saved)  # the left halves of rows 1 and 2
    assert [(one.host, one.name, one.shape) for one in asked] == [(0, "['x'] 2", (1, 3)), (1, "['x'] 0", (1, 3))]
    assert len(needed(LIKE, {"x": Place(((0, 4), (0, 3)), ((0, 4), (3, 6)))}, saved)) == 8
    assert len(needed(LIKE, None, saved)) == 8
    with pytest.raises(InputError, match=r"is int16\[4, 6\], but this run needs int32\[4, 6\]"):
        needed({"x": jnp.zeros((4, 6), jnp.int32)}, None, saved)


def test_what_was_found_is_what_was_saved_or_nothing():
    (part,) = own_parts({"['x']": jnp.arange(3, dtype=jnp.bfloat16)})
    (lying,) = needed({"x": jnp.zeros(3, jnp.bfloat16)}, None, [{"leaves": {part.name: part.told("bfloat16[3]")}}])
    assert lying.box == whole((3,)) and lying.checked(part.numbers) is not None
    assert lying.checked(part.numbers.view("V2")).dtype == jnp.bfloat16  # as NumPy's files have it
    for other in (None, 0, part.numbers + 1, part.numbers.astype(np.float32), part.numbers.view(np.int16)):
        assert lying.checked(other) is None
