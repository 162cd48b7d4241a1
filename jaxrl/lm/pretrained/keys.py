"""Which keys of a config.json or of a GGUF's metadata change what a model computes, beside those that are computed.

A GGUF's keys are written by few converters, so those known to change nothing are listed and all others refused. A
config.json holds whatever its authors liked: there an unknown key is refused if its name speaks of arithmetic and its
value does not say "off".
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from jaxrl.types import InputError

# config.json

_OFF = (None, False, 0, 1, "", [], {})
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "use_bidirectional_attention": (None, False),
    "quantization_config": (None, {}),
    "compression_config": (None, {}),
    "is_causal": (None, True),
    "auto_map": (None, {}),
    "attn_logit_softcapping": (None, 0),
    "final_logit_softcapping": (None, 0),
    "num_nextn_predict_layers": (None, 0),
    "is_encoder_decoder": (None, False),
}
"""Keys of config.json that change the computation, and the values of each that do not."""
HARMLESS = frozenset(
    """num_attention_heads num_hidden_layers num_key_value_heads head_dim rms_norm_eps rope_theta rope_scaling
    rope_parameters partial_rotary_factor hidden_act hidden_activation sliding_window use_sliding_window
    max_window_layers layer_types output_attentions""".split()
)
"""Keys of config.json that name arithmetic and are computed, or ask for more to be returned."""
_ARITHMETIC = re.compile(
    "^(?!_|.*(dropout|pdrop|initializer|flash|implementation))"  # of training, or of how the same is computed
    ".*(scal|multipl|softcap|alibi|bias|norm|rope|rotary|window|attention|attn|expert|moe|residual|clip|clamp|"
    "lora|parallel|activation|theta|layer|head|quant|sparse|gate|mlp|ffn)"
)


def check_config(values: Mapping[str, Any], head_dim: int, source: str) -> None:
    """Raises InputError with a sentence for a key of config.json that changes the computation in a way not computed."""
    scale = head_dim**-0.5
    by_size = {"query_pre_attn_scalar": (None, head_dim), "attention_multiplier": (None, scale)}
    for name, value in values.items():
        neutral = NEUTRAL.get(name) or by_size.get(name)
        if neutral is None and (name in HARMLESS or not _ARITHMETIC.search(name)):
            continue
        if not _among(value, neutral or _OFF):
            raise InputError(
                f"{name} is {value!r} in {source}, which jaxrl does not compute; if the model is a plain "
                f"{values.get('model_type')} nevertheless, remove the key, else choose another model"
            )


# GGUF

_GGUF_HARMLESS = (
    # read elsewhere: sizes, norms and rotations
    "block_count context_length embedding_length feed_forward_length attention.head_count attention.head_count_kv "
    "attention.key_length attention.value_length attention.layer_norm_rms_epsilon attention.sliding_window "
    "rope.dimension_count rope.freq_base rope.scaling.type rope.scaling.factor rope.scale_linear "
    "rope.scaling.attn_factor rope.scaling.original_context_length rope.scaling.yarn_beta_fast "
    "rope.scaling.yarn_beta_slow "
    # of no effect on logits
    "vocab_size rope.scaling.finetuned pooling_type"
).split()
_GGUF_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.scale": (0,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.temperature_scale": (0,),
    "attention.temperature_length": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "embedding_scale": (0, 1),
    "residual_scale": (0, 1),
    "use_parallel_residual": (False,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "tensor_data_layout": ("Meta AI original pth",),
    "rope.scaling.alpha": (0, 1),
    "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_log_multiplier": (0,),
}
_ELSEWHERE = {"general.type": ("model",), "split.count": (0, 1)}
_OTHER_KINDS = ("adapter.", "clip.", "diffusion.", "xielu.")


def check_metadata(metadata: Mapping[str, Any], arch: str, head_dim: int, source: str) -> None:
    """Raises InputError with a sentence for a key of a GGUF that is not known to leave the computation as it is.

    metadata: all but the tokenizer's. Names outside of the architecture's own are other people's notes, but for those
    of `_ELSEWHERE` and `_OTHER_KINDS`.
    """
    for name, value in metadata.items():
        own = name.removeprefix(f"{arch}.")
        noted = own == name and name not in _ELSEWHERE and not name.startswith(_OTHER_KINDS)
        if noted or own in _GGUF_HARMLESS:
            continue
        usual = (head_dim**-0.5,) if own == "attention.scale" else ()
        if not _among(value, {**_ELSEWHERE, **_GGUF_NEUTRAL}.get(own, ()) + usual):
            raise InputError(f"{name} is {value!r} in {source}, which jaxrl does not compute; {_remedy(name)}")


def _remedy(name: str) -> str:
    if name == "split.count":
        return "put the parts together with llama-gguf-split --merge"
    return "load the model from safetensors, or, if the key changes nothing, write the file anew without it with " + (
        f"gguf-new-metadata --remove-metadata {name}"
    )


def _among(value: Any, neutral: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):  # which equals a number
        return any(value is n for n in neutral)
    if isinstance(value, int | float):
        return any(math.isclose(value, n, rel_tol=1e-5) for n in neutral if isinstance(n, int | float))
    return value in neutral
