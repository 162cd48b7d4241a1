"""GGUF files (llama.cpp's format, quantised or not) as a config and float32 arrays.

llama.cpp rotates neighbouring pairs in Llama's heads, the decoder pairs (i, i + C/2): files of architecture "llama"
have the rows of Q and K permuted for it. Left so, text still looks fine while logits are off by up to 18.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.lm.extras import package
from jaxrl.lm.pretrained.hf_config import check_savable
from jaxrl.lm.pretrained.keys import check_metadata
from jaxrl.lm.pretrained.tensors import GGUF, Places, assemble
from jaxrl.lm.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling, frequencies
from jaxrl.lm.transformer import Decoder, ModelConfig
from jaxrl.types import InputError

ARCHITECTURES = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": {"scale_embeddings": True, "hidden_act": "gelu_tanh"},
}
_EMBEDDINGS = ("token_embd.weight", "output.weight")
"""Where there is but one of them, it is both."""
_ROPE = "rope_freqs.weight"
_DAMAGED = "{} is not a GGUF file or is cut short ({}); download it again"
_REQUANTISE = "upgrade gguf, or make the file anew as Q8_0 with llama-quantize"


def open_gguf(path: Path) -> Any:
    """A gguf.GGUFReader of the file. Raises InputError with a sentence if it is none."""
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    base = package("gguf", "pretrained weights").GGUFReader

    class Reader(base):
        def _get(self, *args: Any, **kwargs: Any) -> np.ndarray:
            # Half a million slices of a vocabulary take half the time where they are not slices of a np.memmap.
            self.data = self.data.view(np.ndarray)
            return super()._get(*args, **kwargs)

    try:
        reader = Reader(path)
    except ValueError as error:
        if "GGMLQuantizationType" not in str(error):
            raise InputError(_DAMAGED.format(path, error)) from error
        raise InputError(
            f"{path} has tensors of a type that the installed gguf does not know ({error}); {_REQUANTISE}"
        ) from error
    except Exception as error:  # the reader trusts its input: any of a dozen kinds may come out of a damaged file
        raise InputError(_DAMAGED.format(path, error)) from error
    if reader.byte_order != "I":
        raise InputError(f"{path} has the other byte order; convert it with gguf's gguf_convert_endian")
    return reader


def read_gguf(
    path: Path, reader: Any, dtype: str = "float32", places: Places | None = None
) -> tuple[ModelConfig, Decoder]:
    """The config and the parameters in an open file. places: as for `assemble`."""
    tensors = _Tensors(reader, path)
    config = _config(reader, tensors, path)

    def convert(key_path: str, array: np.ndarray) -> np.ndarray:
        if tensors.architecture != "llama":
            return array
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(key_path.split(".")[2]) if key_path.startswith(".layers.") else None
        return array if count is None else unpermute(array, count)

    check_savable(config, str(path))
    return config, assemble(config, tensors, GGUF, convert, dtype=dtype, source=str(path), places=places)


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from GGUF's order (0, C/2, 1, C/2 + 1, …) to the order 0, 1, …, C - 1. [H·C, ...]"""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class _Tensors(Mapping):
    """The file's arrays by name, dequantised when asked for."""

    def __init__(self, reader: Any, path: Path):
        self._tensors, self._path = {t.name: t for t in reader.tensors}, path
        self.architecture = _value(reader, "general.architecture")

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        try:
            return package("gguf", "pretrained weights").quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise InputError(f"{name} in {self._path} is {kind}, which gguf cannot read; {_REQUANTISE}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in reversed(self._tensors[name].shape))


def _value(reader: Any, name: str, default: Any = None) -> Any:
    field = reader.get_field(name)
    value = default if field is None else field.contents()
    # float32 as its shortest decimal: 1e-05 rather than 9.999999747378752e-06
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _config(reader: Any, tensors: _Tensors, path: Path) -> ModelConfig:
    arch = tensors.architecture
    if arch not in ARCHITECTURES:
        raise InputError(f"{path} is of architecture {arch!r}; jaxrl computes {', '.join(ARCHITECTURES)}")
    embed = next((name for name in _EMBEDDINGS if name in tensors), None)
    if embed is None:
        raise InputError(f"{path} lacks {_EMBEDDINGS[0]}; download it again")

    def size(name: str, default: int | None = None) -> int:
        value = _value(reader, f"{arch}.{name}", default)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{arch}.{name} is {value!r} in {path}; jaxrl needs one whole number of at least 1")
        return value

    width, heads = size("embedding_length"), size("attention.head_count")
    head_dim = size("attention.key_length", width // heads)
    for name in ("rope.dimension_count", "attention.value_length"):
        if size(name, head_dim) != head_dim:
            raise InputError(f"{arch}.{name} is {size(name)} in {path}; jaxrl computes heads of {head_dim} throughout")
    metadata = {name: _value(reader, name) for name in reader.fields if not name.startswith("tokenizer.")}
    check_metadata(metadata, arch, head_dim, str(path))
    if f"{arch}.attention.layer_norm_rms_epsilon" not in metadata:
        raise InputError(f"{path} lacks {arch}.attention.layer_norm_rms_epsilon; download it again")
    config = ModelConfig(
        vocab_size=tensors.shape(embed)[0],
        hidden_size=width,
        intermediate_size=size("feed_forward_length"),
        num_hidden_layers=size("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=size("context_length"),
        rms_norm_eps=metadata[f"{arch}.attention.layer_norm_rms_epsilon"],
        rope_theta=_value(reader, f"{arch}.rope.freq_base", 10_000.0),
        tie_word_embeddings=not all(name in tensors for name in _EMBEDDINGS),
        model_type=arch,
        **{"qkv_bias": "blk.0.attn_q.bias" in tensors, **ARCHITECTURES[arch]},
    )
    scaling = _divided(config, tensors, path) if _ROPE in tensors else None
    stated = _stated_scaling(metadata, config, path)
    if scaling and stated:
        raise InputError(f"{path} has both {_ROPE} and {arch}.rope.scaling.factor; load the model from safetensors")
    return _as_saved(dataclasses.replace(config, rope_scaling=scaling or stated), metadata, path)


def _as_saved(config: ModelConfig, metadata: Mapping[str, Any], path: Path) -> ModelConfig:
    """With its sliding window, under the name that a model of this kind has among safetensors.

    llama.cpp calls a Mistral and a Llama whose queries, keys and values have a bias llamas, too.
    """
    arch = config.model_type
    window = metadata.get(f"{arch}.attention.sliding_window") or config.max_position_embeddings
    if window >= config.max_position_embeddings:
        return dataclasses.replace(config, model_type="qwen2") if arch == "llama" and config.qkv_bias else config
    if arch != "llama":
        raise InputError(
            f"{arch}.attention.sliding_window is {window} in {path}, which llama.cpp ignores for {arch}; load the "
            "model from safetensors, whose config.json says which layers have it"
        )
    return dataclasses.replace(config, model_type="qwen2" if config.qkv_bias else "mistral", sliding_window=window)


def _stated_scaling(metadata: Mapping[str, Any], config: ModelConfig, path: Path) -> RopeScaling | None:
    """What the keys under rope.scaling say; a factor without a type is linear, as llama.cpp takes it."""
    rope = f"{config.model_type}.rope."
    kind = metadata.get(rope + "scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise InputError(f"{rope}scaling.type is {kind!r} in {path}; jaxrl computes none, linear and yarn")
    factor = float(metadata.get(rope + "scaling.factor", metadata.get(rope + "scale_linear", 0.0)) or 1.0)
    longer = float(metadata.get(rope + "scaling.attn_factor", 1.0))
    if kind == "yarn":
        original = metadata.get(rope + "scaling.original_context_length") or config.max_position_embeddings
        betas = (float(metadata.get(f"{rope}scaling.yarn_beta_{b}", d)) for b, d in (("fast", 32), ("slow", 1)))
        scaling = YarnScaling(factor, original, None, *betas)
        return scaling if longer == 1 else dataclasses.replace(scaling, attention_factor=longer * scaling.attention)
    if longer != 1:
        raise InputError(f"{rope}scaling.attn_factor is {longer} in {path} without yarn; load it from safetensors")
    return None if kind == "none" or factor == 1 else LinearScaling(factor)


def _divided(config: ModelConfig, tensors: _Tensors, path: Path) -> Llama3Scaling | None:
    """GGUF has no fields for Llama 3's scaling, only the divisors that follow from it: [C/2] of them."""
    divisors = tensors[_ROPE].ravel()
    # Every Llama 3 has these three, and the slowest rotation is divided by the factor itself.
    scaling = Llama3Scaling(float(divisors[-1]), 1.0, 4.0, 8192)
    plain, slowed = (np.asarray(frequencies(config.rope_theta, config.head_dim, s)[0]) for s in (None, scaling))
    if divisors.shape != plain.shape or not np.allclose(plain / slowed, divisors, rtol=1e-3):
        raise InputError(f"{_ROPE} in {path} is not Llama 3's scaling; load the model from safetensors instead")
    return None if scaling.factor == 1.0 else scaling
