"""Which annotations are checked at run time."""

from collections import Counter
from collections.abc import Callable

from beartype import beartype

_TIMES = 20
_made: Counter = Counter()


def functions(function: Callable) -> Callable:
    """All but the fields of configs: a `float` of theirs may hold a tracer or a stack. Those in other functions are
    made anew with each call of these: the first so many of each, for beartype writes code for every one."""
    if function.__name__ == "__init__":
        return function
    _made[function.__code__] += 1
    return beartype(function) if _made[function.__code__] <= _TIMES else function
