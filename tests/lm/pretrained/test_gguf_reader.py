"""GGUF files written here as llama.cpp's converter writes them, and read back."""

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from jaxrl.lm.pretrained import gguf_reader
from jaxrl.lm.pretrained.gguf_reader import unpermute
from jaxrl.lm.pretrained.tensors import GGUF, HF
from jaxrl.lm.pretrained.weights import from_hf_tensors, load_model, to_hf_tensors
from tests.helpers.families import assert_same, config_of, params_of


def permute(rows, heads):
    """llama.cpp's own, from its convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def names_in_gguf(config):
    pairs = [(HF[p], GGUF[p]) for p in HF]
    return {h.format(i=i): g.format(i=i) for h, g in pairs for i in range(config.num_hidden_layers)}


def write(path, config, tensors, kind=Type.F32, metadata=None, extra=None):
    """A file with `tensors` (named as in transformers), matrices of `kind`, vectors in float32."""
    arch = "llama" if config.model_type == "mistral" else config.model_type
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    if config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    for name, value in (metadata or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(name, value)
    names = names_in_gguf(config)
    for name, array in tensors.items():
        if arch == "llama" and (".q_proj" in name or ".k_proj" in name):
            array = permute(array, config.num_attention_heads if ".q_proj" in name else config.num_key_value_heads)
        if config.model_type == "gemma" and name.endswith("norm.weight"):
            array = array + 1
        quantised = kind if array.ndim == 2 else Type.F32
        writer.add_tensor(names[name], quantize(array, quantised), raw_dtype=quantised)
    for name, (array, raw) in (extra or {}).items():
        writer.add_tensor(name, array, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["llama", "llama3", "smollm2", "mistral", "qwen2", "qwen3", "gemma"])
def test_every_family(name, tmp_path):
    config = config_of(name)
    params = params_of(config)
    extra = {}
    if config.rope_scaling:  # llama.cpp's converter: 1 for fast rotations, the factor for slow ones, between: between
        frequency = 5e5 ** (-np.arange(0, 16, 2) / 16)
        smooth = np.clip((8192 * frequency / (2 * np.pi) - 1) / (4 - 1), 0, 1)
        extra = {"rope_freqs.weight": ((1 / ((1 - smooth) / 8 + smooth)).astype(np.float32), Type.F32)}
    found = load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params), extra=extra))
    assert found.config == config and found.tokenizer is None
    assert_same(found.params, params)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1])
def test_quantised(kind, tmp_path):
    """What is read is what the format holds of the weights, matrix by matrix."""
    config = config_of("llama")
    tensors = to_hf_tensors(config, params_of(config))
    held = {n: dequantize(quantize(t, kind), kind) if t.ndim == 2 else t for n, t in tensors.items()}
    found = load_model(write(tmp_path / "m.gguf", config, tensors, kind))
    assert_same(found.params, from_hf_tensors(config, held))
    lost = np.abs(held["lm_head.weight"] - tensors["lm_head.weight"]).max()
    assert 0 < lost < 0.2


def test_k_quants(tmp_path):
    """gguf only reads these: blocks of random bits under a scale of 0.01 in the last two of 210 bytes."""
    config = config_of("llama", intermediate_size=256, num_hidden_layers=1)
    blocks = np.random.default_rng(0).integers(0, 256, (32, 210), np.uint8)
    blocks[:, -2:] = np.array([0.01], np.float16).view(np.uint8)
    tensors = to_hf_tensors(config, params_of(config))
    del tensors["model.layers.0.mlp.down_proj.weight"]
    path = write(tmp_path / "m.gguf", config, tensors, extra={"blk.0.ffn_down.weight": (blocks, Type.Q6_K)})
    kernel = load_model(path).params.layers.down_proj.kernel[0]
    np.testing.assert_array_equal(kernel, dequantize(blocks, Type.Q6_K).T)
    assert kernel.shape == (256, 32) and np.abs(kernel).max() > 0.1


def test_the_permutation_by_hand():
    """Two heads of four rows. Pairs (0, 2) and (1, 3) of a head lie side by side in the file: 0 2 1 3."""
    stored = np.array([[0], [2], [1], [3], [10], [12], [11], [13]])
    np.testing.assert_array_equal(unpermute(stored, 2).ravel(), [0, 1, 2, 3, 10, 11, 12, 13])
    np.testing.assert_array_equal(unpermute(stored.ravel(), 2), [0, 1, 2, 3, 10, 11, 12, 13])
    rows = np.random.default_rng(0).normal(size=(24, 5))
    np.testing.assert_array_equal(unpermute(permute(rows, 3), 3), rows)
    assert not np.array_equal(unpermute(rows, 3), rows)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_only_llamas_are_permuted(name, tmp_path, monkeypatch):
    """Without undoing it, a Llama is another model and a Qwen is the same."""
    config = config_of(name)
    params = params_of(config)
    path = write(tmp_path / "m.gguf", config, to_hf_tensors(config, params))
    monkeypatch.setattr(gguf_reader, "unpermute", lambda rows, heads: rows)
    same = np.array_equal(load_model(path).params.layers.q_proj.kernel[...], params.layers.q_proj.kernel[...])
    assert same == (name == "qwen2")


def test_damaged_files(tmp_path):
    config = config_of("llama")
    path = write(tmp_path / "whole.gguf", config, to_hf_tensors(config, params_of(config)))
    whole, broken = path.read_bytes(), tmp_path / "broken.gguf"
    for content in [b"", b"GG", b"\x00" * 500, b"GGUF" + b"\xff" * 500, *(whole[: int(len(whole) * f)] for f in CUTS)]:
        broken.write_bytes(content)
        with pytest.raises(ValueError, match="broken.gguf is not a GGUF file or is cut short .*download it again"):
            load_model(broken)


CUTS = (0.001, 0.003, 0.005, 0.01, 0.02, 0.5, 0.99)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count is 8"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type is 'yarn'"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4.*heads of 16"),
        ({"split.count": 3}, "split.count is 3"),
    ],
)
def test_what_is_not_computed_is_refused(metadata, words, tmp_path):
    config = config_of("llama")
    with pytest.raises(ValueError, match=words):
        load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config)), metadata=metadata))


def test_another_architecture(tmp_path):
    config = config_of("llama")
    tensors = to_hf_tensors(config, params_of(config))
    with pytest.raises(ValueError, match="of architecture 'phi3'; jaxrl computes llama, qwen2, qwen3, gemma"):
        load_model(write(tmp_path / "m.gguf", config_of("llama", model_type="phi3"), tensors))


def test_other_rope_factors(tmp_path):
    config = config_of("llama")
    extra = {"rope_freqs.weight": (np.linspace(1, 30, 8).astype(np.float32), Type.F32)}
    with pytest.raises(ValueError, match="rope_freqs.weight in .* is not Llama 3's scaling; load .* from safetensors"):
        load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config)), extra=extra))


def test_wrong_tensors_are_named(tmp_path):
    config = config_of("llama")
    tensors = to_hf_tensors(config, params_of(config))
    missing = {n: t for n, t in tensors.items() if n != "model.layers.1.mlp.gate_proj.weight"}
    with pytest.raises(ValueError, match="lacks blk.1.ffn_gate.weight"):
        load_model(write(tmp_path / "a.gguf", config, missing))
    with pytest.raises(ValueError, match="holds blk.0.attn_sinks.weight"):
        extra = {"blk.0.attn_sinks.weight": (np.ones(4, np.float32), Type.F32)}
        load_model(write(tmp_path / "b.gguf", config, tensors, extra=extra))
    with pytest.raises(ValueError, match=r"output_norm.weight .* has shape \(31,\).* calls for \(32,\)"):
        load_model(write(tmp_path / "c.gguf", config, {**tensors, "model.norm.weight": np.ones(31, np.float32)}))
