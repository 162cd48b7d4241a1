"""A tokenizer's files in a model's folder, as the hub, transformers' save_pretrained and jaxrl write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.types import InputError

_FLAGS = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class Found(NamedTuple):
    """backend: of `tokenizers`. special: tokens by role. templates: by name, the one for all else as "default"."""

    backend: Any
    special: dict[str, str]
    templates: dict[str, str]
    stops: list[int]


def read_folder(folder: Path, tokenizers: Any) -> Found:
    """What a folder with tokenizer.json says. tokenizers: the package, which only tokenizer.py knows.

    Raises InputError if there is none, or a file that cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        remedy = "load it with transformers' AutoTokenizer and save_pretrained it there"
        raise InputError(f"{folder} has no tokenizer.json; {remedy}")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{file} is no tokenizer that can be read ({error}); download it again") from error
    config, tokens = _json(folder / "tokenizer_config.json"), _json(folder / "special_tokens_map.json")
    model, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    _add_tokens(backend, config, tokenizers.AddedToken)
    ends = [*ids_of(generation.get("eos_token_id")), *ids_of(model.get("eos_token_id"))]
    named = {role: _content(token) for role, token in {**tokens, **config}.items() if role.endswith("_token")}
    named |= {role: _content(token) for role, token in _objects(config.get("extra_special_tokens")).items()}
    if not config:  # by id, then; where it names no BOS, templates write none
        for role in ("bos_token", "pad_token", "unk_token"):
            named.setdefault(role, next(map(backend.id_to_token, ids_of(model.get(f"{role}_id"))), None))
    if named.get("eos_token") is None and ends:
        named["eos_token"] = backend.id_to_token(ends[0])
    special = {
        role: token
        for role, token in named.items()
        if token is not None and (role in ROLES or backend.token_to_id(token) is not None)
    }
    return Found(backend, special, _templates(folder, config), ends)


def write_folder(folder: Path, backend: str, special: dict[str, str], templates: dict[str, str]) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**special, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if list(templates) == ["default"]:
        config["chat_template"] = templates["default"]
    elif templates:
        config["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    (folder / "tokenizer.json").write_text(backend, encoding="utf-8")
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special)):
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def ids_of(value: int | list[int] | None) -> list[int]:
    """The ids in a field that may hold none, one or several."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _add_tokens(backend: Any, config: dict[str, Any], token_of: Callable[..., Any]) -> None:
    """What tokenizer_config.json calls special, or adds at the end, and tokenizer.json does not."""
    told = {int(i): token for i, token in _objects(config.get("added_tokens_decoder")).items()}
    for i, token in sorted(told.items()):
        place, special = backend.token_to_id(token["content"]), bool(token.get("special"))
        if (place is None and i == backend.get_vocab_size()) or (place == i and special):
            add = backend.add_special_tokens if special else backend.add_tokens
            add([token_of(**{name: token[name] for name in _FLAGS if name in token})])
    known = backend.get_added_tokens_decoder()
    for token in config.get("additional_special_tokens") or []:
        place = backend.token_to_id(_content(token) or "")
        flags = {name: getattr(known.get(place), name) for name in _FLAGS[:-1] if place in known}
        if place is not None:
            backend.add_special_tokens([token_of(**{"content": _content(token), **flags}, special=True)])


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token if isinstance(token, str) else None


def _objects(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    inside = config.get("chat_template")
    if isinstance(inside, list):  # several by name, as models with tools have them
        inside = {entry["name"]: entry["template"] for entry in inside}
    elif not isinstance(inside, dict):
        inside = {} if inside is None else {"default": inside}
    files = {"default": folder / "chat_template.jinja"}
    files |= {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    return inside | {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.is_file()}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not hold an object; download it again")
    return found
