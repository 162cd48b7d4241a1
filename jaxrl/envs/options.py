"""Options of environments: to whom they go, and a sentence for those that nobody takes."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp

from jaxrl.ops.platform import computed_now
from jaxrl.settings import closest
from jaxrl.types import InputError


def construct(name: str, cls: Callable, options: dict[str, Any], also: Iterable[str] = ()) -> Any:
    """cls(**options), made outside of any trace that may be under way: what is kept must not belong to it.

    `name` is what the environment is called, `also` the options that something else takes, for the sentences.
    Raises InputError for an option that `cls` does not have, naming the closest, and with what `cls` says of others.
    """
    names, takes_any = accepted(cls)
    if not takes_any:
        refuse_unknown(name, options, [*names, *also])
    try:
        with computed_now():
            return cls(**options)
    except Exception as error:  # whatever the class of somebody else makes of them
        with_options = f" with the options {options}" if options else ""
        raise InputError(f"{name} cannot be made{with_options} ({type(error).__name__}: {error})") from error


def refuse_unknown(name: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raises InputError, naming the closest, for an option that is not among the known."""
    known = list(known)
    for option in options:
        if option not in known:
            remedy = closest(option, known) or f"; it has {', '.join(known) or 'none'}"
            raise InputError(f"{name} has no option {option!r}{remedy}")


def changed(name: str, params: Any, options: dict[str, Any]) -> Any:
    """The dataclass `params` with some fields changed, each with the dtype it had.

    Raises InputError for a value of another kind or shape.
    """
    return dataclasses.replace(params, **{k: _like(name, k, v, getattr(params, k)) for k, v in options.items()})


def _like(name: str, option: str, value: Any, default: Any) -> Any:
    if isinstance(default, str | None) or isinstance(value, str):
        if type(value) is not type(default):
            raise InputError(f"{name}: {option} = {value!r} is of the wrong type; it is {default} by default")
        return value
    kind = jnp.result_type(default)
    alike = isinstance(value, bool) == jnp.issubdtype(kind, jnp.bool_) and jnp.asarray(value).astype(kind) == value
    if jnp.ndim(default) or not alike:
        raise InputError(f"{name}: {option} = {value!r} does not fit; it is {kind} of shape {jnp.shape(default)}")
    return jnp.asarray(value, kind)


def accepted(cls: Callable) -> tuple[list[str], bool]:
    """The names of the keyword arguments of `cls`, and whether it takes any others."""
    parameters = inspect.signature(cls).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return named, any(p.kind is p.VAR_KEYWORD for p in parameters)
