"""What a thing is, as a hash: a run, or a file computed from something, can tell whether it has the same again."""

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.ops.shards import on_host

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of functions, in what JAX writes of a tree's structure
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def fingerprint(value: Any) -> str:
    """sha256 over what `value` is: arrays by shape, type and bytes; functions by their code and what they close over;
    dataclasses, tuples, dicts and plain objects by their type and what they hold.

    Nothing that differs between two processes, such as an address, is looked at. Objects that show nothing of
    themselves (compiled extensions, modules) count by their type alone.

    The code of a class's methods, and globals that a function reads, are not looked at.
    """
    digest = hashlib.sha256()
    for part in _parts(value, ()):
        digest.update(part)
    return digest.hexdigest()


def name_of(value: Any) -> str:
    """Of an object its type, else the class or function itself, as "package.module:Class"; of a partial
    function, and of a method, the function."""
    while isinstance(value, functools.partial | types.MethodType):
        value = value.func if isinstance(value, functools.partial) else value.__func__
    kind = value if isinstance(value, type | types.FunctionType) else type(value)
    return f"{kind.__module__}:{kind.__qualname__}"


def _parts(value: Any, inside: tuple[int, ...]) -> Iterator[bytes | memoryview]:
    if id(value) in inside:  # it holds itself
        yield b"<again>"
        return
    inside = (*inside, id(value))
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r};".encode()
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        yield from _array(value)
    elif isinstance(value, types.ModuleType):
        yield f"module {value.__name__};".encode()
    elif isinstance(value, type):
        yield f"type {name_of(value)};".encode()
    elif callable(getattr(type(value), "fingerprint", None)):  # it knows best, as tokenizers do
        yield f"{name_of(value)} {value.fingerprint()};".encode()
    elif callable(value) and (known := _function(value)) is not None:
        yield b"function"
        yield from _parts(known, inside)
    else:
        yield f"{name_of(value)}(".encode()
        for key, held in _held(value):
            yield f"{key!r}=".encode()
            yield from _parts(held, inside)
        yield b")"


def _array(value: Any) -> Iterator[bytes | memoryview]:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        yield f"key {value.dtype};".encode()
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(on_host(value) if isinstance(value, jax.Array) else value)
    yield f"array {array.dtype}{array.shape};".encode()
    yield array.view(np.uint8).data if array.size else b""


def _function(value: Any) -> tuple | None:
    """What a function is made of, or None for an object that can merely be called."""
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, types.MethodType):
        return (value.__func__, value.__self__)
    value = getattr(value, "__wrapped__", value)  # of jax.jit
    if not isinstance(value, types.FunctionType):
        return (name_of(type(value)), value.__name__) if isinstance(value, types.BuiltinFunctionType) else None
    closed_over = tuple(_contents(cell) for cell in value.__closure__ or ())
    return (name_of(value), _code(value.__code__), value.__defaults__, value.__kwdefaults__, closed_over)


def _code(code: types.CodeType) -> tuple:
    constants = [
        _code(x) if isinstance(x, types.CodeType) else x for x in code.co_consts if not isinstance(x, frozenset)
    ]
    return (code.co_code, tuple(constants), code.co_names)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _held(value: Any) -> list[tuple[Any, Any]]:
    if dataclasses.is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return sorted(value.items(), key=lambda item: str(item[0]))
    if isinstance(value, tuple | list):
        return list(enumerate(value))
    if isinstance(value, set | frozenset):
        return list(enumerate(sorted(value, key=str)))
    children = jax.tree_util.default_registry.flatten_one_level(value)
    if children is not None:  # a pytree of a kind of its own, such as a module
        rest = _ADDRESS.sub("", str(jax.tree.structure(value)))
        return list(enumerate([*children[0], rest]))
    return sorted(getattr(value, "__dict__", {}).items())
