"""What is swept: fields of a config, each with the values or the range that it takes."""

import dataclasses
import itertools
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl.config_file import from_dict
from jaxrl.settings import known, replace
from jaxrl.types import InputError

_DRAWS = 100  # for each configuration that is wanted, before there are held to be no more
_FORMS = "values apart by commas (lists apart by semicolons), log:LOW:HIGH:COUNT or lin:LOW:HIGH:COUNT"


class Swept(NamedTuple):
    """A field that is swept. spec: as it was typed. values: what a grid takes in turn; none where only a range is
    given. low, high, log: of a range, whose scale may be logarithmic; None of a list of values. whole: of
    whole numbers."""

    field: str
    spec: str
    values: tuple[Any, ...]
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def is_range(self) -> bool:
        """Whether any number in between will do."""
        return self.low is not None


def swept(config: Any, field: str, spec: Any) -> Swept:
    """Read what a field is to take: text as on the command line, or a list as in YAML.

    "1e-3,3e-3", "64,64;256,256" for a field that is a list itself, "log:1e-4:1e-2:8" (eight numbers, apart by equal
    factors), "lin:0.9:1:5", and either without a count where values are drawn. field: a config's own, or that of a
    nested one by its bare name or as "env.num_envs". Raises InputError for what cannot be read.
    """
    field = field.replace("-", "_")
    if field in ("seed", "seeds"):
        raise InputError(
            f"{_name(field)}: a seed is no field of a config; every config has all of --seeds, as in --seeds 16"
        )
    f = _field(config, field)
    if isinstance(spec, str) and spec.split(":")[0] in ("log", "lin"):
        return _range(f, field, spec)
    items = _items(f, field, spec)
    values = tuple(_value(config, field, f, item) for item in items)
    text = spec if isinstance(spec, str) else (";" if _of_lists(f) else ",").join(map(shown, values))
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{_name(field)} takes {shown(value)} twice; name each value once")
    return Swept(field, text, values)


def grid(fields: Sequence[Swept]) -> list[dict[str, Any]]:
    """Every combination, the last field fastest. Raises InputError for a range without a count."""
    for one in fields:
        if not one.values:
            raise InputError(
                f"{_name(one.field)} = {one.spec} is a range without a count; say how many, {one.spec}:8, or draw "
                "configs from it: --method random --samples 32"
            )
    return [
        dict(zip([one.field for one in fields], values, strict=True))
        for values in itertools.product(*[one.values for one in fields])
    ]


def draw(fields: Sequence[Swept], count: int, seed: int) -> list[dict[str, Any]]:
    """Random search (Bergstra & Bengio 2012): every field drawn by itself, uniformly from its range, on a log scale
    where it has one, or from its values; one that was drawn before is drawn again, since the same config and seed learn
    the same. Raises InputError where there are not so many."""
    rng = np.random.default_rng(seed)
    found: dict[tuple[Any, ...], None] = {}
    for _ in range(_DRAWS * count):
        found.setdefault(tuple(_drawn(rng, one) for one in fields))
        if len(found) == count:
            return [dict(zip([one.field for one in fields], values, strict=True)) for values in found]
    raise InputError(
        f"samples = {count}, and the values to draw from make about {len(found)} configurations; ask for fewer, or for "
        "the grid of them (no samples), or give a range"
    )


def check_apart(config: Any, fields: Sequence[Swept]) -> None:
    """Raises InputError where two of them are one field, as num_envs and env.num_envs are."""
    seen: dict[tuple[int, str], str] = {}
    for one in fields:
        place = id(home_of(config, one.field)), one.field.rpartition(".")[2]
        if place in seen:
            raise InputError(f"{_name(seen[place])} and {_name(one.field)} are one field; give all its values at once")
        seen[place] = one.field


def with_fields(config: Any, values: Mapping[str, Any]) -> Any:
    """The config with these fields changed; their names as in `swept`."""
    for field, value in values.items():
        home, dot, rest = field.partition(".")
        new = with_fields(getattr(config, home), {rest: value}) if dot else value
        config = replace(config, **{home: new})
    return config


def shown(value: Any) -> str:
    """A value as it is typed, and as tables have it."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _range(f: dataclasses.Field, field: str, spec: str) -> Swept:
    kind, *parts = spec.split(":")
    if f.type not in (float, int):
        raise InputError(f"{_name(field)} = {spec}: {field} is no number; list its values instead, apart by commas")
    try:
        low, high = map(float, parts[:2])
        count = int(parts[2]) if len(parts) == 3 else None
    except (ValueError, IndexError):
        raise InputError(
            f"{_name(field)} = {spec} cannot be read; write {kind}:LOW:HIGH or {kind}:LOW:HIGH:COUNT"
        ) from None
    if len(parts) > 3 or not (math.isfinite(low) and low < high < math.inf) or (count is not None and count < 2):
        raise InputError(f"{_name(field)} = {spec}: give two finite numbers, the lower first, and a count of 2 or more")
    if kind == "log" and low <= 0:
        raise InputError(f"{_name(field)} = {spec}: a log scale needs numbers above 0; use lin:{':'.join(parts)}")
    space = (np.geomspace if kind == "log" else np.linspace)(low, high, count or 0)
    # No more digits than a person would type: float32 keeps seven.
    values = [round(x) if f.type is int else float(f"{x:.6g}") for x in space.tolist()]
    return Swept(field, spec, tuple(dict.fromkeys(values)), low, high, kind == "log", f.type is int)


def _items(f: dataclasses.Field, field: str, spec: Any) -> list[Any]:
    if isinstance(spec, str):
        items = [item.strip() for item in spec.split(";" if _of_lists(f) else ",")]
    else:
        items = list(spec) if isinstance(spec, Iterable) and not isinstance(spec, Mapping) else [spec]
        items = [item.item() if isinstance(item, np.generic) else item for item in items]
    bracketed = isinstance(spec, str) and f.type is not str and set(spec) & set("[](){}")
    if not items or "" in items or bracketed:
        raise InputError(f"{_name(field)} = {spec!r} cannot be read; give {_FORMS}")
    return items


def read_value(config: Any, field: str, text: Any) -> Any:
    """The value of a field as `shown` has written it. Raises InputError for a field that there is not."""
    return _value(config, field, _field(config, field), text)


def value_of(config: Any, field: str) -> Any:
    """The value that a field has."""
    return getattr(home_of(config, field), field.rpartition(".")[2])


def _value(config: Any, field: str, f: dataclasses.Field, item: Any) -> Any:
    if isinstance(item, str) and f.type not in (str, "str"):  # of text, "none" is a word as any
        item = [_plain(part.strip()) for part in item.split(",")] if _of_lists(f) and item != "none" else _plain(item)
    value = from_dict(type(home_of(config, field)), {f.name: item}, default=home_of(config, field))
    return getattr(value, f.name)


def _plain(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _drawn(rng: np.random.Generator, one: Swept) -> Any:
    if not one.is_range:
        return one.values[rng.integers(len(one.values))]
    u = rng.uniform()
    x = one.low * (one.high / one.low) ** u if one.log else one.low + u * (one.high - one.low)
    return round(x) if one.whole else float(f"{x:.6g}")


def home_of(config: Any, field: str) -> Any:
    """The config, of those nested within, that has the field itself."""
    home, dot, rest = field.partition(".")
    if dot:
        known(type(config), [home])
        return home_of(getattr(config, home), rest)
    replaced = {f.name for f in dataclasses.fields(config)}
    if field in replaced:
        return config
    replace(config, **{field: None})  # raises where no nested config has it, or several
    return next(
        home_of(inner, field)
        for f in dataclasses.fields(config)
        if dataclasses.is_dataclass(inner := getattr(config, f.name)) and _has(inner, field)
    )


def _has(config: Any, field: str) -> bool:
    inner = [getattr(config, f.name) for f in dataclasses.fields(config)]
    own = field in {f.name for f in dataclasses.fields(config)}
    return own or any(_has(x, field) for x in inner if dataclasses.is_dataclass(x))


def _field(config: Any, field: str) -> dataclasses.Field:
    home, name = home_of(config, field), field.rpartition(".")[2]
    known(type(home), [name])
    f = next(f for f in dataclasses.fields(home) if f.name == name)
    if dataclasses.is_dataclass(f.type) or typing.get_origin(f.type) is dict:
        raise InputError(f"{_name(field)}: {field} holds fields of its own; sweep one of those")
    return f


def _of_lists(f: dataclasses.Field) -> bool:
    options = typing.get_args(f.type) if typing.get_origin(f.type) is types.UnionType else (f.type,)
    return any(typing.get_origin(option) is tuple for option in options)


def _name(field: str) -> str:
    return f"sweep.{field}"
