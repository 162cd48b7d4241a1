"""Configs in and out of YAML, strictly: what is not understood is refused with a sentence."""

import dataclasses
import importlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxrl.settings import check, closest, known
from jaxrl.types import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dict of Python numbers, strings and lists, ready for YAML or JSON."""

    def plain(value):
        if dataclasses.is_dataclass(value):
            return to_dict(value)
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items()}
        return np.asarray(value).tolist() if hasattr(value, "dtype") else value

    return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_dict(cls: type[T], values: dict[str, Any], name: str = "", default: T | None = None) -> T:
    """The inverse of `to_dict`; what `values` leaves out comes from `default`, or from the fields' defaults.

    Raises InputError for an unknown key, naming the closest. Types and ranges are left to `check`.
    """
    known(cls, values, name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    made = {key: _field(fields[key], value, f"{name}{key}") for key, value in values.items()}
    return cls(**made) if default is None else dataclasses.replace(default, **made)


def _field(f: dataclasses.Field, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(f.type):
        if not isinstance(value, dict):
            raise InputError(f"{path} = {value!r} should hold fields of its own, as in `{f.name}:` and indented lines")
        default = None if f.default is dataclasses.MISSING else f.default
        return from_dict(f.type, value, f"{path}.", default)
    if f.type in (int, float) and isinstance(value, str):
        return _number(value, f.type)
    if isinstance(value, dict):
        return {name: _number(v, float) if _is_exponent(v) else v for name, v in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _is_exponent(value: Any) -> bool:
    # the one way of writing a number that YAML takes for text; of "1" or "inf" the quotes may have been meant
    return isinstance(value, str) and re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value) is not None


def _number(text: str, kind: type) -> Any:
    # YAML reads 3e-4 as a string, since it has no dot
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if kind is int and number.is_integer() else number


def load_config(path: str | Path, algorithms: dict[str, type], apart: Collection[str] = ()) -> Any:
    """Read a YAML file, strictly: a section `algorithm:`, whose `name` picks from `algorithms`, and one for each of its
    nested configs, such as `env:`. A name may be one's own, `module:Class`, which is imported.

    Raises InputError with a sentence for a missing file or section, a key that is unknown or given twice, a wrong type
    or a value out of range. apart: sections that are not the config's, and are left to whoever reads them.
    """
    document = read_sections(path, apart)
    section = dict(document["algorithm"])
    name = section.pop("name", None)
    cls, others = _class(path, name, algorithms), {t: fields for t, fields in document.items() if t != "algorithm"}
    nested = [f.name for f in dataclasses.fields(cls) if dataclasses.is_dataclass(f.type)]
    for title in others:
        if title not in nested:
            sections = ", ".join(f"`{n}:`" for n in ("algorithm", *nested))
            raise InputError(f"{path}: {name} has no section `{title}:`; its sections are {sections}")
    loaded = from_dict(cls, {**section, **others})
    check(loaded)
    return loaded


def _class(path: str | Path, name: Any, algorithms: dict[str, type]) -> type:
    if isinstance(name, str) and name in algorithms:
        return algorithms[name]
    if not isinstance(name, str) or ":" not in name:
        known = ", ".join(algorithms)
        raise InputError(f"{path}: algorithm.name = {name!r} is not one of {known}, and no module:Class of your own")
    module, _, own = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: algorithm.name = {name!r} is not found here ({error}); say where its module is, before the same "
            "command: PYTHONPATH=FOLDER"
        ) from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise InputError(f"{path}: algorithm.name = {name!r} is no config; decorate the class with @jaxrl.config")
    return found


def name_of(cls: type) -> str:
    """An algorithm's name in YAML: of jaxrl's own the class in small letters; of others module:Class, by which it is
    found again wherever that module is, and of those that no module holds, in small letters too."""
    nowhere = cls.__module__ == "__main__" or "<locals>" in cls.__qualname__
    if nowhere or cls.__module__.partition(".")[0] == "jaxrl":
        return cls.__name__.lower()
    return f"{cls.__module__}:{cls.__qualname__}"


def read_sections(path: str | Path, apart: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The sections of a config file as they stand, of whatever algorithm, without those of `apart`; `load_config` says
    what they mean.

    Raises InputError with a sentence for a missing file or section, and for a key that is given twice.
    """
    document = read_document(path)
    if isinstance(document, dict):
        document = {title: section for title, section in document.items() if title not in apart}
    if not isinstance(document, dict) or "algorithm" not in document:
        raise InputError(f"{path} must have a section `algorithm:`, and one for each config within, such as `env:`")
    for title, section in document.items():
        if not isinstance(section, dict):
            raise InputError(f"{path}: {title} = {section!r} should be a section with fields of its own")
    return document


def read_document(path: str | Path) -> Any:
    """What a YAML file says. Raises InputError for one that is not there, or cannot be read."""
    path = Path(path)
    if not path.is_file():
        there = [str(other) for other in path.parent.glob("*.yaml")]
        hint = closest(path, there) or "; configs/<algorithm>/*.yaml holds those that ship with jaxrl"
        raise InputError(f"no config file at {path}{hint}")
    return _parse(path)


def _parse(path: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key given twice, of which YAML would keep the last. 1:30 is text: YAML 1.1 takes it for 90."""

        def resolve(self, kind, value, implicit):
            tag = super().resolve(kind, value, implicit)
            return "tag:yaml.org,2002:str" if tag.endswith((":int", ":float")) and ":" in value else tag

        def construct_mapping(self, node, deep=False):
            keys = [key.value for key, _ in node.value]
            twice = {key for key in keys if keys.count(key) > 1}
            if twice:
                raise InputError(f"{path}: {', '.join(sorted(twice))} is given twice in one section")
            return super().construct_mapping(node, deep)

    try:
        return Loader(path.read_text("utf-8")).get_single_data()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8 ({error}); save it as that") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def save_config(config: Any, path: str | Path) -> None:
    """Write the config as YAML that `load` reads back to an equal config."""
    import yaml

    fields = to_dict(config)
    nested = {name: fields.pop(name) for name, value in list(fields.items()) if isinstance(value, dict)}
    document = {"algorithm": {"name": name_of(type(config)), **fields}, **nested}
    Path(path).write_text(yaml.safe_dump(document, sort_keys=False))
