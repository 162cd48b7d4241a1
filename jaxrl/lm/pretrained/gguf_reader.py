"""GGUF files (llama.cpp's format, quantised or not) as a config and float32 arrays.

llama.cpp rotates neighbouring pairs in Llama's heads, the decoder pairs (i, i + C/2): files of architecture "llama"
have the rows of Q and K permuted for it. Left so, text still looks fine while logits are off by up to 18.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl.lm.extras import package
from jaxrl.lm.pretrained.tensors import GGUF, assemble
from jaxrl.lm.transformer import Decoder, ModelConfig, RopeScaling, rotary
from jaxrl.types import InputError

ARCHITECTURES = {
    "llama": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": {"scale_embeddings": True, "hidden_act": "gelu_tanh"},
}
REFUSED = {
    "{arch}.expert_count": 0,
    "{arch}.rope.scaling.type": "none",
    "{arch}.rope.scale_linear": 1.0,
    "{arch}.attn_logit_softcapping": 0.0,
    "{arch}.final_logit_softcapping": 0.0,
    "{arch}.logit_scale": 1.0,
    "split.count": 1,
}
"""Metadata that changes the computation, and the only value of each that jaxrl computes."""
_ROPE = "rope_freqs.weight"


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
    except Exception as error:  # the reader trusts its input: any of a dozen kinds may come out of a damaged file
        raise InputError(f"{path} is not a GGUF file or is cut short ({error}); download it again") from error
    if reader.byte_order != "I":
        raise InputError(f"{path} has the other byte order; convert it with gguf's gguf_convert_endian")
    return reader


def read_gguf(path: Path, reader: Any, dtype: str = "float32") -> tuple[ModelConfig, Decoder]:
    """The config and the parameters in an open file."""
    tensors = _Tensors(reader, path)
    config = _config(reader, tensors, path)

    def convert(key_path: str, array: np.ndarray) -> np.ndarray:
        if tensors.architecture != "llama":
            return array
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        count = heads.get(key_path.split(".")[2]) if key_path.startswith(".layers.") else None
        return array if count is None else unpermute(array, count)

    return config, assemble(config, tensors, GGUF, convert, dtype=dtype, source=str(path))


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
            raise InputError(f"{name} in {self._path} is {tensor.tensor_type.name}, which gguf cannot read") from error

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
    for name, allowed in REFUSED.items():
        found = _value(reader, name.format(arch=arch), allowed)
        if found not in (allowed, 0):
            raise InputError(f"{name.format(arch=arch)} is {found!r} in {path}, which jaxrl does not compute")
    if "token_embd.weight" not in tensors:
        raise InputError(f"{path} lacks token_embd.weight; download it again")

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
    window = _value(reader, f"{arch}.attention.sliding_window")
    config = ModelConfig(
        vocab_size=tensors.shape("token_embd.weight")[0],
        hidden_size=width,
        intermediate_size=size("feed_forward_length"),
        num_hidden_layers=size("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=size("context_length"),
        rms_norm_eps=_value(reader, f"{arch}.attention.layer_norm_rms_epsilon", 1e-5),
        rope_theta=_value(reader, f"{arch}.rope.freq_base", 10_000.0),
        tie_word_embeddings="output.weight" not in tensors,
        model_type="mistral" if arch == "llama" and window else arch,
        sliding_window=window or None,
        **{"qkv_bias": "blk.0.attn_q.bias" in tensors, **ARCHITECTURES[arch]},
    )
    return _with_rope_scaling(config, tensors, path)


def _with_rope_scaling(config: ModelConfig, tensors: _Tensors, path: Path) -> ModelConfig:
    """GGUF has no fields for Llama 3's scaling, only the divisors that follow from it: [C/2] of them."""
    if _ROPE not in tensors:
        return config
    divisors = tensors[_ROPE]
    # Every Llama 3 has these three, and the slowest rotation is divided by the factor itself.
    scaling = RopeScaling(float(divisors[-1]), 1.0, 4.0, 8192)
    scaled = dataclasses.replace(config, rope_scaling=scaling)
    angles = [np.arctan2(*reversed(rotary(c, jnp.ones((1, 1), int)))) for c in (config, scaled)]
    if divisors.shape != (config.head_dim // 2,) or not np.allclose(angles[0] / angles[1], divisors.ravel(), rtol=1e-3):
        raise InputError(f"{_ROPE} in {path} is not Llama 3's scaling; load the model from safetensors instead")
    return config if scaling.factor == 1.0 else scaled
