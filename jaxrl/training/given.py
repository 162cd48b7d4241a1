"""What a run is given beside its config: one pytree, whose arrays are arguments of the compiled programs, so that they
are not constants in them, and whose rest fixes what is compiled.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrl.data.fingerprints import fingerprint, name_of
from jaxrl.types import PyTree


def split_given(given: PyTree) -> tuple[list[Any], Callable[[list[Any]], PyTree]]:
    """(arrays, join): join(arrays) is `given` again, with these or others (tracers) in their places."""
    leaves, structure = jax.tree.flatten(given)
    places = _arrays(leaves)

    def join(arrays: list[Any]) -> PyTree:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.unflatten(structure, filled)

    return [leaves[i] for i in places], join


def of_arrays(given: PyTree, told: PyTree) -> list[Any]:
    """What `told`, a tree like `given`, has for each of its arrays, in the order of `split_given`."""
    found = jax.tree.leaves(told)
    return [found[i] for i in _arrays(jax.tree.leaves(given))]


def _arrays(leaves: list[Any]) -> list[int]:
    return [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]


def describe(given: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Of everything that is given: what it is, for people, and the sha256 of all that it is."""
    return {
        name: {"is": _called(thing), "sha256": fingerprint(thing)} for name, thing in given.items() if thing is not None
    }


def _called(thing: Any) -> str:
    """What it calls itself, where it does: a type says little of what wraps somebody's function."""
    return thing.called() if callable(getattr(type(thing), "called", None)) else name_of(thing)
