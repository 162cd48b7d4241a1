"""A tiny model of every family on disk, with weights that look like a trained model's: no zeros, norms near one."""

import jax
import numpy as np

from jaxrl.lm.rope import Llama3Scaling
from jaxrl.lm.transformer import ModelConfig, language_model

_BASE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "llama": {"model_type": "llama"},
    "llama3": {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": Llama3Scaling(8.0, 1.0, 4.0, 8192)},
    "smollm2": {"model_type": "llama", "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": 7},
    "qwen2": {"model_type": "qwen2", "qkv_bias": True, "tie_word_embeddings": True},
    "qwen2_window": {"model_type": "qwen2", "qkv_bias": True, "sliding_window": 5},
    "qwen3": {"model_type": "qwen3", "qk_norm": True, "rms_norm_eps": 1e-6},
    "gemma": {
        "model_type": "gemma",
        "scale_embeddings": True,
        "hidden_act": "gelu_tanh",
        "tie_word_embeddings": True,
    },
}


def config_of(name: str, **changes) -> ModelConfig:
    return ModelConfig(**{**_BASE, **FAMILIES[name], **changes})


def params_of(config: ModelConfig, seed: int = 0):
    """Normal weights; norms within [0.6, 1.4], where Gemma's 1 + w is exact."""
    shapes = jax.eval_shape(language_model(config).init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        norm = jax.tree_util.keystr(path).endswith("norm.weight.value")
        drawn = rng.uniform(0.6, 1.4, leaf.shape) if norm else rng.normal(0, 0.3, leaf.shape)
        return jax.numpy.asarray(drawn, np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def assert_same(a, b) -> None:
    """Equal bit for bit, in one structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.array_equal(x, y), jax.tree_util.keystr(path)
