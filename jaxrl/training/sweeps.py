"""Many agents as one program: the functions of one run, mapped over stacked configs and seeds, and spread over devices.
And what population-based training does with them between two chunks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt32

from jaxrl.ops.platform import compile_lowered, in_turns
from jaxrl.settings import float32
from jaxrl.training.compiled import eval_key, functions, memory_of, read_told
from jaxrl.types import Evaluator, InputError, Key, Program, PyTree, TrainState

AXIS = "seed"  # of the mesh: the members of a sweep


class Together(NamedTuple):
    """M members, compiled. Configs have a leading axis [M] in every float, and states in every leaf.

    init(configs, seeds) -> states. chunk(configs, states, told, updates) -> (states, told): it takes the memory of
    states and told over; `nothing` is what a first chunk was told. read(told) -> (means of the metrics `names` [M,
    names], which floats of the learners are finite [M, floats]). measures[i](configs, seeds, states) -> what
    evaluators[i] measures first, [M, ...], as a run of that seed asks it. place(tree) puts leading axes [M] where the
    members are. state: shapes of states.
    memory: MiB of all devices: "training", and beside it "evaluation" and "copy".
    """

    size: int
    init: Callable[[Any, UInt32[Array, " M"]], TrainState]
    chunk: Callable[..., tuple[TrainState, Float[Array, "M told"]]]
    nothing: Callable[[], Float[Array, "M told"]]
    read: Callable[[Float[Array, "M told"]], tuple[np.ndarray, np.ndarray]]
    names: tuple[str, ...]
    measures: tuple[Callable[[Any, UInt32[Array, " M"], TrainState], PyTree], ...]
    evaluators: Sequence[Evaluator]
    place: Callable[[PyTree], PyTree]
    state: TrainState
    memory: dict[str, float]


def compile_together(config: Any, given: dict[str, Any], p: Program, size: int, devices: int = 1) -> Together:
    """Compile the programs of `size` members that differ from `config` by floats and seeds. p: the program of one.

    devices: how many share the members, of which `size` must be a multiple; each computes its own, and nothing is
    exchanged. On a CPU the members of a device act side by side, and learn and are evaluated in turns.
    """
    if p.host is not None:
        raise InputError(
            f"part of {p.label} runs on the host, and a sweep is one compiled program; `run` its members one by one"
        )
    if p.places is not None:
        raise InputError(
            f"parallel.data = {config.parallel.data}: a sweep spreads its members over the devices, each in one shard; "
            "leave it out"
        )
    f = functions(config, given, p)
    mesh = jax.make_mesh((devices,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    each, same = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    def init(configs: Any, seeds: Array, arrays: list) -> TrainState:
        return jax.vmap(lambda c, seed: f.init((c, arrays), jax.random.key(seed)))(configs, seeds)

    def chunk(configs: Any, states: TrainState, told: Array, updates: Array, arrays: list) -> tuple:
        def alone(config: Any, state: TrainState, told: Array) -> tuple[TrainState, Array]:
            leaves, told = f.chunk(jax.tree.leaves((config, arrays)), jax.tree.leaves(state), updates, told)
            return jax.tree.unflatten(jax.tree.structure(state), leaves), told

        return jax.vmap(alone)(configs, states, told)

    def measure(i: int, configs: Any, seeds: Array, states: TrainState, arrays: list) -> PyTree:
        def alone(config: Any, seed: Array, state: TrainState) -> PyTree:
            key = eval_key(seed, state.num_steps)
            return f.measures[i]((config, arrays), key, state.learner, jnp.int32(0))

        return jax.vmap(partial(in_turns, alone))(configs, seeds, states)

    def spread(function: Callable, mapped: Sequence[bool], args: tuple, brief: bool = False, **options: Any) -> Any:
        """Lowered and compiled, with its arguments mapped over the members, or the same for all."""
        where = [each if m else same for m in mapped]
        split = jax.shard_map(
            function, mesh=mesh, in_specs=tuple(w.spec for w in where), out_specs=each.spec, check_vma=False
        )
        return compile_lowered(jax.jit(split, in_shardings=tuple(where), **options).lower(*args), brief)

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)

    configs, states = jax.tree.map(stacked, (float32(config), f.state))
    seeds, number, told = stacked(jnp.uint32(0)), jax.ShapeDtypeStruct((), jnp.int32), stacked(f.nothing)
    arrays = jax.device_put(f.inputs[1], same)
    begin = spread(init, (True, True, False), (configs, seeds, arrays), brief=True)
    train = spread(
        chunk, (True, True, True, False, False), (configs, states, told, number, arrays), donate_argnums=(1, 2)
    )
    asked = [
        spread(partial(measure, i), (True, True, True, False), (configs, seeds, states, arrays), e.brief)
        for i, e in enumerate(p.evaluators)
    ]
    place = partial(jax.device_put, device=each)
    return Together(
        size=size,
        init=lambda configs, seeds: begin(place(configs), place(seeds), arrays),
        chunk=lambda configs, states, told, updates: train(configs, states, told, jnp.int32(updates), arrays),
        nothing=lambda: place(np.broadcast_to(f.nothing, (size, *f.nothing.shape))),
        read=partial(read_told, f.names),
        names=f.names,
        measures=tuple(partial(_ask, ask, place, arrays) for ask in asked),
        evaluators=p.evaluators,
        place=place,
        state=states,
        memory=_memory(train, asked, states, devices),
    )


def _ask(ask: Callable, place: Callable, arrays: list, configs: Any, seeds: Array, states: TrainState) -> PyTree:
    return ask(configs, place(seeds), states, arrays)


def _memory(train: Any, asked: list[Any], states: PyTree, devices: int) -> dict[str, float]:
    found = [memory_of(program) for program in (train, *asked)]
    if not all(found):
        return {}
    copy = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(states)) / 2**20
    beside = [told["temporaries"] + told["outputs"] for told in found[1:]]
    return {"training": devices * found[0]["total"], "evaluation": devices * max([0.0, *beside]), "copy": copy}


class Explored(NamedTuple):
    """configs and states after it; source [M]: the member that each now goes on from, itself for most."""

    configs: Any
    states: TrainState
    source: Int[Array, " M"]


def exploit_and_explore(
    key: Key, score: Float[Array, " M"], configs: Any, states: TrainState, low: Any, high: Any, log: Any
) -> Explored:
    """Population-based training between two intervals (Jaderberg et al. 2017, arXiv 1711.09846): the worst quarter goes
    on from the learners of the best quarter, with other settings.

    Each of the worst takes over everything that one of the best, drawn at random, has learned, its optimiser's state
    included, and its swept settings, each changed: × or ÷ 1.25 where it was swept on a log scale, else ± a tenth of its
    range; one in four is drawn anew from its range. Environments and keys stay its own.
    score: higher is better; one that is not finite is the worst. low, high, log: configs that hold the range of every
    float that is swept, and whether its scale is log; low = high where a float is not swept.
    """
    count = score.shape[0]
    order = jnp.argsort(jnp.where(jnp.isfinite(score), score, -jnp.inf))
    few = max(1, count // 4) if count > 1 else 0
    k_source, k_explore = jax.random.split(key)
    best = jax.random.choice(k_source, order[count - few :], (few,)) if few else order[:0]
    source = jnp.arange(count).at[order[:few]].set(best)
    copied = source != jnp.arange(count)
    learner = jax.tree.map(lambda x: x[source], states.learner)

    def explored(i: int, x: Array, low: Array, high: Array, log: Array) -> Array:
        k_up, k_anew, k_value = jax.random.split(jax.random.fold_in(k_explore, i), 3)
        up = jnp.where(jax.random.bernoulli(k_up, 0.5, (count,)), 1.0, -1.0)
        moved = jnp.where(log, x[source] * 1.25**up, x[source] + up * 0.1 * (high - low))
        u = jax.random.uniform(k_value, (count,))
        drawn = jnp.where(log, low ** (1 - u) * high**u, low + u * (high - low))
        new = jnp.where(jax.random.bernoulli(k_anew, 0.25, (count,)), drawn, moved)
        return jnp.where(copied & (low < high), jnp.clip(new, low, high), x)

    leaves, structure = jax.tree.flatten(configs)
    rest = zip(*map(jax.tree.leaves, (low, high, log)), strict=True)
    changed = [explored(i, x, *bounds) for i, (x, bounds) in enumerate(zip(leaves, rest, strict=True))]
    return Explored(jax.tree.unflatten(structure, changed), states._replace(learner=learner), source)
