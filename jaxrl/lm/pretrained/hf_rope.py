"""The rotary part of Hugging Face's config.json, in the spellings of transformers 4 and 5, to a scaling and back."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrl.lm.rope import DynamicScaling, LinearScaling, Llama3Scaling, RopeScaling, YarnScaling
from jaxrl.types import InputError

TYPES: dict[str, type] = {
    "linear": LinearScaling,
    "dynamic": DynamicScaling,
    "llama3": Llama3Scaling,
    "yarn": YarnScaling,
}
_ORIGINAL = "original_max_position_embeddings"


def read_rope(values: Mapping[str, Any], source: str) -> tuple[float, RopeScaling | None]:
    """θ and the scaling. Raises InputError with a sentence for a type or a key that is not computed."""
    rope = _merged(values, source)
    partial = rope.pop("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise InputError(f"partial_rotary_factor is {partial} in {source}; jaxrl rotates whole heads only")
    theta = _number(rope.pop("rope_theta", values.get("rope_theta", 10_000.0)), "rope_theta", source)
    kind = rope.pop("rope_type", "default")
    if kind == "default":
        rope.pop("mrope_section", None)  # of positions in images: those of text are the usual ones
        return theta, _none_left(rope, kind, source)
    if kind not in TYPES:
        raise InputError(
            f"rope_scaling of type {kind!r} in {source} is not computed by jaxrl; it computes {', '.join(TYPES)}"
        )
    return theta, _scaling(kind, rope, values, source)


def write_rope(scaling: RopeScaling | None) -> dict[str, Any] | None:
    """What `rope_scaling` is to be; keys that have no value are left out."""
    if scaling is None:
        return None
    kind = next(kind for kind, made in TYPES.items() if isinstance(scaling, made))
    return {"rope_type": kind, **{k: v for k, v in dataclasses.asdict(scaling).items() if v is not None}}


def _merged(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in ("rope_scaling", "rope_parameters"):
        found = values.get(name) or {}
        if not isinstance(found, Mapping):
            raise InputError(f"{name} is {found!r} in {source}; it must be null or an object with a rope_type")
        given = {k: v for k, v in found.items() if v is not None}
        given |= {"rope_type": given.pop("type")} if "type" in given and "rope_type" not in given else {}
        given.pop("type", None)
        for key, value in given.items():
            if isinstance(value, Mapping):
                raise InputError(f"{name} in {source} differs by kind of layer ({key}); jaxrl has one for all layers")
            if merged.setdefault(key, value) != value:
                raise InputError(f"rope_scaling and rope_parameters disagree on {key} in {source}; remove one of them")
    return merged


def _scaling(kind: str, rope: dict[str, Any], values: Mapping[str, Any], source: str) -> RopeScaling:
    context = values["max_position_embeddings"]
    original = values.get(_ORIGINAL) or rope.pop(_ORIGINAL, context)  # beside, it goes first
    for harmless in (_ORIGINAL, "finetuned"):
        rope.pop(harmless, None)
    if kind == "dynamic" and original != context:
        raise InputError(
            f"{_ORIGINAL} is {original!r} in {source}, but dynamic scaling begins at max_position_embeddings = "
            f"{context}, as transformers computes it; set that to {original!r}, or remove {_ORIGINAL}"
        )
    if kind == "yarn":
        rope.setdefault("factor", context / _number(original, _ORIGINAL, source))
        _check_attention(rope, source)
    fields = {field.name: field for field in dataclasses.fields(TYPES[kind])}
    given = {name: rope.pop(name) for name in list(rope) if name in fields}
    given |= {_ORIGINAL: original} if _ORIGINAL in fields else {}
    _none_left(rope, kind, source)
    if missing := [n for n, f in fields.items() if n not in given and f.default is dataclasses.MISSING]:
        raise InputError(f"the rope_scaling in {source} lacks {', '.join(missing)}; download config.json again")
    for name, value in given.items():
        if name != "truncate":
            _number(value, name, source)
    return TYPES[kind](**given)


def _check_attention(rope: Mapping[str, Any], source: str) -> None:
    if "attn_factor" not in rope:
        return
    plain = YarnScaling(_number(rope["factor"], "factor", source), 1).attention
    factor = _number(rope["attn_factor"], "attn_factor", source)
    raise InputError(
        f"attn_factor is {factor} in the rope_scaling of {source}: transformers ignores it and others multiply by it; "
        f'say "attention_factor": {plain:.6g} for the one, or {plain * factor:.6g} for the other, in its place'
    )


def _none_left(rope: Mapping[str, Any], kind: str, source: str) -> None:
    if rope:
        key, value = next(iter(rope.items()))
        raise InputError(
            f"{key} is {value!r} in the rope_scaling of {source}, which means nothing to type {kind!r}; remove it, or "
            "name the type that it belongs to"
        )


def _number(value: Any, name: str, source: str) -> float:
    # type() and not isinstance: true and false are no numbers here
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InputError(f"{name} is {value!r} in {source}; it must be a positive number")
    return float(value) if name == "rope_theta" else value
