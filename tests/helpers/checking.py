"""Which annotations are checked at run time."""

from collections.abc import Callable

from beartype import beartype


def functions(function: Callable) -> Callable:
    """All but the fields of configs: a `float` of theirs may hold a tracer or a stack."""
    return function if function.__name__ == "__init__" else beartype(function)
