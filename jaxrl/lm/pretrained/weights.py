"""Pretrained models in and out: GGUF files, safetensors folders, the Hugging Face hub.

A folder that holds only pytorch_model.bin is refused: unpickling a download runs its code.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.lm.extras import package
from jaxrl.lm.lora import Adapters, merge, scale_of
from jaxrl.lm.pretrained import assets
from jaxrl.lm.pretrained.adapters import TENSORS, base_name, is_adapter_folder, read_adapters
from jaxrl.lm.pretrained.gguf_reader import open_gguf, read_gguf
from jaxrl.lm.pretrained.hf_config import check_savable, from_hf_config, to_hf_config
from jaxrl.lm.pretrained.safetensors_folder import INDEX, SafeTensors, appearing, read_json, write_json, write_tensors
from jaxrl.lm.pretrained.tensors import HF, Places, assemble, disassemble
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import Decoder, ModelConfig
from jaxrl.lm.vocabulary import grow
from jaxrl.settings import closest, replace
from jaxrl.types import InputError

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["model*.safetensors", INDEX, TENSORS, "*.json", "*.jinja"]


class Pretrained(NamedTuple):
    """A model ready to use: language_model(config).apply(params, tokenizer.encode(text)).

    generation: its generation_config.json, which is kept for the folder that `save_model` writes.
    """

    config: ModelConfig
    params: Decoder
    tokenizer: Tokenizer | None
    generation: Mapping[str, Any] | None = None


def load_model(
    name_or_path: str | Path,
    dtype: str = "float32",
    *,
    with_tokenizer: bool = True,
    score: bool | None = False,
    places: Places | None = None,
) -> Pretrained:
    """A pretrained model with its parameters in `dtype`.

    name_or_path: an asset ("smollm2-135m"), a .gguf file or a folder of just one, a folder of safetensors with its
    config.json, or "organisation/name" on the Hugging Face hub. A folder of a PEFT adapter gives the model that it
    names as its base, the adapter merged. The tokenizer is None where there is none beside the weights; one beside a
    .gguf file goes before the one inside it. What is loaded can be saved. score: whether it is to be a reward model,
    which does not speak; None takes either. places(shapes) -> a Sharding for each array, as
    functools.partial(parameter_places, mesh): each device is given its part alone, and of safetensors no more is read.
    Raises InputError with a sentence if it cannot be found, is damaged, or is a model that jaxrl does not compute.
    """
    path = _resolve(name_or_path)
    if is_adapter_folder(path):
        base, settings, adapters = load_adapter(path, dtype, with_tokenizer=with_tokenizer, places=places)
        return base._replace(params=merge(base.params, adapters, scale_of(settings)))
    if path.is_dir():
        folder, told, reader = path, (path / "tokenizer.json").is_file(), None
        config = from_hf_config(read_json(path / "config.json"), str(path / "config.json"))
        check_savable(config, str(path))
        params = from_hf_tensors(config, SafeTensors(path), dtype=dtype, source=str(path), places=places)
    else:
        folder, reader = path.parent, open_gguf(path)
        told = (folder / "tokenizer.json").is_file() or reader.get_field("tokenizer.ggml.tokens") is not None
        config, params = read_gguf(path, reader, dtype, places)
    tokenizer = _tokenizer(lambda: _read_tokenizer(path, reader)) if with_tokenizer and told else None
    if score is not None and score != (params.score is not None):
        what, wanted = ("a reward model", "one that speaks") if params.score is not None else ("none", "a reward model")
        raise InputError(f"{name_or_path} is {what}, and {wanted} is needed here")
    generation = folder / "generation_config.json"
    return Pretrained(config, params, tokenizer, read_json(generation) if generation.is_file() else None)


class Adapted(NamedTuple):
    """A model and adapters for it, not attached. settings: those of adapters, and the model's name."""

    base: Pretrained
    settings: LMConfig
    adapters: Adapters


def load_adapter(
    name_or_path: str | Path,
    dtype: str = "float32",
    *,
    base: str | None = None,
    with_tokenizer: bool = True,
    places: Places | None = None,
) -> Adapted:
    """A PEFT adapter, from its folder or the hub, and the model that it is for.

    base: that model, where it is not where the adapter's config says. The tokenizer is the adapter's own where it has
    one. places: of the model, as for `load_model`. Raises InputError as that does, and for an adapter that jaxrl does
    not compute.
    """
    path = _resolve(name_or_path)
    if not is_adapter_folder(path):
        raise InputError(f"{name_or_path} is no adapter: it has no adapter_config.json; load_model loads whole models")
    named = base or base_name(path)
    try:
        model = load_model(named, dtype, with_tokenizer=with_tokenizer, places=places)
    except InputError as error:
        where = f"set base_model_name_or_path in {path / 'adapter_config.json'} to where it lies"
        raise InputError(f"the adapter {path} is for the model {named!r}: {error}; or {where}") from error
    settings, adapters = read_adapters(path, model.params)
    if with_tokenizer and (path / "tokenizer.json").is_file():
        own = _tokenizer(lambda: Tokenizer.from_folder(path))
        if model.tokenizer is not None:  # ends of turns are written beside the model
            own.more_stops |= model.tokenizer.stops
        model = model._replace(tokenizer=own)
    return Adapted(model, replace(settings, name=named), adapters)


def is_adapter(name_or_path: str | Path) -> bool:
    """Whether this is an adapter, to be merged into a model. Arguments and errors as for `load_model`."""
    return is_adapter_folder(_resolve(name_or_path))


def load_tokenizer(name_or_path: str | Path) -> Tokenizer:
    """The tokenizer of a model, without its weights. Arguments and errors as for `load`."""
    path = _resolve(name_or_path)
    if is_adapter_folder(path) and not (path / "tokenizer.json").is_file():
        return load_tokenizer(base_name(path))
    return _read_tokenizer(path)


def _read_tokenizer(path: Path, reader: Any = None) -> Tokenizer:
    """reader: of a GGUF that is open already; to open one takes seconds."""
    if path.is_dir():
        return Tokenizer.from_folder(path)
    beside = (path.parent / "tokenizer.json").is_file()
    return Tokenizer.from_gguf(open_gguf(path) if reader is None else reader, path.parent if beside else None)


def save_model(
    folder: str | Path,
    config: ModelConfig,
    params: Decoder,
    tokenizer: Tokenizer | None = None,
    generation: Mapping[str, Any] | None = None,
    *,
    dtype: str = "float32",
    max_shard_bytes: float = 5e9,
) -> None:
    """Write a folder that `load` and transformers' from_pretrained read: it appears whole or not at all.

    generation: of the model that this one comes from; the tokenizer's ids go before those in it. Gemma's norms are
    stored less 1, as its files have them: exact for weights of at least 0.5, else to rounding.
    A reward model, which has a `score`, is what transformers' AutoModelForSequenceClassification reads: without the
    head that speaks, and padded with a token that ends no text, since transformers takes the score at the last token
    that is not padding. Where the tokenizer has none, one is added, and a row to the embedding.
    Raises InputError with a sentence if the folder holds anything, or if an adapter has not been merged.
    """
    rewards = params.score is not None
    if rewards:
        tokenizer = None if tokenizer is None else tokenizer.padded_apart()
        config, params = dataclasses.replace(config, tie_word_embeddings=True), _mute(params)
        config, params = grow(config, params, 0 if tokenizer is None else tokenizer.vocab_size)
    ids = {f"{k}_token_id": getattr(tokenizer, k, None) for k in ("bos", "eos", "pad")}
    generation = None if rewards else _generation(tokenizer, generation or {}, ids)
    written = to_hf_config(config, dtype=dtype, token_ids=ids, score=rewards)
    with appearing(Path(folder)) as temporary:
        tensors = disassemble(config, params, HF, _shifted(config, -1.0), dtype)
        write_tensors(temporary, tensors, 4 if dtype == "float32" else 2, max_shard_bytes)
        write_json(temporary / "config.json", written)
        if tokenizer is not None:
            tokenizer.save(temporary)
        if generation:
            write_json(temporary / "generation_config.json", generation)


def _mute(params: Decoder) -> Decoder:
    copy = jax.tree.map(lambda x: x, params)
    copy.head = None
    return copy


def _generation(tokenizer: Tokenizer | None, given: Mapping[str, Any], ids: Mapping[str, int | None]) -> dict[str, Any]:
    if tokenizer is None:
        return dict(given)
    told = {name: i for name, i in ids.items() if i is not None}
    others = sorted(tokenizer.stops - {tokenizer.eos})
    return {**ids, **given, **told, **({"eos_token_id": [tokenizer.eos, *others]} if others else {})}


def from_hf_tensors(
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    *,
    dtype: str = "float32",
    source: str = "the mapping",
    places: Places | None = None,
) -> Decoder:
    """Arrays by their names in transformers to parameters. places: as for `load_model`. Raises InputError for missing,
    unknown, misshapen ones."""
    return assemble(config, tensors, HF, _shifted(config, 1.0), dtype=dtype, source=source, places=places)


def to_hf_tensors(config: ModelConfig, params: Decoder, *, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Parameters to arrays by their names in transformers, each contiguous."""
    return {name: make() for name, _, make in disassemble(config, params, HF, _shifted(config, -1.0), dtype)}


def _shifted(config: ModelConfig, shift: float) -> Callable[[str, np.ndarray], np.ndarray]:
    # Gemma multiplies by 1 + weight where the others multiply by weight.
    def convert(path: str, array: np.ndarray) -> np.ndarray:
        norm = config.model_type == "gemma" and path.endswith("norm.weight.value")
        return array.astype(np.float32) + np.float32(shift) if norm else array

    return convert


def _resolve(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.suffix == ".gguf":
        return path
    if str(name_or_path) in assets.ASSETS:
        package("gguf", "pretrained weights")  # before a hundred megabytes are fetched
        path = assets.path(str(name_or_path))
        if path.suffix == ".gguf":
            return path
        raise InputError(f"the asset {name_or_path!r} is not a model; jaxrl.lm.pretrained.assets.path gives its place")
    if not path.exists() and _HUB.fullmatch(str(name_or_path)):
        return _from_hub(str(name_or_path))
    models = [name for name, asset in assets.ASSETS.items() if asset.members[0].name.endswith(".gguf")]
    raise InputError(
        f"there is no model {str(name_or_path)!r}; give one of {', '.join(models)}, the path of a .gguf file or of a "
        f'folder of safetensors, or "organisation/name" on the hub{closest(name_or_path, models)}'
    )


def _in_folder(folder: Path) -> Path:
    """The folder, or the one .gguf file in it where it holds no safetensors."""
    files = sorted(folder.glob("*.gguf"))
    if not files or list(folder.glob("*.safetensors")):
        return folder
    if len(files) > 1:
        raise InputError(f"{folder} holds {', '.join(f.name for f in files)}; give the path of the one that is meant")
    return files[0]


def _from_hub(name: str) -> Path:
    hub = package("huggingface_hub", "models of the hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # the hub's client and the network below it raise a dozen kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"there is no folder {name!r} here, and the hub gave no such model ({reason}); check the name, the "
            "network connection and, for a gated model, `hf auth login`"
        ) from error


def _tokenizer(make: Callable[[], Tokenizer]) -> Tokenizer:
    try:
        return make()
    except InputError as error:
        raise InputError(f"{error}; or load the weights alone, with_tokenizer=False") from error
