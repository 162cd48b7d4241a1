"""Agents side by side that learn in turns: what one of them needs stays in a core's cache, and its branches are taken
one way, where `vmap` would take them both.
"""

from collections.abc import Callable
from typing import Any

import jax

from jaxrl.ops.platform import tuning
from jaxrl.types import PyTree


def in_turns(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """function(*args); under `vmap`, one mapped case after the other where the platform likes that better.

    The same numbers either way. Differentiable in both modes; a derivative is taken of all cases at once.
    """
    if not tuning().agents_in_turns:
        return function(*args)
    flat, structure = jax.tree.flatten(args)
    # What is closed over, such as a learning rate of a stacked config, may be mapped as well: it becomes an argument.
    closed, shape = jax.make_jaxpr(jax.jit(lambda *x: function(*jax.tree.unflatten(structure, x))), return_shape=True)(
        *flat
    )

    def whole(*leaves: Any) -> list:
        return jax.core.eval_jaxpr(closed.jaxpr, leaves[: len(closed.consts)], *leaves[len(closed.consts) :])

    # Reverse mode knows no function of its own batching, so a derivative goes past it.
    alone = jax.custom_jvp(jax.custom_batching.sequential_vmap(whole))
    alone.defjvp(lambda values, tangents: _derivative(whole, values, tangents), symbolic_zeros=True)
    return jax.tree.unflatten(jax.tree.structure(shape), alone(*closed.consts, *flat))


def _derivative(function: Callable, values: tuple, tangents: tuple) -> tuple[list, list]:
    # Of a value that stands still not even a zero goes in: 0 times the slope of √ at 0 is not a number.
    moves = [not isinstance(tangent, jax.custom_derivatives.SymbolicZero) for tangent in tangents]

    def of_moving(*moving: Any) -> list:
        rest = iter(moving)
        return function(*(next(rest) if m else value for m, value in zip(moves, values, strict=True)))

    return jax.jvp(
        of_moving,
        [value for m, value in zip(moves, values, strict=True) if m],
        [tangent for m, tangent in zip(moves, tangents, strict=True) if m],
    )
