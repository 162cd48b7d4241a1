"""Hugging Face's config.json to ModelConfig and back, for the architectures that the decoder computes exactly.

Whatever would change the numbers and is not computed here is refused, never ignored (keys.py). Keys are read as
transformers 4 wrote them and as 5 does (`dtype`, `rope_parameters`); those of 4 are written, which both read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxrl.lm.pretrained.hf_rope import read_rope, write_rope
from jaxrl.lm.pretrained.keys import check_config
from jaxrl.lm.transformer import ModelConfig
from jaxrl.types import InputError


class Family(NamedTuple):
    """What sets a model_type apart: its class in transformers, its fixed fields, what config.json may leave out."""

    architecture: str
    fixed: dict[str, bool]
    defaults: dict[str, Any]


FAMILIES = {
    "llama": Family("LlamaForCausalLM", {}, {}),
    "mistral": Family("MistralForCausalLM", {}, {"num_key_value_heads": 8, "sliding_window": 4096}),
    "qwen2": Family("Qwen2ForCausalLM", {"qkv_bias": True}, {"num_key_value_heads": 32}),
    "qwen3": Family("Qwen3ForCausalLM", {"qk_norm": True}, {"num_key_value_heads": 32, "head_dim": 128}),
    "gemma": Family(
        "GemmaForCausalLM",
        {"scale_embeddings": True},
        {"num_key_value_heads": 16, "head_dim": 256, "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"},
    ),
}
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
_FIXED = ("qkv_bias", "qk_norm", "scale_embeddings")


def from_hf_config(found: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
    """The config.json of a model as a ModelConfig. Raises InputError with a sentence about what is not supported."""
    kind = found.get("model_type")
    if kind not in FAMILIES:
        raise InputError(
            f"model_type {kind!r} in {source} is not an architecture that jaxrl computes; "
            f"it computes {', '.join(FAMILIES)}"
        )
    family = FAMILIES[kind]
    values = {**family.defaults, **{k: v for k, v in found.items() if v is not None or k == "sliding_window"}}
    sizes = {name: _size(values, name, source) for name in SIZES}
    heads = sizes["num_attention_heads"]
    values = {"num_key_value_heads": heads, "head_dim": sizes["hidden_size"] // heads, **values}
    head_dim = _size(values, "head_dim", source)
    check_config(values, head_dim, source)
    theta, scaling = read_rope(values, source)
    return ModelConfig(
        **sizes,
        num_key_value_heads=_size(values, "num_key_value_heads", source),
        head_dim=head_dim,
        rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=bool(values.get("tie_word_embeddings", False)),
        model_type=kind,
        sliding_window=_window(values, source),
        hidden_act=_activation(values, source),
        **family.fixed,
    )


def to_hf_config(
    config: ModelConfig,
    *,
    dtype: str = "float32",
    token_ids: Mapping[str, int | None] | None = None,
    score: bool = False,
) -> dict[str, Any]:
    """The config.json for weights of this config. token_ids: bos_token_id, eos_token_id and pad_token_id. score: of a
    reward model, which transformers has as a classifier with one label."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise InputError(f"model_type={kind!r} has no name on disk; choose one of {', '.join(FAMILIES)}")
    for name in _FIXED:
        if getattr(config, name) != FAMILIES[kind].fixed.get(name, False):
            raise InputError(
                f"a {kind} model cannot have {name}={getattr(config, name)} on disk; set another model_type"
            )
    written = {name: getattr(config, name) for name in (*SIZES, "num_key_value_heads", "head_dim", "rms_norm_eps")}
    architecture = FAMILIES[kind].architecture
    label = {"id2label": {"0": "REWARD"}, "label2id": {"REWARD": 0}, "num_labels": 1} if score else {}
    return {
        "architectures": [architecture.replace("CausalLM", "SequenceClassification") if score else architecture],
        **label,
        "model_type": kind,
        **written,
        "rope_theta": config.rope_theta,
        "rope_scaling": write_rope(config.rope_scaling),
        "tie_word_embeddings": config.tie_word_embeddings,
        "hidden_act": {"silu": "silu", "gelu_tanh": "gelu_pytorch_tanh"}[config.hidden_act],
        **_window_keys(config),
        **{name: (token_ids or {}).get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "torch_dtype": dtype,
    }


def check_savable(config: ModelConfig, source: str) -> None:
    """Raises InputError, before anything is trained, for a model that could not be saved afterwards."""
    try:
        to_hf_config(config)
    except InputError as error:
        raise InputError(f"what {source} holds could not be saved after training: {error}") from error


def _size(values: Mapping[str, Any], name: str, source: str) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r} in {source}; it must be a whole number of at least 1")
    return value


def _window(values: Mapping[str, Any], source: str) -> int | None:
    kind, window, layers = values["model_type"], values.get("sliding_window"), values["num_hidden_layers"]
    full, slid = ["full_attention"] * layers, ["sliding_attention"] * layers
    if kind not in ("mistral", "qwen2", "qwen3"):
        narrow = window is not None and window < values["max_position_embeddings"]
        if narrow or values.get("layer_types", full) != full:
            raise InputError(
                f"{source} gives a {kind} model a sliding window of {window}, which such models do not have; "
                'set model_type to "mistral", or remove sliding_window and layer_types'
            )
        return None
    if kind != "mistral" and window is not None:
        first = values.get("max_window_layers", 28) if values.get("use_sliding_window") else layers
        kinds = list(values.get("layer_types") or full[:first] + slid[first:])
    else:
        kinds = list(values.get("layer_types") or slid)
    if kinds not in (full, slid):
        raise InputError(f"only some layers have a sliding window in {source}; jaxrl computes it for all or for none")
    return None if kinds == full else window


def _window_keys(config: ModelConfig) -> dict[str, Any]:
    window = config.sliding_window
    if config.model_type == "mistral":
        return {"sliding_window": window}
    if window is None:
        return {}
    if config.model_type in ("qwen2", "qwen3"):
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    raise InputError(f"a {config.model_type} model cannot have a sliding window on disk; set model_type='mistral'")


def _activation(values: Mapping[str, Any], source: str) -> str:
    name = values.get("hidden_act", "silu")
    if values["model_type"] == "gemma":
        # Gemma's own files say "gelu" where its tanh approximation is meant, as transformers also takes it.
        name = values.get("hidden_activation", name)
        name = "gelu_pytorch_tanh" if name == "gelu" else name
    if name not in ACTIVATIONS:
        raise InputError(f"hidden_act is {name!r} in {source}; jaxrl computes {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
