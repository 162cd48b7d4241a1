"""config.json both ways, in the dialects of transformers 4 and 5, and what is refused."""

import dataclasses

import pytest

from jaxrl.lm.pretrained.hf_config import from_hf_config, to_hf_config
from jaxrl.lm.rope import Llama3Scaling
from tests.helpers.families import FAMILIES, config_of

# As transformers 5.23 writes it: rope_parameters and dtype instead of rope_theta, rope_scaling and torch_dtype.
WRITTEN_BY_5 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "dtype": "float32",
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
    "vocab_size": 96,
}
# meta-llama/Llama-3.2-1B's, as transformers 4 wrote it.
WRITTEN_BY_4 = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
SIZES = {name: WRITTEN_BY_5[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
BARE = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 128}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_config_survives_the_way_there_and_back(name):
    config = config_of(name)
    assert from_hf_config(to_hf_config(config)) == config


def test_transformers_5():
    assert from_hf_config(WRITTEN_BY_5) == config_of("llama3")


def test_transformers_4():
    config = from_hf_config(WRITTEN_BY_4)
    assert config.rope_scaling == Llama3Scaling(32.0, 1.0, 4.0, 8192)
    assert (config.rope_theta, config.head_dim, config.tie_word_embeddings) == (5e5, 64, True)


def test_what_a_family_leaves_out():
    """transformers' own defaults, which its files may omit."""
    assert from_hf_config({**BARE, "model_type": "llama"}).num_key_value_heads == 4
    assert from_hf_config({**BARE, "model_type": "mistral"}).sliding_window == 4096
    assert from_hf_config({**BARE, "model_type": "mistral", "sliding_window": None}).sliding_window is None
    gemma = from_hf_config({**BARE, "model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None})
    assert gemma == config_of("gemma", num_key_value_heads=16, head_dim=256, rms_norm_eps=1e-6)
    assert from_hf_config({**BARE, "model_type": "qwen3"}).head_dim == 128


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({"use_sliding_window": False, "max_window_layers": 0}, None),
        ({"use_sliding_window": True, "max_window_layers": 3}, None),
        ({"use_sliding_window": True, "max_window_layers": 0}, 9),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"] * 3}, 9),
    ],
)
def test_sliding_windows_of_qwen(keys, window):
    assert from_hf_config({**BARE, "model_type": "qwen2", "sliding_window": 9, **keys}).sliding_window == window


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model_type": "mamba"}, "'mamba'.*it computes llama, mistral, qwen2, qwen3, gemma"),
        ({"model_type": "gemma2"}, "'gemma2'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config.*gptq"),
        (
            {"rope_scaling": {"type": "longrope", "factor": 4.0}},
            "'longrope'.*it computes linear, dynamic, llama3, yarn",
        ),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear' in config.json; it must be null or an object"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling in config.json lacks factor"),
        ({"rope_scaling": {"type": "linear", "factor": "4"}}, "factor is '4' in config.json; it must be a positive"),
        ({"rope_scaling": {"type": "linear", "factor": -1.0}}, "factor is -1.0"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0, "alpha": 2.0}}, "alpha is 2.0.* nothing to type 'linear'"),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}},
            "rope_scaling and rope_parameters disagree on rope_type",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            r"rope_parameters .* differs by kind of layer \(full_attention\)",
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 64}},
            "original_max_position_embeddings is 64 .* begins at max_position_embeddings = 128",
        ),
        (  # 0.1 ln 4 + 1 = 1.138629, and 0.878 times as much
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attn_factor": 0.8782488562869419}},
            'attn_factor is 0.878.*"attention_factor": 1.13863 for the one, or 1 for the other',
        ),
        ({"sliding_window": 64}, "gives a llama model a sliding window of 64.*set model_type to .mistral"),
        ({"layer_types": ["sliding_attention"] * 3}, "gives a llama model a sliding window"),
        ({"attention_multiplier": 0.015625}, "attention_multiplier is 0.015625"),
        ({"query_pre_attn_scalar": 256}, "query_pre_attn_scalar is 256"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier is 12.0 .*remove the key, else choose another model"),
        ({"residual_multiplier": 0.22}, "residual_multiplier is 0.22"),
        ({"logits_scaling": 8.0}, "logits_scaling is 8.0"),
        ({"scale_depth": 1.4}, "scale_depth is 1.4"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"no_rope_layers": [1, 1, 0]}, "no_rope_layers is "),
        ({"num_local_experts": 8}, "num_local_experts is 8"),
        ({"use_qk_norm": True}, "use_qk_norm is True"),
        ({"is_causal": False}, "is_causal is False"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}, "auto_map is "),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "lacks low_freq_factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'.*silu"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"vocab_size": "96"}, "vocab_size is '96'"),
        (
            {"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
            "only some layers have a sliding window",
        ),
        ({"model_type": "gemma", "use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_what_is_not_computed_is_refused(keys, words):
    with pytest.raises(ValueError, match=words):
        from_hf_config({**BARE, "model_type": "llama", **keys})


# The keys of published files beside the sizes, as Llama 2 and 3, Mistral, Qwen2.5, Qwen3, Gemma and SmolLM2 have them.
ALL = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf",
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": [128001, 128008],
    "pad_token_id": None,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "use_cache": True,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
}
LLAMA = {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "rope_scaling": None, "rope_theta": 1e4}
QWEN = {"sliding_window": 131072, "use_sliding_window": False, "max_window_layers": 28, "use_mrope": False}


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("llama", {**LLAMA, "pretraining_tp": 2, "max_sequence_length": 2048, "unsloth_version": "2024.9"}),
        (
            "llama",
            {**LLAMA, "is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}},
        ),
        (
            "llama",
            {**LLAMA, "_attn_implementation_autoset": True, "_flash_attn_2_enabled": True, "quantization_config": None},
        ),
        (
            "llama",
            {
                **LLAMA,
                "neftune_noise_alpha": 5,
                "hidden_dropout_prob": 0.1,
                "use_flash_attn": True,
                "mask_token_id": 7,
                "pruned_heads": {},
                "add_cross_attention": False,
            },
        ),
        (
            "llama",
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 16.0,
                    "original_max_position_embeddings": 64,
                    "finetuned": True,
                }
            },
        ),
        ("llama", {"sliding_window": 128, "attention_multiplier": 8**-0.5, "query_pre_attn_scalar": 8}),
        ("mistral", {"sliding_window": None, "rope_theta": 1e6, "head_dim": 128}),
        ("qwen2", {**QWEN, "layer_types": ["full_attention"] * 3, "dtype": "bfloat16"}),
        ("qwen3", {**QWEN, "attention_bias": False, "head_dim": 128}),
        ("gemma", {"hidden_activation": "gelu_pytorch_tanh", "use_bidirectional_attention": None}),
    ],
)
def test_published_configs_are_read(kind, keys):
    given = {**BARE, **ALL, "num_key_value_heads": 2, "model_type": kind, **keys}
    assert from_hf_config(given).model_type == kind


def test_a_window_as_wide_as_the_context_is_none():
    assert from_hf_config({**BARE, "model_type": "llama", "sliding_window": 128}).sliding_window is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"qkv_bias": True}, "a llama model cannot have qkv_bias=True"),
        ({"model_type": "qwen3"}, "a qwen3 model cannot have qk_norm=False"),
        ({"sliding_window": 4}, "a llama model cannot have a sliding window"),
        ({"model_type": "gpt2"}, "'gpt2' has no name on disk"),
    ],
)
def test_what_cannot_be_written_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        to_hf_config(dataclasses.replace(config_of("llama"), **changes))
