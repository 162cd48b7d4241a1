"""A pytree as named leaves that a file can hold, and back."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import InputError, PyTree


def named(tree: PyTree) -> dict[str, Any]:
    """{key path: leaf}."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def describe(leaf: Any) -> str:
    """Type and shape, as in float32[3, 4]; of keys the implementation, as in key<fry>[]."""
    return f"{leaf.dtype}{list(leaf.shape)}"


def digest(array: Any) -> str:
    """sha256 of its bytes."""
    held = np.ascontiguousarray(np.asarray(array))
    return hashlib.sha256(held.reshape(-1).view(np.uint8)).hexdigest()


def is_key(leaf: Any) -> bool:
    """Whether it is typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def data(leaf: Any) -> jax.Array:
    """The leaf, of keys their numbers."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def typed(like: Any, array: jax.Array) -> jax.Array:
    """The inverse of `data`, for a leaf like `like`."""
    if not is_key(like):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(jnp.empty((), like.dtype)))


def compare(saved: dict[str, str], wanted: dict[str, str]) -> None:
    """Raises InputError for the first leaf that is missing, too many, or of another type or shape."""
    advice = "restore it with the config, environment and versions that it was saved with"
    for path in {**wanted, **saved}:
        if path not in saved:
            raise InputError(f"the checkpoint has no {path} ({wanted[path]}); {advice}")
        if path not in wanted:
            raise InputError(f"the checkpoint holds {path} ({saved[path]}), which this run does not have; {advice}")
        if saved[path] == wanted[path]:
            continue
        if {saved[path][:4], wanted[path][:4]} == {"key<"}:
            kinds = f"{saved[path]} keys, and this process makes {wanted[path]}"
            raise InputError(f"the checkpoint's {path} holds {kinds}; set jax_default_prng_impl as it was then")
        (was, _, shape), (now, _, asked) = saved[path].partition("["), wanted[path].partition("[")
        if shape == asked and was.replace("64", "32") == now.replace("64", "32"):
            kinds = f"{saved[path]}, and this process computes {wanted[path]}"
            raise InputError(f"the checkpoint's {path} holds {kinds}; set jax_enable_x64 as it was then")
        raise InputError(f"the checkpoint's {path} is {saved[path]}, but this run needs {wanted[path]}; {advice}")
