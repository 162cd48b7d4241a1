"""A tokenizer's files in a model's folder, as the hub, transformers' save_pretrained and jaxrl write them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.types import InputError

ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class Found(NamedTuple):
    """backend: of `tokenizers`. special: tokens by role. templates: by name, the one for all else as "default"."""

    backend: Any
    special: dict[str, str]
    templates: dict[str, str]
    stops: list[int]


def read_folder(folder: Path, from_file: Callable[[str], Any]) -> Found:
    """What a folder with tokenizer.json says. Raises InputError if there is none, or a file that cannot be read."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        remedy = "load it with transformers' AutoTokenizer and save_pretrained it there"
        raise InputError(f"{folder} has no tokenizer.json; {remedy}")
    try:
        backend = from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise InputError(f"{file} is no tokenizer that can be read ({error}); download it again") from error
    config, tokens = _json(folder / "tokenizer_config.json"), _json(folder / "special_tokens_map.json")
    model, generation = _json(folder / "config.json"), _json(folder / "generation_config.json")
    ends = [*ids_of(generation.get("eos_token_id")), *ids_of(model.get("eos_token_id"))]
    special = {}
    for role in ROLES:
        token = config.get(role) or tokens.get(role)
        token = token["content"] if isinstance(token, dict) else token
        by_id = ends if role == "eos_token" else ids_of(model.get(f"{role}_id"))
        if token is None and by_id:
            token = backend.id_to_token(by_id[0])
        if token is not None:
            special[role] = token
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
