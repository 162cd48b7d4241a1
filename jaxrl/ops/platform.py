"""Choices that change how fast a program runs and not what it computes, by platform: all of them, in one place.

`tuned` takes one of them back, to measure what it is worth on another machine.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax


class Tuning(NamedTuple):
    """What was chosen."""

    shuffle: str = "packed"
    """How minibatches are drawn: "packed" sorts random bits and row number in one 32-bit word, "permutation" is
    `jax.random.permutation`."""
    next_values: str = "truncated"
    """Where V(next_obs) is computed that V(obs) does not give: of the "truncated" steps, or of "all"."""
    micro_batch_rows: int | None = None
    """Rows of control whose gradient is taken at once where the config leaves it open; None takes a minibatch whole."""
    agents_in_turns: bool = False
    """Whether agents under `vmap` learn one after the other, each with a core's cache to itself."""
    remat: bool = False
    """Whether a language model's layers are recomputed in the backward pass where the config leaves it open."""


_CHOSEN = {
    # Activations of 2048 rows of two 64-wide layers stay in a core's cache; those of a language model's layers pass
    # through memory at a few GB/s, which takes about as long as computing them again.
    "cpu": Tuning(micro_batch_rows=2048, agents_in_turns=True, remat=True),
    # One large matmul is what accelerators are made for.
    "gpu": Tuning(),
    "tpu": Tuning(),
}
_changed: list[dict] = []


def tuning() -> Tuning:
    """What is chosen on the platform that JAX runs on by default."""
    chosen = _CHOSEN.get(jax.default_backend(), Tuning())
    for changes in _changed:
        chosen = chosen._replace(**changes)
    return chosen


@contextlib.contextmanager
def tuned(**changes: str | int | None) -> Iterator[None]:
    """Within it other choices hold for whatever is traced: for measurements and tests."""
    _changed.append(changes)
    try:
        yield
    finally:
        _changed.pop()
