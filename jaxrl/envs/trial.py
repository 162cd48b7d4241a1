"""An environment on trial: it is played with random actions, and held to what every algorithm here relies on.

`check_environment` takes one look before each run; this takes its time, for an environment that is being written.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from jaxrl.envs.base import select, truncates
from jaxrl.envs.check import beyond, check_environment, random_action
from jaxrl.envs.hosted import HostVectorEnv, is_hosted
from jaxrl.envs.vector import VectorEnv, VectorState, vectorize
from jaxrl.ops.masks import random_actions
from jaxrl.spaces import Spaces
from jaxrl.types import Finding, InputError, Key, PyTree, Step

_HOSTED = 4  # copies of an environment that lives on the host
_COPIES, _STARTS, _DRAWS, _CHUNKS, _CLOSE = 16, 64, 6, 4, 1e-4


class Moment(NamedTuple):
    """One step of each of N copies: key, state and action that it was taken with, and what it said."""

    key: Key
    state: PyTree
    action: PyTree
    step: Step


class Played(NamedTuple):
    """steps: what T steps of N copies said, on the host, leading axes [T, N]. last: the last of them. ends: of each
    copy the last that ended an episode, where it has `ended` one. programs: how many were compiled for it.
    """

    steps: Step
    last: Moment
    ends: Moment
    ended: Bool[Array, " N"]
    programs: int


def try_environment(env: Any, *, num_steps: int = 10_000, seed: int = 0) -> Iterator[Finding]:
    """One finding for each thing that is tried; the rest is left out where the first, the protocol, is broken.

    num_steps: with random actions, of 16 copies together. Raises InputError for fewer than make four steps of each.
    """
    if is_hosted(env):
        yield from _hosted(env, num_steps, seed)
        return
    if num_steps < _COPIES * _CHUNKS:
        raise InputError(f"steps = {num_steps} are too few to tell anything; give at least {_COPIES * _CHUNKS}")
    wrong = _protocol(env)
    yield Finding("protocol: spaces, dtypes, structure", wrong)
    if wrong:
        return
    key = jax.random.key(seed)
    yield _same_again(env, key)
    different = _different_starts(env, key)
    note = f"{different} different ones of {_STARTS} keys"
    if different == 1:
        note = f"all of {_STARTS} keys give the same: well if that is meant, else let `reset` draw from its key"
    yield Finding("starts are drawn", note=note)
    vector = vectorize(env, _COPIES)
    played = play(vector, key, num_steps)
    yield _compiled_once(env, key, played.programs)
    yield _finite(played.steps)
    wrong = beyond(
        env.observation_space, jax.tree.map(lambda x: x[~played.steps.info["invalid"]], played.steps.next_obs)
    )
    yield Finding("observations lie inside their space", wrong and f"an observation {wrong}")
    yield _flags(vector, played.steps)
    yield _alone(env, played.last)
    yield _successors(env, played, different)


def _hosted(env: Any, num_steps: int, seed: int) -> Iterator[Finding]:
    """Of one that lives on the host, which has its own contract: that it steps, and as its spaces say."""
    vector, spaces = HostVectorEnv(env, _HOSTED, None, False), Spaces(env.observation_space, env.action_space)
    try:
        obs = vector.reset(seed)
        same = _equal(obs, vector.reset(seed))
        yield Finding("the same seed gives the same start", None if same else "take it from reset(seed=...) alone")
        shown, invalid, ends = [obs], 0, 0
        for key in jax.random.split(jax.random.key(seed), max(1, num_steps // _HOSTED)):
            obs, said = vector.step(np.asarray(random_actions(spaces, key, obs, _HOSTED)))
            shown.append(said.next_obs)
            invalid, ends = invalid + said.info["invalid"].sum(), ends + (said.terminated | said.truncated).sum()
    except InputError as error:
        yield Finding("it steps with random actions", str(error))
        return
    finally:
        vector.close()
    yield Finding("it steps with random actions", note=f"{num_steps:,} steps, {ends:,} ends")
    yield Finding("its numbers are finite", f"{invalid:,} steps gave others" if invalid else None)
    wrong = beyond(env.observation_space, jax.tree.map(lambda *x: np.stack(x), *shown))
    yield Finding("observations lie inside their space", wrong and f"an observation {wrong}")


def play(vector: VectorEnv, key: Key, num_steps: int) -> Played:
    """num_steps random steps, of all copies together."""
    k_reset, key = jax.random.split(key)
    n, traced = vector.num_envs, []

    def take(state: VectorState, obs: PyTree, key: Key) -> tuple[VectorState, PyTree, Moment]:
        k_act, k_env = jax.random.split(key)
        action = random_actions(vector.spaces, k_act, obs, n)
        after, shown, said = vector.step(k_env, state, action)
        keys = jax.random.split(k_env, (2, n))[0]  # as `step` splits it
        return after, shown, Moment(keys, state.env_state, action, said)

    def step(carry: tuple[VectorState, PyTree, Moment, Moment, Array], key: Key):
        state, obs, _, ends, ended = carry
        state, obs, now = take(state, obs, key)
        done = now.step.terminated | now.step.truncated
        return (state, obs, now, select(done, now, ends), ended | done), now.step

    def chunk(carry: Any, keys: Key):
        traced.append(None)
        return jax.lax.scan(step, carry, keys)

    keys = jax.random.split(key, (_CHUNKS, -(-num_steps // (_CHUNKS * n))))
    start = jax.jit(vector.reset)(k_reset)
    nothing = jax.tree.map(_empty, jax.eval_shape(take, *start, key)[2])
    carry, chunk, told = (*start, nothing, nothing, jnp.zeros(n, bool)), jax.jit(chunk), []
    for some in keys:
        carry, steps = chunk(carry, some)
        told.append(jax.device_get(steps))
    *_, last, ends, ended = carry
    return Played(jax.tree.map(lambda *x: np.concatenate(x), *told), last, ends, ended, len(traced))


def _protocol(env: Any) -> str | None:
    try:
        check_environment(env)
    except InputError as error:
        return str(error)
    return None


def _same_again(env: Any, key: Key) -> Finding:
    def once() -> Any:
        def episode(env: Any, key: Key) -> Any:  # defined anew, so that it is also traced anew
            k_reset, k_act, k_step = jax.random.split(key, 3)
            state, obs = env.reset(k_reset)
            return state, obs, env.step(k_step, state, random_action(env, k_act, obs))

        return jax.jit(episode)(env, key)

    wrong = "twice the same key gave two results; draw all that is random from the key, nothing from NumPy or `random`"
    return Finding("the same key gives the same", None if _equal(once(), once()) else wrong)


def _different_starts(env: Any, key: Key) -> int:
    return _different(jax.jit(jax.vmap(env.reset))(jax.random.split(key, _STARTS)))


def _different(tree: PyTree) -> int:
    """How many of those along the leading axis are different, keys aside."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree) if not _is_key(x)]
    return len(set(zip(*([row.tobytes() for row in leaf] for leaf in leaves), strict=True)))


def _compiled_once(env: Any, key: Key, programs: int) -> Finding:
    wrong = f"the same steps were compiled {programs} times: the types of the state change between them; keep them"
    weak = any(getattr(x, "weak_type", False) for x in jax.tree.leaves(jax.eval_shape(env.reset, key)))
    note = "reset gives numbers of weak types, which a loop of your own compiles twice: write jnp.float32(…) and so on"
    return Finding("compiles once", wrong if programs > 1 else None, note if weak else None)


def _finite(steps: Step) -> Finding:
    invalid = steps.info["invalid"]
    what = f"finite over {invalid.size:,} steps with random actions"
    wrong = (
        f"{invalid.sum():,} of them gave a reward or an observation that is not finite; look for 0/0, log 0 and sqrt"
    )
    return Finding(what, f"{wrong} of negative numbers" if invalid.any() else None)


def _flags(vector: VectorEnv, steps: Step) -> Finding:
    name, length = "terminated and truncated", steps.info["episode_length"]
    limit = np.inf if vector.time_limit is None else vector.time_limit
    if not truncates(vector.env) and (steps.truncated & (length < limit)).any():
        return Finding(name, "the environment says truncates = False, and step sets truncated; leave `truncates` out")
    ends, late = steps.terminated | steps.truncated, length >= limit
    if not ends.any():
        note = "no episode ended" + ("; evaluation needs a time limit: set time_limit" if limit == np.inf else "")
    elif late.any() and steps.terminated[late].all():
        note = (
            f"all {late.sum()} episodes that reached the time limit of {limit} say terminated; if that is the clock, "
            "and not the task that ended, leave it to time_limit or say truncated: what follows still has worth"
        )
    else:
        note = f"{ends.sum():,} episodes ended, {steps.terminated.sum():,} of them terminated"
    return Finding(name, note=note)


def _alone(env: Any, moment: Moment) -> Finding:
    own = jax.jit(env.step)
    for i in range(_COPIES):
        key, state, action, said = _at(moment, i)
        _, alone = own(key, state, action)
        if not said.info["invalid"] and not _close((alone.next_obs, alone.reward), (said.next_obs, said.reward)):
            wrong = (
                f"copy {i} by itself gives other numbers than among {_COPIES}: an operation runs over all of "
                "them; write step for one environment, and keep nothing between calls"
            )
            return Finding("a copy alone steps as among others", wrong)
    return Finding("a copy alone steps as among others")


def _successors(env: Any, played: Played, starts: int) -> Finding:
    name, own, reset = "next_obs is the true successor, also at an end", jax.jit(env.step), jax.jit(jax.vmap(env.reset))
    looked = [i for i in np.flatnonzero(played.ended) if not played.ends.step.info["invalid"][i]]
    for i in looked:
        key, state, action, said = _at(played.ends, i)
        after, alone = own(key, state, action)
        if not _close(alone.next_obs, said.next_obs):
            return Finding(name, "where an episode ended, next_obs is not what step gives by itself")
        drawn, _ = reset(_draws(key))
        alike = [] if _equal(state, after) else [j for j in range(_DRAWS) if _equal(after, _at(drawn, j))]
        if alike and starts == 1:
            return Finding(
                name, note="episodes end in the state that they start in; if step resets itself, take that out"
            )
        if any(_follows(env, reset, state, action, j) for j in alike):
            return Finding(name, "step resets itself where an episode ends; take that out: `vectorize` does it")
    none = "every end was a step that is not finite" if played.ended.any() else "no episode ended"
    return Finding(name, note=None if looked else f"{none}, so that there was nothing to look at")


def _draws(key: Key) -> Key:
    """What a step that resets draws its start from is nearly always its key, or a part of it."""
    return jnp.stack([key, *jax.random.split(key), *jax.random.split(key, 3)])


def _follows(env: Any, reset: Any, state: PyTree, action: PyTree, draw: int) -> bool:
    """Whether an end taken again with other keys is, each time, the start that this draw of the key gives. Among few
    states one end is some start by chance; that it goes along with the key is none.
    """
    keys = jax.random.split(jax.random.key(1), _STARTS)
    after, said = jax.jit(jax.vmap(env.step, (0, None, None)))(keys, state, action)
    fresh, _ = reset(jax.vmap(_draws)(keys)[:, draw])
    after, fresh = jax.tree.map(lambda x: x[np.asarray(said.terminated | said.truncated)], (after, fresh))
    return _equal(after, fresh) and _different(fresh) > 1


def _empty(x: Any) -> Array:
    return jax.random.split(jax.random.key(0), x.shape) if _is_key(x) else jnp.zeros(x.shape, x.dtype)


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _at(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)


def _equal(a: PyTree, b: PyTree) -> bool:
    """Bit for bit, keys aside, and where there is anything to compare."""
    pairs = [(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True) if not _is_key(x)]
    return bool(pairs) and all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def _close(a: PyTree, b: PyTree) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(x, y, rtol=_CLOSE, atol=_CLOSE, equal_nan=True) for x, y in leaves)
