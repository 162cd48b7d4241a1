"""Is this an environment? One traced look at its shapes and types, then one real step to hold it to its ranges."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.bodies import num_bodies
from jaxrl.ops.masks import action_mask, has_mask, random_actions
from jaxrl.ops.platform import computed_now
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError, PyTree, Step

_FIELDS = {
    "reset": "def reset(self, key) -> (state, obs)",
    "step": "def step(self, key, state, action) -> (state, Step)",
    "observation_space": "a space of jaxrl.spaces, or a dict, tuple or list of them",
    "action_space": "a space of jaxrl.spaces",
    "time_limit": "the usual length of an episode in steps, or None",
}
_KINDS = {np.floating: "floats", np.integer: "integers", np.bool_: "booleans"}
_STATIC = 'field(metadata={"static": True})'


class _Wrong(Exception):
    """A violation of the protocol, in words."""


def check_environment(env: Any, env_axis: int | None = None) -> None:
    """Hold an environment of one's own to the protocol `Environment`.

    It is traced once; unless its leaves are themselves traced, one reset and one step with a random action then run
    and are held to the ranges of the spaces. `env_axis=0` takes the first of many bodies. Our own suites pass unseen.
    Raises InputError that says what is wrong and what to write instead.
    """
    if type(env).__module__.split(".")[:2] == ["jaxrl", "envs"]:
        return
    try:
        _check_fields(env)
        if env_axis == 0:
            num_bodies(env)
            env = jax.tree.map(_first, env)
        _check_traced(env)
        if not any(isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct) for x in jax.tree.leaves(env)):
            _check_ranges(env)
    except _Wrong as wrong:
        raise InputError(
            f"environment {getattr(env, '__qualname__', type(env).__qualname__)}: {wrong}"
        ) from wrong.__cause__


def _first(x: Any) -> Any:
    if isinstance(x, jax.core.Tracer):
        return x[0]
    with computed_now():  # lest it become a tracer of a trace that may be under way
        return x[0]


def of_gymnasium(env: Any) -> bool:
    """Whether it is one of Gymnasium's environments: who has made one has imported Gymnasium."""
    gymnasium = sys.modules.get("gymnasium")
    return gymnasium is not None and isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv)


def _check_fields(env: Any) -> None:
    if of_gymnasium(env):
        raise _Wrong(
            "it is one of Gymnasium's, which are made when they are needed; name what makes it, in "
            'EnvConfig("gymnasium/NAME") or EnvConfig("package.module:function")'
        )
    if isinstance(env, type):
        raise _Wrong(f"this is the class; give an object of it, {env.__name__}(...)")
    for name, remedy in _FIELDS.items():
        try:
            getattr(env, name)
        except AttributeError as error:
            if hasattr(type(env), name):
                raise _Wrong(f"its {name} fails ({error})") from error
            raise _Wrong(f"it has no {name}; add it: {remedy}") from None
        except Exception as error:
            raise _Wrong(f"its {name} fails ({type(error).__name__}: {error})") from error
    for name in ("observation_space", "action_space"):
        parts = jax.tree.leaves(getattr(env, name))
        if not parts or not all(isinstance(part, Discrete | MultiDiscrete | Box) for part in parts):
            raise _Wrong(f"{name} = {getattr(env, name)!r} must be {_FIELDS[name]}")
    try:
        action_mask(Spaces(env.observation_space, env.action_space), None)
    except InputError as error:
        raise _Wrong(str(error)) from error
    if env.time_limit is not None and type(env.time_limit) is not int:
        raise _Wrong(f"time_limit = {env.time_limit!r} must be {_FIELDS['time_limit']}")
    for x in jax.tree.leaves(env):
        if x is env:
            raise _Wrong(
                "it is not a pytree; put @jax.tree_util.register_dataclass and @dataclass(frozen=True) above its "
                f"class, with {_STATIC} for the fields that are no arrays"
            )
        if not isinstance(x, jax.Array | np.ndarray | np.generic | float | int | jax.ShapeDtypeStruct):
            raise _Wrong(f"{x!r} among its leaves is no array; make its field static with {_STATIC}")


def _check_traced(env: Any) -> None:
    key = jax.random.key(0)
    state, obs = _traced("reset", lambda env, key: _pair(env.reset(key)), env, key)
    wrong = _mismatch(env.observation_space, obs)
    if wrong:
        turned = "; its state would fit: reset must give (state, obs), in this order"
        raise _Wrong(f"the obs of reset {wrong}{turned * (not _mismatch(env.observation_space, state))}")
    action = jax.eval_shape(lambda key: _sample(env.action_space, key), key)
    after, step = _traced("step", lambda env, *args: _state_and_step(env.step(*args)), env, key, state, action)
    if len(step.reward.shape) == 1:
        raise _Wrong(
            f"reward has shape {step.reward.shape}, and must be a scalar; if the leaves have a leading axis of "
            f"{step.reward.shape[0]} bodies, set env_axis = 0"
        )
    _check_steady(state, after)
    _check_scalars(step)
    if wrong := _mismatch(env.observation_space, step.next_obs):
        raise _Wrong(f"the next_obs of step {wrong}")
    for shown, then in zip(jax.tree.leaves(obs), jax.tree.leaves(step.next_obs), strict=True):
        if shown.dtype != then.dtype:
            raise _Wrong(f"obs is {shown.dtype} after reset and {then.dtype} after step; they must be the same")


def _traced(name: str, function: Callable, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except _Wrong:
        raise
    except Exception as error:
        told, remedy = str(error), ""
        if isinstance(error, jax.errors.ConcretizationTypeError):  # after its first line it names a line of ours
            told = told.splitlines()[0]
            remedy = "; a Python `if`, `bool`, `int` or loop cannot ask for a traced value: jnp.where chooses by one"
        raise _Wrong(f"{name} fails when it is traced ({type(error).__name__}: {told}){remedy}") from error


def _pair(out: Any) -> tuple[PyTree, PyTree]:
    if type(out) is not tuple or len(out) != 2:
        raise _Wrong(f"reset gives {_named(out)}; it must give (state, obs)")
    return out


def _state_and_step(out: Any) -> tuple[PyTree, Step]:
    if type(out) is not tuple or len(out) != 2 or not isinstance(out[1], Step):
        raise _Wrong(f"step gives {_named(out)}; it must give (state, Step), with the Step of jaxrl.types")
    info = out[1].info
    for name in ("reward", "terminated", "truncated"):
        if not isinstance(value := getattr(out[1], name), jax.Array | np.ndarray | np.generic | float | int):
            raise _Wrong(f"{name} of step is {_named(value)}; it must be a scalar: jnp.float32(1.0), or a comparison")
    if not isinstance(info, dict):
        raise _Wrong(f"the info of step is {_named(info)}; it must be a dict of arrays, {{}} for none")
    for name, value in info.items():
        if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
            raise _Wrong(f"info[{name!r}] is {_named(value)}; info must be flat: names and arrays")
    return out


def _check_steady(before: PyTree, after: PyTree) -> None:
    first, then = jax.tree.structure(before), jax.tree.structure(after)
    if first != then:
        raise _Wrong(f"reset gives a state of structure {first} and step one of {then}; they must be the same")
    for (path, x), y in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (x.shape, x.dtype) != (y.shape, y.dtype):
            raise _Wrong(
                f"state{jax.tree_util.keystr(path)} is {x.dtype} of shape {x.shape} after reset and {y.dtype} of shape "
                f"{y.shape} after step; they must be the same"
            )


def _check_scalars(step: Step) -> None:
    remedies = {np.floating: "give it as jnp.float32", np.bool_: "give it as a comparison, or with astype(bool)"}
    for name, kind in (("reward", np.floating), ("terminated", np.bool_), ("truncated", np.bool_)):
        x = getattr(step, name)
        if x.shape != () or not jnp.issubdtype(x.dtype, kind):
            made_of = f"{x.dtype} of shape {x.shape}"
            raise _Wrong(f"{name} is {made_of}; it must be a scalar of {_KINDS[kind]}: {remedies[kind]}")


def _mismatch(space: Space, obs: PyTree) -> str | None:
    """What is wrong with the structure, shapes or kinds of an observation, or None."""
    if jax.tree.structure(obs) != jax.tree.structure(space):
        return f"has structure {jax.tree.structure(obs)}; observation_space has {jax.tree.structure(space)}"
    for part, x in zip(jax.tree.leaves(space), jax.tree.leaves(obs), strict=True):
        if x.shape != part.shape:
            return f"has shape {x.shape}; observation_space says {part}"
        kind = next(kind for kind in (np.floating, np.bool_, np.integer) if jnp.issubdtype(part.dtype, kind))
        if not jnp.issubdtype(x.dtype, kind):
            return f"is {x.dtype}; observation_space says {part}: give {_KINDS[kind]}, or a space of that dtype"
    return None


def _check_ranges(env: Any) -> None:
    with computed_now():  # real numbers, also while somebody else is tracing
        k_reset, k_act, k_step = jax.random.split(jax.random.key(0), 3)
        state, obs = jax.jit(lambda env, key: env.reset(key))(env, k_reset)
        action = random_action(env, k_act, obs)
        _, step = jax.jit(lambda env, *args: env.step(*args))(env, k_step, state, action)
        shown = jax.device_get({"obs of reset": obs, "next_obs of step": step.next_obs})
    for name, obs in shown.items():
        if wrong := beyond(env.observation_space, obs):
            raise _Wrong(f"the {name} {wrong}")


def beyond(space: Space, obs: PyTree) -> str | None:
    """What is wrong with observations, with any leading axes, that lie outside of their space, or None."""
    for part, x in zip(jax.tree.leaves(space), jax.tree.leaves(obs), strict=True):
        low, high = _range(part)
        slack = [1e-5 * np.maximum(1, np.abs(bound)) for bound in (low, high)]  # of rounding
        if np.any(x < low - slack[0]) or np.any(x > high + slack[1]):
            return (
                f"lies between {np.min(x)} and {np.max(x)}, beyond its space {part}; widen the space (a Box without "
                "bounds is Box(shape)) or correct the observation"
            )
    return None


def _range(part: Discrete | MultiDiscrete | Box) -> tuple[Any, Any]:
    if isinstance(part, Discrete):
        return part.start, part.start + part.n - 1
    if isinstance(part, MultiDiscrete):
        return np.asarray(part.start), np.add(part.start, part.nvec) - 1
    return part.static_bounds


def random_action(env: Any, key: jax.Array, obs: PyTree) -> PyTree:
    """One of those that the observation allows."""
    if not has_mask(env.observation_space):
        return _sample(env.action_space, key)
    spaces, obs = Spaces(env.observation_space, env.action_space), jax.tree.map(lambda x: jnp.asarray(x)[None], obs)
    return random_actions(spaces, key, obs, 1)[0]


def _sample(space: Space, key: jax.Array) -> PyTree:
    return jax.tree.map(lambda part: part.sample(key), space)


def _named(x: Any) -> str:
    return f"a {type(x).__name__} of {len(x)}" if type(x) in (tuple, list, dict) else f"a {type(x).__name__}"
