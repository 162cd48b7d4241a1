"""Configs: dataclasses whose floats are traced leaves and whose other fields fix the program.

A sweep is a stacked config and running it is `vmap`; a new learning rate never recompiles.
"""

import copy
import dataclasses
import difflib
import inspect
import math
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import InputError

T = TypeVar("T")
_KINDS = {float: "a number (float)", int: "a whole number (int)", bool: "true or false", str: "text (str)"}
_KINDS[dict[str, int | float | bool | str]] = "names with numbers, true or false, or text"


def static(
    default: Any = dataclasses.MISSING,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    choices: tuple | None = None,
) -> Any:
    """A field that fixes the program: shapes, names, switches. Changing it compiles anew."""
    metadata = {"static": True, "low": at_least, "high": at_most, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def leaf(default: float, low: float = -math.inf, high: float = math.inf, *, infinite: bool = False) -> Any:
    """A float field that may be traced, stacked and swept, with the closed range that `check` holds it to.

    infinite: whether infinity means something, such as "off". Elsewhere `check` refuses what is not finite.
    """
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "infinite": infinite})


# Of `static` and `leaf` a type checker would take the default for none, and every field of a config for required.
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree: `float` fields and nested configs are data, the rest static.

    A `__post_init__` of the class is run after the fields have been given their types; JAX also makes configs of
    tracers and placeholders, so it must not look at the values of floats. Those belong into a method `validate`.
    Raises TypeError at definition for a field that is neither a float, a nested config, nor declared `static()`.
    """
    own = cls.__dict__.get("__post_init__")

    def settle(self: Any) -> None:
        _settle(self)
        if own is not None:
            own(self)

    cls.__post_init__ = settle
    cls.__annotations__ = _annotations(cls)  # under `from __future__ import annotations` they are strings
    cls = dataclasses.dataclass(frozen=True)(cls)
    data, meta = [], []
    for f in dataclasses.fields(cls):
        is_data = f.type is float or dataclasses.is_dataclass(f.type)
        if is_data == f.metadata.get("static", False):
            raise TypeError(f"{cls.__name__}.{f.name}: declare a float, a nested config, or a static() field")
        (data if is_data else meta).append(f.name)
    return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=meta)


def _annotations(cls: type) -> dict[str, Any]:
    """The types of the fields. Those written as strings are looked up where the class is being defined, function
    bodies included, which `typing.get_type_hints` cannot see."""
    frame = sys._getframe(2)
    hints = typing.get_type_hints(cls, frame.f_globals, {**frame.f_locals, **vars(cls)})
    return {name: hints[name] for name in inspect.get_annotations(cls)}


def _settle(self: Any) -> None:
    for f in dataclasses.fields(self):
        value = getattr(self, f.name)
        # An int given for a float leaf would trace as int32 and compile a second program.
        if f.type is float and isinstance(value, int | np.number) and not isinstance(value, bool):
            object.__setattr__(self, f.name, float(value))
        elif f.type is float and isinstance(value, np.ndarray | jax.Array) and jnp.issubdtype(value.dtype, jnp.integer):
            object.__setattr__(self, f.name, jnp.asarray(value, jnp.float32))
        elif f.metadata.get("static") and isinstance(value, list):
            object.__setattr__(self, f.name, tuple(value))
        elif f.metadata.get("static") and type(value) is dict:
            object.__setattr__(self, f.name, EnvOptions(value))


class EnvOptions(dict):
    """Names with plain values, hashable so that they can be static. Not to be changed once a config holds them.

    1, 1.0 and True differ here: what they are given to may treat them differently.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and self._value() == EnvOptions._value(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._value())

    def _value(self) -> frozenset:
        return frozenset((name, type(value), value) for name, value in self.items())


@config
class EnvConfig:
    """Which environment, and how many copies of it."""

    name: str = static("gymnax/CartPole-v1")
    """Suite and name, as in "gymnax/CartPole-v1" or "brax/humanoid"; or "package.module:Class" for one of your own."""
    num_envs: int = static(8, at_least=1)
    """Copies that step side by side."""
    backend: str | None = static(None)
    """Physics backend of Brax: generalized, positional, spring or mjx."""
    time_limit: int | None = static(None, at_least=1)
    """Steps of the agent after which an episode is truncated; None takes the environment's own limit."""
    action_repeat: int = static(1, at_least=1)
    """Times each action is executed; rewards are summed. Steps are counted everywhere as the agent takes them."""
    sticky_actions: float | None = static(None, at_least=0, at_most=1)
    """Probability with which the last action is executed once more instead of the one asked for; None is never."""
    hide: tuple[int, ...] = static(())
    """Entries of a vector observation that are not shown: 1 3 leaves of CartPole's the positions."""
    frame_stack: int = static(1, at_least=1)
    """Observations that are shown as one: the newest, and those before it."""
    resets: str = static("fresh", choices=("fresh", "pool"))
    """Starts of new episodes: "fresh" draws one at every step, "pool" draws a set once per rollout."""
    options: dict[str, int | float | bool | str] = static(EnvOptions())
    """Given to the environment's constructor, or to its parameters where it has such: max_torque 8.0 for a pendulum."""
    env_axis: int | None = static(None, choices=(None, 0))
    """0: the environment given has a leading axis of num_envs bodies in every leaf (domain randomisation)."""
    processes: bool = static(False)
    """Environments that live on the host (Gymnasium's): each in a process of its own. Pays if a step takes 1 ms."""
    eval_episodes: int = static(128, at_least=1)
    """Episodes per evaluation, one per environment."""

    # Returns compare where these are alike.
    defines_task = (
        "name",
        "backend",
        "time_limit",
        "action_repeat",
        "sticky_actions",
        "hide",
        "frame_stack",
        "options",
    )


@config
class Parallel:
    """Over what a program is spread."""

    data: int | None = static(None, at_least=1)
    """Shards that environments are dealt to, each with random numbers and minibatches of its own; gradients and
    statistics are added up. They lie on as many devices as there are, or side by side: the numbers are the same. None
    takes one for each device where `run` drives, and one elsewhere."""


def parallel_of(config: Any) -> Parallel:
    """Its section, or one shard where it has none, or another: of a user's own, and of those that learn from rows."""
    found = getattr(config, "parallel", None)
    return found if isinstance(found, Parallel) else Parallel(data=1)


def only_places(section: Any) -> bool:
    """Whether a section says where something is computed, and nothing of what."""
    return getattr(section, "only_places", False)


def shard_of(config: T, shards: int) -> T:
    """The config of what one of so many shards does of it, alone: its share of environments and steps.

    Raises InputError where they cannot be dealt evenly, or a share cannot be run.
    """
    envs = config.env.num_envs
    if config.env.env_axis is not None:
        raise InputError(
            f"env.env_axis = {config.env.env_axis}: bodies that differ are not dealt to parallel.data = {shards} "
            "shards; set it to 1"
        )
    if envs % shards:
        near = max(d for d in range(1, shards) if envs % d == 0)
        raise InputError(f"num_envs = {envs} cannot be dealt to parallel.data = {shards} shards; try {near}")
    steps = config.total_steps // shards
    env, alone = dataclasses.replace(config.env, num_envs=envs // shards), dataclasses.replace(config.parallel, data=1)
    share = dataclasses.replace(config, env=env, total_steps=steps, parallel=alone)
    try:
        check(share)
    except InputError as error:
        raise InputError(f"of each of parallel.data = {shards} shards: {error}") from None
    return share


def float32(config: T) -> T:
    """The config with every leaf a float32 array, so that Python floats, NumPy scalars and sweeps trace alike."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), config)


def replace(config: T, **changes: Any) -> T:
    """A copy with some fields changed: its own, or those of a nested config by their bare names, as on the command
    line: replace(SFT(), learning_rate=1e-3).

    Raises InputError for a name that several nested configs have, or none, naming the closest.
    """
    fields, inner = {f.name for f in dataclasses.fields(config)}, {}
    for name in [name for name in changes if name not in fields]:
        homes = _homes(type(config), name)
        if len(homes) > 1:
            places = " or ".join(f"{home}.{name}" for home in homes)
            raise InputError(f"{name} of {type(config).__name__} could be {places}; replace the nested config itself")
        for home in homes:
            inner.setdefault(home, {})[name] = changes.pop(name)
    known(type(config), changes)
    made = dataclasses.replace(config, **changes)
    return dataclasses.replace(made, **{home: replace(getattr(made, home), **new) for home, new in inner.items()})


def scale(config: T, name: str, factor: float) -> T:
    """The config with a number multiplied: its own, or that of every nested config that has one of this name. Unchanged
    where there is none.
    """
    fields = {f.name for f in dataclasses.fields(config)}
    homes = [] if name in fields else _homes(type(config), name)
    inner = {home: scale(getattr(config, home), name, factor) for home in homes}
    return dataclasses.replace(config, **({name: getattr(config, name) * factor} if name in fields else inner))


def _nested(cls: type) -> dict[str, type]:
    return {
        f.name: f.type for f in dataclasses.fields(cls) if isinstance(f.type, type) and dataclasses.is_dataclass(f.type)
    }


def _homes(cls: type, name: str) -> list[str]:
    """The nested configs of `cls` that have such a field, or have it in one of theirs."""
    return [home for home, inner in _nested(cls).items() if name in _names(inner)]


def _names(cls: type) -> list[str]:
    inner = [name for nested in _nested(cls).values() for name in _names(nested)]
    return [*(f.name for f in dataclasses.fields(cls)), *inner]


def stack(configs: Sequence[T]) -> T:
    """One config whose every leaf has a leading axis, one entry per given config: what `vmap` sweeps over.

    Raises InputError if the configs differ in a static field: those would be different programs.
    """
    if not configs:
        raise InputError("stack needs at least one config; got an empty list")
    for other in configs[1:]:
        differing = _static_difference(configs[0], other)
        if differing:
            raise InputError(
                f"stack: static field {differing} differs between configs; it fixes the program, so sweep it in a loop"
            )
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(x, jnp.float32) for x in leaves]), *configs)


def axes(config: T) -> T:
    """The `in_axes` of a stacked config: 0 for every leaf that has an axis, None for the others."""
    made = copy.copy(config)
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            object.__setattr__(made, f.name, axes(value))
        elif f.type is float:  # set past __post_init__, which would make it 0.0
            object.__setattr__(made, f.name, 0 if jnp.ndim(value) else None)
    return made


def _static_difference(a: Any, b: Any) -> str | None:
    if type(a) is not type(b):
        return type(a).__name__
    for f in dataclasses.fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if dataclasses.is_dataclass(x) and (inner := _static_difference(x, y)):
            return f"{f.name}.{inner}"
        if f.metadata.get("static") and x != y:
            return f"{f.name} ({x!r} and {y!r})"
    return None


def check(config: Any, name: str = "") -> None:
    """Hold every concrete field to its declared type, range and choices, then ask the config's own `validate`.

    Raises InputError with a sentence that names the field, the value and the remedy. Traced leaves are skipped.
    """
    for f in dataclasses.fields(config):
        value, path = getattr(config, f.name), f"{name}{f.name}"
        if dataclasses.is_dataclass(f.type) and isinstance(value, f.type):
            check(value, f"{path}.")
        elif not isinstance(value, jax.core.Tracer):
            _check_field(path, value, f)
    if hasattr(config, "validate"):
        config.validate()


def _check_field(path: str, value: Any, f: dataclasses.Field) -> None:
    if not _fits(value, f.type):
        kind = _KINDS.get(f.type, str(f.type))
        raise InputError(f"{path} = {value!r} is of the wrong type; it must be {kind}")
    choices, low, high = (f.metadata.get(k) for k in ("choices", "low", "high"))
    if choices is not None and value not in choices:
        raise InputError(f"{path} = {value!r} is not one of {', '.join(map(repr, choices))}{closest(value, choices)}")
    if f.type is float and not _may_be_infinite(f) and not np.all(np.isfinite(np.asarray(value, np.float64))):
        raise InputError(f"{path} = {value} is not finite, and infinity means nothing here; give a number")
    if value is None or (low is None and high is None):
        return
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    bad = [x for x in np.ravel(np.asarray(value)) if not low <= x <= high]
    if bad:
        limits = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        limits = "a number" if low == -math.inf else limits
        raise InputError(f"{path} = {bad[0]:g} is out of range; it must be {limits}")


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is types.UnionType:
        return any(_fits(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(v, typing.get_args(kind)[0]) for v in value)
    if typing.get_origin(kind) is dict:
        of_names, of_values = typing.get_args(kind)
        return isinstance(value, dict) and all(_fits(k, of_names) and _fits(v, of_values) for k, v in value.items())
    if kind is float:
        return isinstance(value, float) or (hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.floating))
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def check_unread(config: Any, names: Sequence[str], why: str, remedy: str) -> None:
    """Raises InputError for a field among `names` that differs from its default, for nothing would come of it. Of a
    stacked field one element is enough; traced ones are skipped.
    """
    for f in dataclasses.fields(config):
        value, default = getattr(config, f.name), f.default
        if f.name not in names or isinstance(value, jax.core.Tracer):
            continue
        if f.type is float:  # a default such as 0.6 is another number in float32
            value = np.ravel(np.asarray(value))
            different = [f"{x:g}" for x in value if x != value.dtype.type(default)]
        else:
            different = [repr(value)] if value != default else []
        if different:
            raise InputError(f"{f.name} = {different[0]} is not read {why}; leave it out, or {remedy}")


def _may_be_infinite(f: dataclasses.Field) -> bool:
    default = f.default
    return f.metadata.get("infinite", False) or (isinstance(default, float) and math.isinf(default))


def known(cls: type, keys: Any, name: str = "") -> None:
    """Raises InputError for a key that is no field of `cls`, saying which nested config has it or which is closest."""
    fields = [f.name for f in dataclasses.fields(cls)]
    for key in keys:
        if key in fields:
            continue
        if homes := _homes(cls, key):
            raise InputError(f"{name}{key} belongs to the section {' or '.join(f'`{home}:`' for home in homes)}")
        hint = closest(key, _names(cls)) or f"; {cls.__name__} has {', '.join(fields)}"
        raise InputError(f"unknown field {name}{key} of {cls.__name__}{hint}")


def closest(word: Any, options: Sequence[str]) -> str:
    """The clause "; did you mean …?" for the option most like `word`, or nothing."""
    found = difflib.get_close_matches(str(word), [str(o) for o in options], n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
