"""The programs of a run: traced first, so that what is wrong is said before anything is written; compiled then."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.ops import metrics as m
from jaxrl.runs.given import split_given
from jaxrl.settings import float32
from jaxrl.training import program
from jaxrl.types import Evaluator, Key, Learner, Metrics, Program, PyTree, TrainState


class Asked(NamedTuple):
    """An evaluator and ask(key, learner, case) -> what it measured."""

    evaluator: Evaluator
    ask: Callable[[Key, Learner, int], PyTree]


class Compiled(NamedTuple):
    """init(key) -> state; chunk(state, updates) -> (state, metrics over those updates); the evaluators; and
    bad_leaves(learner) -> the paths of its leaves that are not finite throughout.
    """

    init: Callable[[Key], TrainState]
    chunk: Callable[[TrainState, int], tuple[TrainState, Metrics]]
    evaluators: tuple[Asked, ...]
    bad_leaves: Callable[[Learner], list[str]]


def trace(config: Any, given: dict[str, Any], p: Program) -> Callable[[], Compiled]:
    """Trace all programs of a run and return what compiles them. `p`: as the config makes it, for its shapes.

    The config's floats and all arrays that are given are arguments: another value of theirs compiles nothing.
    """
    arrays, join = split_given(given)
    inputs = (float32(config), arrays)
    key = jax.random.key(0)
    state = jax.eval_shape(p.init, key)

    def remade(inputs: tuple) -> Program:
        config, arrays = inputs
        return program(config, **join(arrays))

    def chunk(inputs: tuple, state: TrainState, updates: jax.Array) -> tuple[TrainState, Metrics]:
        step = remade(inputs).step
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(step, state)[1])

        def body(_, carry):
            state, total = carry
            state, metrics = step(state)
            return state, m.add(total, metrics)

        return jax.lax.fori_loop(0, updates, body, (state, zeros))

    def measure(i: int) -> Callable:
        return lambda inputs, *rest: remade(inputs).evaluators[i].measure(*rest)

    number = jnp.zeros((), jnp.int32)
    init = jax.jit(lambda inputs, key: remade(inputs).init(key)).lower(inputs, key)
    train = jax.jit(chunk, donate_argnums=1).lower(inputs, state, number)
    asked = [jax.jit(measure(i)).lower(inputs, key, state.learner, number) for i in range(len(p.evaluators))]
    finite = jax.jit(_finite).lower([x for _, x in _floats(state.learner)])

    def compiled() -> Compiled:
        start, update, check = init.compile(), train.compile(), finite.compile()
        evaluators = [
            Asked(evaluator, lambda key, learner, case, ask=ask.compile(): ask(inputs, key, learner, jnp.int32(case)))
            for evaluator, ask in zip(p.evaluators, asked, strict=True)
        ]
        return Compiled(
            init=lambda key: start(inputs, key),
            chunk=lambda state, updates: update(inputs, state, jnp.int32(updates)),
            evaluators=tuple(evaluators),
            bad_leaves=lambda learner: _bad(check, learner),
        )

    return compiled


def _bad(finite: Callable, learner: Learner) -> list[str]:
    floats = _floats(learner)
    return [path for (path, _), fine in zip(floats, finite([x for _, x in floats]), strict=True) if not fine]


def _finite(floats: list[jax.Array]) -> list[jax.Array]:
    return [jnp.all(jnp.isfinite(x)) for x in floats]


def _floats(learner: Learner) -> list[tuple[str, jax.Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(learner)
    return [(jax.tree_util.keystr(path), x) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
