"""config.json both ways, in the dialects of transformers 4 and 5, and what is refused."""

import dataclasses

import pytest

from jaxrl.lm.pretrained.hf_config import from_hf_config, to_hf_config
from jaxrl.lm.transformer import RopeScaling
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
    assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)
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
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'.*it computes llama3's"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, "'linear'"),
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
