"""Checkpoints: exact, or refused with a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.networks import MLP
from jaxrl.runs.checkpoints import Checkpoints


def tree():
    params = MLP([jnp.ones((3, 4)), jnp.ones((4, 2))], jnp.tanh)
    optimizer = optax.adam(1e-3).init(params)
    return {
        "params": params,
        "opt": optimizer,
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(8), 3),
        "count": jnp.int32(2**31 - 1),
        "flag": jnp.array(True),
        "nan": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45]),
        "nothing": (),
        "none": None,
    }


def bits(leaf):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


@pytest.mark.parametrize("template", [lambda: jax.eval_shape(tree), tree], ids=["shapes", "arrays"])
@pytest.mark.device
def test_round_trip_keeps_every_bit_and_type(tmp_path, template):
    saved = tree()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, saved)
    restored = checkpoints.restore(template())
    assert jax.tree.structure(saved) == jax.tree.structure(restored)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    assert bool(jnp.all(jax.random.uniform(restored["key"]) == jax.random.uniform(saved["key"])))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": jnp.float32(1)}, r"\['count'\] is int32\[\], but this run needs float32\[\]"),
        ({"flag": jnp.zeros(2, bool)}, r"\['flag'\] is bool\[\], but this run needs bool\[2\]"),
        ({"new": jnp.zeros(2)}, r"has no \['new'\]"),
    ],
)
def test_another_shape_dtype_or_name_is_refused(tmp_path, change, sentence):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, tree())
    with pytest.raises(ValueError, match=sentence):
        checkpoints.restore({**tree(), **change})
    smaller = tree()
    del smaller["flag"]
    with pytest.raises(ValueError, match=r"holds \['flag'\] \(bool\[\]\), which this run does not have"):
        checkpoints.restore(smaller)


def test_the_newest_are_kept_and_the_newest_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": jnp.array(step)})
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.restore({"x": jnp.array(0)})["x"] == 3
    assert checkpoints.restore({"x": jnp.array(0)}, 2)["x"] == 2
    with pytest.raises(ValueError, match="no checkpoint of step 1"):
        checkpoints.restore({"x": jnp.array(0)}, 1)


def test_an_empty_directory_says_so(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint in"):
        Checkpoints(tmp_path).restore({"x": jnp.array(0)})
