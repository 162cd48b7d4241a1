"""Low-rank adapters as PEFT keeps them: a folder of adapter_config.json and adapter_model.safetensors, in and out.

Rank, alpha, rsLoRA's scaling, and which projections of which layers, are computed. Whatever else of PEFT's would change
the numbers is refused by name, unknown settings among it, never ignored. Dropout is PEFT's own training's.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl.lm.extras import package
from jaxrl.lm.lora import TARGETS, Adapter, Adapters
from jaxrl.lm.pretrained.safetensors_folder import INDEX, MODEL, SafeTensors, appearing, read_json, write_json
from jaxrl.lm.pretrained.tensors import HF, listing
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import Decoder
from jaxrl.types import InputError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_READ = {"base_model_name_or_path", "r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules"}
_READ |= {"layers_to_transform"}
_WITHOUT_EFFECT = {"auto_mapping", "inference_mode", "lora_dropout", "peft_version"}
_WITHOUT_EFFECT |= {"ensure_weight_tying", "megatron_core", "qalora_group_size"}  # of what is refused if it is on
_COMPUTED = {
    # values with which the low-rank product on the base's own weights is all there is; of other keys: nothing set
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", None),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),  # others change the base's weights
    "layers_pattern": (None, "", [], "layers", ["layers"]),
}
_NOTHING = (None, False, "", [], {})
_MERGE = "merge it where it was trained (PEFT: merge_and_unload, then save_pretrained) and load that folder"


def is_adapter_folder(path: Path) -> bool:
    """Whether the folder has an adapter. Raises InputError if it has a whole model too: which is meant, it must say."""
    if not (path / CONFIG).is_file():
        return False
    if (path / MODEL).is_file() or (path / INDEX).is_file():
        raise InputError(f"{path} holds an adapter ({CONFIG}) and a whole model; move one of them to another folder")
    return True


def base_name(folder: Path) -> str:
    """The base model that an adapter's config names; a path may be relative to the adapter's folder.

    Raises InputError if it names none, or itself.
    """
    name = read_json(folder / CONFIG).get("base_model_name_or_path")
    set_it = f"set base_model_name_or_path in {folder / CONFIG} to its folder or name"
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder} does not say for which model it was made; {set_it}")
    beside = folder / name
    name = str(beside.resolve()) if not Path(name).exists() and beside.exists() else name
    if Path(name).resolve() == folder.resolve():
        raise InputError(f"{folder} names itself as the model that it was made for; {set_it}")
    return name


def read_adapters(folder: Path, params: Decoder) -> tuple[LMConfig, Adapters]:
    """An adapter's settings, as LMConfig has them, and its arrays in float32. params: of the model that it is for.

    Layers that it leaves out have adapters of zeros, which add nothing and never learn. Raises InputError with a
    sentence for what jaxrl does not compute, and for arrays that are missing, unknown or of another shape.
    """
    told = read_json(folder / CONFIG)
    _check_computed(told, folder / CONFIG)
    rank, alpha = _sizes(told, folder / CONFIG)
    modules = {target: _modules(told, target, params, folder / CONFIG) for target in TARGETS}
    targets = tuple(target for target in TARGETS if any(modules[target]))
    tensors = SafeTensors(folder, TENSORS)
    _compare_names(set(tensors), {_key(m, x) for t in targets for m in modules[t] if m for x in "AB"}, folder)

    def read(module: str, letter: str, shape: tuple[int, int]) -> np.ndarray:
        array = tensors[_key(module, letter)]
        if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
            what = f"has shape {array.shape} and type {array.dtype}"
            raise InputError(
                f"{_key(module, letter)} in {folder / TENSORS} {what}, but rank and model call for floats of {shape}; "
                "was it made for another base, or saved when its weights were elsewhere?"
            )
        return array.T.astype(np.float32)

    def stacked(target: str) -> Adapter:
        layers, n_in, n_out = getattr(params.layers, target).kernel.shape
        a, b = np.zeros((layers, n_in, rank), np.float32), np.zeros((layers, rank, n_out), np.float32)
        for i, module in enumerate(modules[target]):
            if module:
                a[i], b[i] = read(module, "A", (rank, n_in)), read(module, "B", (n_out, rank))
        return Adapter(jnp.asarray(a), jnp.asarray(b))

    own = {"lora_rank": rank, "lora_alpha": alpha, "lora_rank_stabilized": bool(told.get("use_rslora"))}
    return LMConfig(lora_targets=targets, **own), {target: stacked(target) for target in targets}


def save_adapters(
    folder: str | Path, settings: LMConfig, adapters: Adapters, tokenizer: Tokenizer | None = None
) -> None:
    """Write a folder that `load_model` and PEFT's from_pretrained read: it appears whole or not at all.

    settings: rank, alpha and scaling, and as `name` the model that the adapters are for, whole: its place is written
    beside them. PEFT itself needs that model as a folder or a name of the hub. Raises InputError if the folder holds
    anything.
    """
    tensors = {}
    for target, adapter in adapters.items():
        for letter, stacked in zip("AB", adapter, strict=True):
            for i, array in enumerate(np.asarray(stacked, np.float32)):
                tensors[_key(_module(target, i), letter)] = np.ascontiguousarray(array.T)
    alpha = float(settings.lora_alpha)
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": _lasting(settings.name),
        "r": settings.lora_rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "use_rslora": settings.lora_rank_stabilized,
        "target_modules": list(adapters),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    with appearing(Path(folder)) as temporary:
        save_file = package("safetensors.numpy", "pretrained weights").save_file
        save_file(tensors, temporary / TENSORS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, told)
        if tokenizer is not None:
            tokenizer.save(temporary)


def _lasting(name: str) -> str:
    """A path that is there made absolute, to be found from anywhere; other names as they are."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def _module(target: str, layer: int) -> str:
    return HF[f".layers.{target}.kernel.value"].format(i=layer).removesuffix(".weight")


def _key(module: str, letter: str) -> str:
    return f"base_model.model.{module}.lora_{letter}.weight"


def _check_computed(told: Mapping[str, Any], file: Path) -> None:
    for name, value in told.items():
        allowed = _COMPUTED.get(name, _NOTHING)
        if name not in _READ | _WITHOUT_EFFECT | {"revision"} and value not in allowed:
            raise InputError(f"{name} = {value!r} in {file} is not computed by jaxrl; {_MERGE}")
    if told.get("revision") not in (None, "", "main"):
        raise InputError(
            f"revision = {told['revision']!r} in {file}: jaxrl loads main only; download that revision, and put its "
            "folder as base_model_name_or_path and null as revision"
        )
    if missing := [name for name in ("peft_type", "r", "lora_alpha", "target_modules") if name not in told]:
        raise InputError(f"{file} lacks {', '.join(missing)}; take the file that was saved with the adapter")


def _sizes(told: Mapping[str, Any], file: Path) -> tuple[int, float]:
    rank, alpha = told["r"], told["lora_alpha"]
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise InputError(f"r = {rank!r} in {file}; it must be a whole number of at least 1")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise InputError(f"lora_alpha = {alpha!r} in {file}; it must be a number above 0")
    return rank, float(alpha)


def _modules(told: Mapping[str, Any], target: str, params: Decoder, file: Path) -> list[str | None]:
    """Of each layer, the full name of this projection if it has an adapter by PEFT's rules, else None."""
    names = [_module(target, i) for i in range(getattr(params.layers, target).kernel.shape[0])]
    layers = told.get("layers_to_transform")
    layers = [layers] if isinstance(layers, int) else layers or range(len(names))

    def adapted(i: int, name: str) -> bool:
        taken = i in layers and _matches(told["target_modules"], name, file)
        return taken and not _matches(told.get("exclude_modules"), name, file)

    return [name if adapted(i, name) else None for i, name in enumerate(names)]


def _matches(wanted: str | list[str] | None, name: str, file: Path) -> bool:
    """Whether a projection's full name is meant: by a regular expression for all of it, or by a list of its ends."""
    if wanted == "all-linear":
        return True
    if isinstance(wanted, list):
        return any(name == end or name.endswith(f".{end}") for end in wanted)
    try:
        return bool(wanted) and re.fullmatch(wanted, name) is not None
    except (re.error, TypeError) as error:
        raise InputError(f"{wanted!r} in {file} names no modules ({error}); give a list of names") from error


def _compare_names(found: set[str], wanted: set[str], folder: Path) -> None:
    if not wanted:
        raise InputError(f"target_modules in {folder / CONFIG} name no projection of the model; it has {TARGETS}")
    if missing := sorted(wanted - found):
        raise InputError(f"{folder / TENSORS} lacks {listing(missing, 4)}, which {CONFIG} calls for; save it again")
    if unknown := sorted(found - wanted):
        raise InputError(
            f"{folder / TENSORS} holds {listing(unknown, 4)}, which {CONFIG} does not call for or jaxrl does not "
            f"compute; {_MERGE}"
        )
