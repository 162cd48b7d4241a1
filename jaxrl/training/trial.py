"""An algorithm on trial: a few updates of its program, held to what the drivers and a reader of its metrics rely on."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.ops.metrics import Mean
from jaxrl.settings import replace
from jaxrl.training.programs import program
from jaxrl.types import Finding, InputError, Learner, Program, PyTree, TrainState, Transition

_UPDATES, _RATIO, _APART = 3, 1e-5, 1e-2


def try_algorithm(config: Any, *, seed: int = 0, **given: Any) -> Iterator[Finding]:
    """One finding for each thing that is tried with three updates of `config`; the rest is left out where its program
    cannot be made, or its state changes its types. given: as for `train`.
    """
    try:
        p = program(config, **given)
    except InputError as error:
        yield Finding("the config makes a program", str(error))
        return
    yield Finding(
        "the config makes a program", note=f"{p.num_updates:,} updates of {p.steps_per_update:,} {p.unit.label}"
    )
    key = jax.random.key(seed)
    wrong = _unsteady(p, key)
    yield Finding("the state keeps its structure, shapes and types", wrong)
    if wrong:
        return
    step, states, metrics = jax.jit(p.step), [jax.jit(p.init)(key)], []
    for _ in range(_UPDATES):
        state, told = step(states[-1])
        states.append(state)
        metrics.append(told)
    yield _steps(p, states)
    yield _metrics(metrics)
    yield _pure(p, states)
    if p.algorithm.policy is not None:
        yield from _ratio(config, p, states[-2], given)
    yield _mapped(p, seed)


def _unsteady(p: Program, key: jax.Array) -> str | None:
    before = jax.eval_shape(p.init, key)
    after, _ = jax.eval_shape(p.step, before)
    if (was := jax.tree.structure(before)) != (now := jax.tree.structure(after)):
        return f"it is {was} before an update and {now} after; they must be the same"
    for (path, x), y in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        name = jax.tree_util.keystr(path)
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            was, now = f"{x.dtype} of shape {x.shape}", f"{y.dtype} of shape {y.shape}"
            return f"state{name} is {was} before an update and {now} after; they must be the same"
        if x.weak_type != y.weak_type:
            return f"state{name} is weakly typed on one side of an update; make it with a dtype: jnp.float32(0)"
    return None


def _steps(p: Program, states: list[TrainState]) -> Finding:
    name, k = "steps executed are steps counted", len(states) - 1
    if (counted := int(states[-1].num_steps)) != k * p.steps_per_update:
        return Finding(
            name, f"num_steps = {counted} after {k} updates, not {k} × {p.steps_per_update}; leave it to the driver"
        )
    batch = _batch_shapes(p, states[0])
    if isinstance(batch, Transition) and (seen := int(np.prod(batch.reward.shape))) != p.steps_per_update:
        remedy = "make the source collect num_steps × num_envs, or say what it does"
        return Finding(name, f"a batch holds {seen} steps, and steps_per_update = {p.steps_per_update}; {remedy}")
    return Finding(name)


def _metrics(told: list[Any]) -> Finding:
    name = "metrics keep their names and are finite"
    for metric, value in told[0].items():
        if not isinstance(value, Mean):
            kind = type(value).__name__
            return Finding(name, f"{metric} is a {kind}; give a Mean, as jaxrl.ops.metrics.mean(x) makes it")
        if jnp.shape(value.total):
            return Finding(name, f"{metric} has shape {jnp.shape(value.total)}; take the mean within the update")
    bad = {m for row in told for m, value in row.items() if value.count != 0 and not np.isfinite(value.value)}
    return Finding(name, f"{', '.join(sorted(bad))} not finite within {_UPDATES} updates" if bad else None)


def _pure(p: Program, states: list[TrainState]) -> Finding:
    """An update after an evaluation, traced anew, against the same update without one."""
    name = "evaluation leaves training unchanged, and an update has no memory of its own"
    state, key = states[-2], jax.random.key(0)
    for e in p.evaluators:
        jax.block_until_ready(jax.jit(e.measure)(key, state.learner, 0))
    again, _ = jax.jit(lambda s: p.step(s))(state)
    wrong = "the same update gave two results; draw all that is random from its key, and keep everything in the learner"
    return Finding(name, None if _same(again, states[-1]) else wrong)


def _ratio(config: Any, p: Program, state: TrainState, given: dict[str, Any]) -> Iterator[Finding]:
    """What the rollout stored against what the policy says of the same observation and action, before the update."""
    batch = _collected(p, state)
    if not isinstance(batch, Transition):
        return
    found = float(jnp.max(jnp.abs(jnp.exp(jax.jit(_scored(p))(state.learner, batch) - batch.log_prob) - 1)))
    wrong = (
        f"|ratio - 1| is up to {found:.2g} before the first gradient step; score actions with what acted: the "
        "statistics that normalised then, and actions as they were sampled, before any clipping"
    )
    yield Finding("the first ratio is 1", None if found < _RATIO else wrong)
    names = {"num_epochs", "num_minibatches"}
    if names <= set(getattr(type(config), "__dataclass_fields__", {})):
        once = program(replace(config, num_epochs=1, num_minibatches=1), **given)
        _, told = jax.jit(once.algorithm.update)(jax.random.key(0), state.learner, batch)
        if "approx_kl" in told:
            kl = float(told["approx_kl"].value)
            wrong = f"approx_kl is {kl:.2g} in an update of one gradient step; move statistics only after the epochs"
            yield Finding("the update's own first ratio is 1", None if abs(kl) < 1e-6 else wrong)


def _mapped(p: Program, seed: int) -> Finding:
    """One update of two seeds under vmap against each alone, by the length of what it changed."""
    name, seeds = "two seeds under vmap are the two alone", jnp.arange(seed, seed + 2)

    def start_and_step(seed: jax.Array) -> tuple[Learner, Learner]:
        state = p.init(jax.random.key(seed))
        return state.learner, p.step(state)[0].learner

    try:
        together = jax.jit(jax.vmap(start_and_step))(seeds)
    except Exception as error:  # whatever it is, it is a finding
        return Finding(name, f"vmap fails ({type(error).__name__}: {str(error).splitlines()[0]})")
    for i in range(2):
        before, after = jax.jit(start_and_step)(seeds[i])
        mapped = jax.tree.map(lambda x, i=i: x[i], together[1])
        moved, apart = _distance(after, before), _distance(after, mapped)
        if not apart <= _APART * max(moved, 1e-6):
            wrong = (
                f"of seed {i} the update differs by {apart:.2g}, of {moved:.2g} that it changed; no operation may run"
            )
            return Finding(name, f"{wrong} over the axis of seeds, nor depend on the number of devices or of calls")
    return Finding(name)


def _batch_shapes(p: Program, state: TrainState) -> Any:
    return jax.eval_shape(p.source.collect, state.key, state.learner, state.carry)[1]


def _collected(p: Program, state: TrainState) -> Any:
    return jax.jit(p.source.collect)(state.key, state.learner, state.carry)[1]


def _scored(p: Program) -> Any:
    """score(learner, batch) -> log-probs [T, N], by the policy going through the rollout again with its memory."""

    def score(learner: Learner, batch: Transition) -> jax.Array:
        def step(memory: PyTree, now: tuple) -> tuple[PyTree, jax.Array]:
            obs, first, action = now
            memory, distribution = p.algorithm.policy(learner, memory, obs, first)
            return memory, distribution.log_prob(action)

        return jax.lax.scan(step, batch.memory, (batch.obs, batch.first, batch.action))[1]

    return score


def _same(a: PyTree, b: PyTree) -> bool:
    def data(x: Any) -> bytes:
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x).tobytes()

    return all(data(x) == data(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _distance(a: PyTree, b: PyTree) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    floats = [(np.asarray(x), np.asarray(y)) for x, y in pairs if jnp.issubdtype(x.dtype, jnp.floating)]
    return float(np.sqrt(sum(np.sum(np.square(x - y)) for x, y in floats)))
