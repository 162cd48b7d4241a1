"""The programs of a run: traced first, so that what is wrong is said before anything is written; compiled then, side by
side where there are several cores; on one, those that evaluate when they are first asked.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jaxrl.ops import metrics as m
from jaxrl.ops.platform import compile_lowered, cores
from jaxrl.settings import float32
from jaxrl.training.given import of_arrays, split_given
from jaxrl.training.processes import one_at_a_time, placed
from jaxrl.training.programs import unchecked
from jaxrl.types import Evaluator, InputError, Key, Learner, Program, PyTree, TrainState

_SMALL = 2**13  # entries of a leaf
_EVAL = 0x6576616C  # folded into the seed's key: far from any number that training folds or splits
# The driver calls a chunk with lists of leaves, and reads one array of it: to take modules apart and put them together,
# and to wait for many small arrays, takes longer than an update of a small program.
Leaves = list[jax.Array]


class Asked(NamedTuple):
    """An evaluator and compiled() -> ask(key, learner, case) -> what it measured; compiled by its first call, if not
    before."""

    evaluator: Evaluator
    compiled: Callable[[], Callable[[Key, Learner, int], PyTree]]


class Compiled(NamedTuple):
    """init(key) -> state; chunk(leaves, updates, told) -> (leaves, told), on the leaves of a state, of which `whole`
    makes it again; read(told) -> (the metrics over those updates, for each of the learner's `floats` whether it is
    finite throughout); the evaluators; and the MiB that the training program takes.

    A chunk takes its leaves' memory over. A chunk of no updates tells of the state as it is. What it was told by the
    chunk before it counts too: two that go on from each other tell bit for bit what one of both would.
    """

    init: Callable[[Key], TrainState]
    chunk: Callable[..., tuple[Leaves, Float[Array, " told"]]]
    whole: Callable[[Leaves], TrainState]
    read: Callable[[Float[Array, " told"]], tuple[dict[str, float], Bool[np.ndarray, " floats"]]]
    floats: list[str]
    evaluators: tuple[Asked, ...]
    memory: dict[str, float]
    nothing: Float[Array, " told"]
    """What a first chunk was told."""
    place: Callable[[TrainState], TrainState]
    """Puts a state that this host has whole where it belongs."""
    using: Callable[[Any], "Compiled"]
    """using(config) -> the same programs with the floats of another config; nothing is compiled."""


class Functions(NamedTuple):
    """A run as pure functions of arrays, to be jitted, or mapped over configs and seeds first.

    inputs: (the config's floats, the arrays that are given); the functions may be called with others. init(inputs, key)
    -> state; chunk(flat inputs, leaves, updates, told) -> (leaves, told), measures[i](inputs, key, learner, case), as
    in Compiled. collect(flat inputs, leaves) -> (carry, batch) and learn(flat inputs, leaves, carry, batch, told) ->
    (leaves, told): the halves of an update, for a host to be asked in between. state, batch: shapes. names: of the
    metrics, in the order in which they are told.
    """

    inputs: tuple[Any, list[Any]]
    init: Callable[[tuple, Key], TrainState]
    chunk: Callable[..., tuple[Leaves, Float[Array, " told"]]]
    measures: tuple[Callable[..., PyTree], ...]
    collect: Callable[..., tuple[PyTree, PyTree]]
    learn: Callable[..., tuple[Leaves, Float[Array, " told"]]]
    state: TrainState
    batch: PyTree
    names: tuple[str, ...]
    nothing: Float[np.ndarray, " told"]


def functions(config: Any, given: dict[str, Any], p: Program) -> Functions:
    """The functions of a run, traced once. `p`: as the config makes it."""
    arrays, join = split_given(given)
    inputs = (float32(config), arrays)
    structure = jax.tree.structure(inputs)

    def remade(inputs: tuple) -> Program:
        config, arrays = inputs
        return unchecked(config, **join(arrays))

    # Each is traced once, for its shapes and for what is compiled.
    once = functools.partial(jax.jit, inline=True)

    @once
    def collected(inputs: tuple, state: TrainState) -> tuple[TrainState, PyTree]:
        return remade(inputs).collect(state)

    @once
    def learned(inputs: tuple, state: TrainState, batch: PyTree) -> tuple[TrainState, m.Packed]:
        state, metrics = remade(inputs).learn(state, batch)
        return state, m.pack(metrics)

    @once
    def step(inputs: tuple, state: TrainState) -> tuple[TrainState, m.Packed]:
        state, metrics = remade(inputs).step(state)
        return state, m.pack(metrics)

    init = jax.jit(lambda inputs, key: remade(inputs).init(key))
    state, batch = init.trace(inputs, _key()).out_info, None
    if p.host is None:
        packed = jax.eval_shape(step, inputs, state)[1]
    else:
        batch = jax.eval_shape(collected, inputs, state)[1]
        batch = batch if p.source.hosted is None else p.source.hosted(batch)
        packed = jax.eval_shape(learned, inputs, state, batch)[1]

    def unpacked(told: Float[Array, " told"]) -> m.Packed:
        return m.Packed(packed.names, told[: packed.sums.size].reshape(packed.sums.shape))

    def ended(state: TrainState, metrics: m.Packed) -> tuple[Leaves, Float[Array, " told"]]:
        finite = which_finite(state.learner).astype(metrics.sums.dtype)
        return jax.tree.leaves(state), jnp.concatenate([metrics.sums.reshape(-1), finite])

    def collect(flat: Leaves, leaves: Leaves) -> tuple[PyTree, PyTree]:
        state, batch = collected(jax.tree.unflatten(structure, flat), as_state(leaves))
        return state.carry, batch

    def learn(
        flat: Leaves, leaves: Leaves, carry: PyTree, batch: PyTree, told: Float[Array, " told"]
    ) -> tuple[Leaves, Float[Array, " told"]]:
        before = as_state(leaves)._replace(carry=carry)
        after, metrics = learned(jax.tree.unflatten(structure, flat), before, batch)
        return ended(after, m.add(unpacked(told), metrics))

    def as_state(leaves: Leaves) -> TrainState:
        return jax.tree.unflatten(jax.tree.structure(state), leaves)

    def chunk(
        flat: Leaves, leaves: Leaves, updates: jax.Array, told: Float[Array, " told"]
    ) -> tuple[Leaves, Float[Array, " told"]]:
        inputs = jax.tree.unflatten(structure, flat)

        def body(_, carry):
            state, total = carry
            state, metrics = step(inputs, state)
            return state, m.add(total, metrics)

        return ended(*jax.lax.fori_loop(0, updates, body, (as_state(leaves), unpacked(told))))

    def measure(i: int) -> Callable:
        return lambda inputs, *rest: remade(inputs).evaluators[i].measure(*rest)

    nothing = np.zeros(packed.sums.size + len(named_floats(state.learner)), packed.sums.dtype)
    measures = tuple(measure(i) for i in range(len(p.evaluators)))
    if p.host is not None:
        chunk = lambda flat, leaves, updates, told: ended(as_state(leaves), unpacked(told))  # noqa: E731  # of none
    return Functions(inputs, init, chunk, measures, collect, learn, state, batch, packed.names, nothing)


def trace(config: Any, given: dict[str, Any], p: Program) -> Callable[[], Compiled]:
    """Trace all programs of a run and return what compiles them. `p`: as the config makes it.

    The config's floats and all arrays that are given are arguments: another value of theirs compiles nothing.
    """
    f, number = functions(config, given, p), jax.ShapeDtypeStruct((), jnp.int32)
    (floats, arrays), places, given_places, end, carry = f.inputs, None, None, None, None
    if p.places is not None:
        places = p.places(f.state)
        end, carry = (jax.tree.leaves(places), places.num_steps), (places.carry, places.num_steps)
    if p.given_places is not None:
        given_places = of_arrays(given, p.given_places(given))
    state, inputs = _at(f.state, places), (floats, _at(arrays, given_places))
    flat, leaves = jax.tree.leaves(inputs), jax.tree.leaves(state)
    init = jax.jit(f.init, out_shardings=places).trace(inputs, _key())
    train = [jax.jit(f.chunk, donate_argnums=1, out_shardings=end).trace(flat, leaves, number, f.nothing)]
    if p.host is not None:
        if jax.process_count() > 1:
            raise InputError(
                f"part of {p.label} runs on the host, where {jax.process_count()} processes would each do it their own "
                "way; start one process"
            )
        batch = f.batch if places is None else _at(f.batch, jax.tree.map(lambda _: places.num_steps, f.batch))
        learn = jax.jit(f.learn, donate_argnums=1, out_shardings=end)
        train += [
            learn.trace(flat, leaves, state.carry, batch, f.nothing),
            jax.jit(f.collect, out_shardings=carry).trace(flat, leaves),
        ]
    told = places.num_steps if places is not None and p.given_places is not None else None
    asked = [
        jax.jit(measure, out_shardings=told).trace(inputs, _key(), state.learner, number) for measure in f.measures
    ]

    def compiled() -> Compiled:
        briefly = [e.brief for e in p.evaluators]
        made = _side_by_side([*train, init, *asked], [*[False] * len(train), True, *briefly])  # the longest first
        *updates, start = (one() for one in made[: len(train) + 1])
        return bound(config, updates, start, made[len(train) + 1 :])

    def bound(config: Any, updates: list[Callable], start: Callable, ask: list[Callable]) -> Compiled:
        # Once, not with every chunk.
        lying = jax.device_put(arrays) if given_places is None else placed(arrays, given_places)
        on_device = jax.device_put(float32(config)), lying
        flat, count, none = jax.tree.leaves(on_device), functools.cache(jnp.int32), jnp.asarray(f.nothing)

        def chunk(leaves: Leaves, number: int, told: Any = none) -> tuple[Leaves, Any]:
            if p.host is None or not number:
                return one_at_a_time(updates[0](flat, leaves, count(number), told))
            for _ in range(number):
                carry, batch = updates[2](flat, leaves)
                leaves, told = updates[1](flat, leaves, carry, p.host(jax.device_get(batch)), told)
            return leaves, told

        return Compiled(
            init=lambda key: start(on_device, key),
            chunk=chunk,
            whole=functools.partial(jax.tree.unflatten, jax.tree.structure(state)),
            read=functools.partial(_read, f.names),
            floats=[path for path, _ in named_floats(state.learner)],
            evaluators=tuple(
                Asked(evaluator, functools.partial(_asking, made, on_device))
                for evaluator, made in zip(p.evaluators, ask, strict=True)
            ),
            memory=memory_of(updates[min(1, len(updates) - 1)]),
            nothing=none,
            place=lambda state: placed(state, p.places and p.places(state)),
            using=lambda config: bound(config, updates, start, ask),
        )

    return compiled


def _at(shapes: PyTree, places: PyTree | None) -> PyTree:
    """Shapes, or arrays, as shapes that lie there; as they are where nothing says where."""
    if places is None:
        return shapes
    return jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, places)


def read_told(names: tuple[str, ...], told: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """What chunks were told [*m, told] as (means of the metrics [*m, names], which floats are finite [*m, floats])."""
    numbers = np.asarray(told)
    sums = numbers[..., : 2 * len(names)].reshape(*numbers.shape[:-1], len(names), 2)
    with np.errstate(invalid="ignore", divide="ignore"):  # of what was never counted, the mean is NaN
        return sums[..., 0] / sums[..., 1], numbers[..., 2 * len(names) :] > 0


def _read(names: tuple[str, ...], told: jax.Array) -> tuple[dict[str, float], np.ndarray]:
    means, fine = read_told(names, told)
    return dict(zip(names, means.tolist(), strict=True)), fine


def _key() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _side_by_side(traced: list[Any], brief: list[bool]) -> Sequence[Callable[[], Any]]:
    """For each program a function that returns it compiled, once it is."""
    programs = list(zip(traced, brief, strict=True))
    if cores() == 1:
        return [
            functools.cache(lambda one=one, brief=brief: compile_lowered(one.lower(), brief)) for one, brief in programs
        ]
    pool = ThreadPoolExecutor(cores())
    # Lowered in this thread: what a user has set for it, such as a precision, other threads do not have.
    made = [pool.submit(compile_lowered, one.lower(), brief).result for one, brief in programs]
    pool.shutdown(wait=False)
    return made


def eval_key(seed: Any, step: Any) -> jax.Array:
    """The key that evaluates a run after `step` steps, apart from every key of training."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _EVAL), step)


def _asking(made: Callable[[], Any], inputs: tuple) -> Callable[[Key, Learner, int], PyTree]:
    ask = made()
    return lambda key, learner, case: ask(inputs, key, learner, np.int32(case))


def memory_of(program: Any) -> dict[str, float]:
    """What XLA says a compiled program takes, in MiB; nothing where it does not say. What is updated in place counts
    once."""
    found = program.memory_analysis()
    if found is None:
        return {}
    parts = {
        "arguments": found.argument_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
        "outputs": found.output_size_in_bytes - found.alias_size_in_bytes,
    }
    mib = {name: round(size / 2**20, 3) for name, size in parts.items()}
    return {**mib, "total": round(sum(parts.values()) / 2**20, 3)}


def which_finite(learner: Learner) -> Bool[Array, " floats"]:
    """Which leaves are finite throughout."""
    leaves = [x.reshape(-1) for _, x in named_floats(learner)]
    # Of each leaf by itself XLA would make two or three kernels, at 15 ms of compiling: the small ones go together.
    small = [x for x in leaves if x.size <= _SMALL]
    owner = np.repeat(np.arange(len(small)), np.array([x.size for x in small], int))
    zeros = 0 * jnp.concatenate([jnp.zeros(0), *small])  # NaN where not finite
    sums = iter(jax.ops.segment_sum(zeros, owner, len(small), indices_are_sorted=True))
    return jnp.isfinite(jnp.array([next(sums) if x.size <= _SMALL else jnp.sum(0 * x) for x in leaves]))


def named_floats(learner: Learner) -> list[tuple[str, Any]]:
    """The leaves that can be other than finite, with their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(learner)
    return [(jax.tree_util.keystr(path), x) for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
