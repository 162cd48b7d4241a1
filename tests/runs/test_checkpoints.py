"""Checkpoints: exact, or refused with a sentence."""

import errno
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl.networks import MLP
from jaxrl.runs.checkpoints import Checkpoints, Damaged, NotSaved
from jaxrl.training import leaves


def tree():
    params = MLP([jnp.ones((3, 4)), jnp.ones((4, 2))], "tanh")
    optimizer = optax.adam(1e-3).init(params)
    return {
        "params": params,
        "opt": optimizer,
        "key": jax.random.key(7),
        "keys": jax.random.split(jax.random.key(8), 3),
        "count": jnp.int32(2**31 - 1),
        "flag": jnp.array(True),
        "nan": jnp.array([jnp.nan, -0.0, jnp.inf, 1e-45]),
        "empty": jnp.zeros((0, 3), jnp.int16),
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


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1
    path.write_bytes(bytes(content))


def damage(directory):
    """Flip a bit in the middle of its largest file, which holds the numbers."""
    largest = max(files(directory), key=lambda path: path.stat().st_size)
    flipped(largest, largest.stat().st_size // 2)


def wide():
    return {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3), "key": jax.random.key(1)}


def test_a_flipped_bit_or_a_cut_in_any_file_is_never_restored_as_it_is(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    made.save(1, wide())
    made.save(2, wide())
    made.close()
    template, names = jax.eval_shape(wide), [f.relative_to(tmp_path) for f in files(tmp_path / "checkpoints" / "2")]
    assert len(names) > 3
    for n, name in enumerate(names):
        for how in ("flip", "cut", "gone"):
            copy = tmp_path / f"{n}-{how}"
            shutil.copytree(tmp_path / "checkpoints", copy / "checkpoints")
            file = copy / name
            if how == "flip":
                flipped(file, 7 * n + file.stat().st_size // 2)
            elif how == "cut":
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            else:
                file.unlink()
            found = Checkpoints(copy / "checkpoints")
            tree, step, notes = found.newest(template)
            assert all(bits(a) == bits(b) for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(wide()), strict=True))
            assert step == 2 or (step == 1 and "going on from step 1" in notes[0] and found.steps() == [1])


def test_what_cannot_be_gone_on_from_is_set_aside_and_its_step_can_be_saved_again(tmp_path):
    made = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        made.save(step, wide())
    made.wait()
    damage(tmp_path / "checkpoints" / "2")
    with pytest.raises(Damaged, match="the checkpoint of step 2 in .* (is damaged|cannot be read)"):
        made.restore(jax.eval_shape(wide))
    _, step, (note,) = made.newest(jax.eval_shape(wide))
    assert step == 1 and note.endswith("; going on from step 1") and made.steps() == [1]
    assert [path.name for path in (tmp_path / "damaged").iterdir()] == ["2-0"]
    made.save(2, wide())
    assert made.newest(jax.eval_shape(wide))[1:] == (2, [])
    for step in (1, 2):
        damage(tmp_path / "checkpoints" / str(step))
    with pytest.raises(Damaged, match="no checkpoint is whole: start again in another run_dir"):
        made.newest(jax.eval_shape(wide))


def test_a_save_that_writes_nothing_is_an_error(tmp_path):
    made = Checkpoints(tmp_path)
    made.save(5, wide())
    for step in (5, 3):
        made.save(step, wide())  # Orbax passes over steps that are not newer
        with pytest.raises(NotSaved, match=f"step {step} was not written"):
            made.wait()
    assert made.steps() == [5]


def test_a_full_disk_is_a_sentence_and_a_later_save_succeeds(tmp_path, monkeypatch):
    made, write = Checkpoints(tmp_path), os.rename
    made.save(1, wide())
    made.wait()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(os, "replace", full)
    made.save(2, wide())
    with pytest.raises(NotSaved, match=r"step 2 could not be written to .* \(.*No space left on device"):
        made.wait()
    monkeypatch.setattr(os, "rename", write)
    monkeypatch.undo()
    assert made.steps() == [1] and not list(tmp_path.glob("*tmp*"))
    made.save(3, wide())
    assert made.newest(jax.eval_shape(wide))[1:] == (3, [])


def test_the_best_and_those_for_good_are_kept_beside_the_newest_also_by_a_later_session(tmp_path):
    scores = {1: 1.0, 2: 5.0, 3: 2.0, 4: 3.0, 5: None, 6: 5.0, 7: 4.0, 8: 0.0}
    for steps in ((1, 2, 3, 4), (5, 6, 7, 8)):
        made = Checkpoints(tmp_path, keep=1, always=(3,))
        for step in steps:
            made.save(step, {"x": jnp.array(step)}, score=scores[step])
        best = made.best()
        kept = made.steps()
        made.close()
        assert (best, kept) == {4: (2, [2, 3, 4]), 8: (6, [3, 6, 8])}[steps[-1]]


def test_what_is_kept_beside_a_tree_is_read_without_it(tmp_path):
    made = Checkpoints(tmp_path)
    assert made.about() is None
    made.save(1, wide(), {"config.yaml": "a: 1"})
    assert made.about() == {"config.yaml": "a: 1"}


def test_a_state_may_be_donated_while_it_is_being_saved(tmp_path):
    made, state = Checkpoints(tmp_path, keep=20), {"x": jnp.arange(2**20, dtype=jnp.float32)}
    step = jax.jit(lambda state: {"x": state["x"] + 1}, donate_argnums=0)
    for n in range(20):
        made.save(n, state)
        state = step(state)
    for n in range(20):
        np.testing.assert_array_equal(made.restore(state, n)["x"], np.arange(2**20, dtype=np.float32) + n)


def test_numbers_of_another_width_name_the_setting_and_others_do_not():
    saved = {"x": "float64[64]", "y": "float32[64]"}
    with pytest.raises(
        ValueError, match=r"x holds float64\[64\], and this process .* float32\[64\]; set jax_enable_x64"
    ):
        leaves.compare(saved, {**saved, "x": "float32[64]"})
    with pytest.raises(ValueError, match=r"y is float32\[64\], but this run needs float32\[32\]; restore it"):
        leaves.compare(saved, {**saved, "y": "float32[32]"})


def test_keys_of_another_implementation_are_refused_or_restored_as_what_they_are(tmp_path):
    made = Checkpoints(tmp_path)
    made.save(1, {"key": jax.random.key(3, impl="rbg")})
    with pytest.raises(
        ValueError, match=r"\['key'\] holds key<rbg>\[\] keys, and .* key<fry>\[\]; set jax_default_prng_impl"
    ):
        made.restore({"key": jax.random.key(0)})
    restored = made.restore(jax.eval_shape(lambda: {"key": jax.random.key(0, impl="rbg")}))
    assert jax.random.key_impl(restored["key"]) == "rbg"
    assert bits(restored["key"]) == bits(jax.random.key(3, impl="rbg"))
