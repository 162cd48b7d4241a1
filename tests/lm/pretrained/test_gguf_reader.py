"""GGUF files written here as llama.cpp's converter writes them, and read back."""

import dataclasses
import math

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

from jaxrl.lm.pretrained import gguf_reader
from jaxrl.lm.pretrained.gguf_reader import unpermute
from jaxrl.lm.pretrained.tensors import GGUF, HF
from jaxrl.lm.pretrained.weights import from_hf_tensors, load_model, load_tokenizer, save_model, to_hf_tensors
from jaxrl.lm.rope import LinearScaling, YarnScaling
from tests.helpers.families import assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer


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
        adders = {str: writer.add_string, float: writer.add_float32, bool: writer.add_bool, list: writer.add_array}
        adders.get(type(value), writer.add_uint32)(name, value)
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


ROPE = "llama.rope.scaling."
YARN = {ROPE + "type": "yarn", ROPE + "factor": 4.0, ROPE + "original_context_length": 32}


@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({ROPE + "type": "linear", ROPE + "factor": 4.0}, LinearScaling(4.0)),
        ({ROPE + "factor": 4.0}, LinearScaling(4.0)),
        ({"llama.rope.scale_linear": 4.0}, LinearScaling(4.0)),
        ({ROPE + "type": "linear", ROPE + "factor": 1.0}, None),
        ({ROPE + "type": "none", ROPE + "factor": 4.0}, None),
        (YARN, YarnScaling(4.0, 32)),
        ({ROPE + "type": "yarn", ROPE + "factor": 4.0}, YarnScaling(4.0, 128)),
        ({**YARN, ROPE + "attn_factor": 0.5}, YarnScaling(4.0, 32, 0.5 * (0.1 * math.log(4) + 1))),
        ({**YARN, ROPE + "yarn_beta_fast": 16.0, ROPE + "finetuned": True}, YarnScaling(4.0, 32, beta_fast=16.0)),
    ],
)
def test_rope_scaling(keys, scaling, tmp_path):
    """llama.cpp's meaning: a factor is linear unless the type says otherwise, attn_factor multiplies YaRN's own."""
    config = config_of("llama")
    path = write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config)), metadata=keys)
    assert load_model(path).config == dataclasses.replace(config, rope_scaling=scaling)


def test_keys_that_change_nothing(tmp_path):
    config = config_of("llama")
    keys = {
        "general.type": "model",
        "general.file_type": 1,
        "general.sampling.temp": 0.7,
        "quantize.imatrix.file": "i.dat",
        "somebody.note": [1.5, 2.5],
        "somebody.loss": math.nan,
        "split.count": 0,
        "llama.vocab_size": 96,
        "llama.attention.causal": True,
        "llama.attention.scale": 0.25,  # 1/√16, the usual one
        "llama.logit_scale": 1.0,
        "llama.expert_count": 0,
        "llama.attention.sliding_window": 128,  # as wide as the context
        "llama.tensor_data_layout": "Meta AI original pth",
    }
    tensors = to_hf_tensors(config, params_of(config))
    assert load_model(write(tmp_path / "m.gguf", config, tensors, metadata=keys)).config == config


def test_a_llama_with_biases_is_a_qwen2(tmp_path):
    """The same decoder; among safetensors only the name of Qwen2 has a place for them."""
    config = config_of("llama", qkv_bias=True)
    params = params_of(config)
    found = load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params)))
    assert found.config == dataclasses.replace(config, model_type="qwen2")
    assert_same(found.params, params)
    save_model(tmp_path / "saved", found.config, found.params)
    assert load_model(tmp_path / "saved").config == found.config


def test_the_tokenizer_beside_a_file_and_a_folder_of_one_file(tmp_path):
    config = config_of("llama", vocab_size=300)
    tensors = to_hf_tensors(config, params_of(config))
    path = write(tmp_path / "m.gguf", config, tensors, metadata={"tokenizer.ggml.tokens": ["a"]})
    with pytest.raises(ValueError, match="tokenizer.ggml.model = None .* put .* beside the file; or .* with_tokenizer"):
        load_model(path)
    byte_tokenizer().save(tmp_path)  # the remedy
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.7}')
    for given in (path, tmp_path):
        found = load_model(given)
        assert found.tokenizer.fingerprint() == load_tokenizer(given).fingerprint() == byte_tokenizer().fingerprint()
        assert found.generation == {"temperature": 0.7}
    path.with_name("n.gguf").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="holds m.gguf, n.gguf; give the path of the one"):
        load_model(tmp_path)


def test_what_could_not_be_saved_is_not_loaded(tmp_path):
    config = config_of("qwen3", qkv_bias=True)
    with pytest.raises(ValueError, match="m.gguf holds could not be saved after training: a qwen3 model cannot have"):
        load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config))))


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.embed_tokens.weight"])
def test_tied_weights_under_either_name(lost, tmp_path):
    config = config_of("llama")
    tensors = to_hf_tensors(config, params_of(config))
    kept = tensors["lm_head.weight" if lost != "lm_head.weight" else "model.embed_tokens.weight"]
    found = load_model(write(tmp_path / "m.gguf", config, {n: t for n, t in tensors.items() if n != lost}))
    assert found.config == config_of("smollm2")
    np.testing.assert_array_equal(found.params.embed[...], kept)


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


KINDS = list(gguf.quants._type_traits)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_block(kind, tmp_path):
    """Random bits: any block is one of numbers. Most of these gguf only reads, the K-quants among them."""
    config = config_of("llama", intermediate_size=256, num_hidden_layers=1)
    size = 256 * gguf.GGML_QUANT_SIZES[kind][1] // gguf.GGML_QUANT_SIZES[kind][0]
    blocks = np.random.default_rng(0).integers(0, 60, (32, size), np.uint8)  # no scale of them is infinite
    tensors = to_hf_tensors(config, params_of(config))
    del tensors["model.layers.0.mlp.down_proj.weight"]
    path = write(tmp_path / "m.gguf", config, tensors, extra={"blk.0.ffn_down.weight": (blocks, kind)})
    kernel = load_model(path).params.layers.down_proj.kernel[0]
    np.testing.assert_array_equal(kernel, dequantize(blocks, kind).T)
    assert kernel.shape == (256, 32) and np.isfinite(kernel).all() and np.ptp(kernel) > 0


def test_kinds_that_cannot_be_read_are_named(tmp_path):
    config = config_of("llama", num_hidden_layers=1)
    tensors = to_hf_tensors(config, params_of(config))
    del tensors["model.norm.weight"]
    extra = {"output_norm.weight": (np.ones(32, np.float64), Type.F64)}
    path = write(tmp_path / "m.gguf", config, tensors, extra=extra)
    with pytest.raises(ValueError, match="output_norm.weight in .* is F64, which gguf cannot read; .*llama-quantize"):
        load_model(path)
    # a type of tomorrow: the number after the name, the count of dimensions and the dimension
    content, name = bytearray(path.read_bytes()), b"output_norm.weight"
    place = content.index(name) + len(name) + 4 + 8
    content[place : place + 4] = (250).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="of a type that the installed gguf does not know .*250.*upgrade gguf"):
        load_model(path)


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
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type is 'longrope'.*none, linear and yarn"),
        ({"llama.rope.scaling.attn_factor": 0.5}, "llama.rope.scaling.attn_factor is 0.5 .* without yarn"),
        ({**YARN, ROPE + "yarn_ext_factor": 0.5}, "yarn_ext_factor is 0.5"),
        ({**YARN, ROPE + "yarn_log_multiplier": 0.1}, "yarn_log_multiplier is 0.1"),
        (
            {"llama.attention.scale": 0.0078125},
            "llama.attention.scale is 0.0078125.*from safetensors.*--remove-metadata",
        ),
        ({"llama.embedding_scale": 12.0}, "llama.embedding_scale is 12.0"),
        ({"llama.residual_scale": 0.22}, "llama.residual_scale is 0.22"),
        ({"llama.logit_scale": 8.0}, "llama.logit_scale is 8.0"),
        ({"llama.attn_logit_softcapping": 50.0}, "llama.attn_logit_softcapping is 50.0"),
        ({"llama.final_logit_softcapping": 30.0}, "llama.final_logit_softcapping is 30.0"),
        ({"llama.attention.clamp_kqv": 8.0}, "llama.attention.clamp_kqv is 8.0"),
        ({"llama.attention.max_alibi_bias": 8.0}, "llama.attention.max_alibi_bias is 8.0"),
        ({"llama.attention.causal": False}, "llama.attention.causal is False"),
        ({"llama.attention.temperature_scale": 0.1}, "llama.attention.temperature_scale is 0.1"),
        ({"llama.attention.layer_norm_epsilon": 1e-5}, "llama.attention.layer_norm_epsilon is 1e-05"),
        ({"llama.attention.sliding_window_pattern": 2}, "llama.attention.sliding_window_pattern is 2"),
        ({"llama.use_parallel_residual": True}, "llama.use_parallel_residual is True"),
        ({"llama.rope.dimension_sections": [2, 3, 3, 0]}, "llama.rope.dimension_sections is"),
        ({"llama.rope.freq_base_swa": 1e4}, "llama.rope.freq_base_swa is 10000.0"),
        ({"llama.something_new": 2}, "llama.something_new is 2"),
        ({"general.type": "adapter"}, "general.type is 'adapter'"),
        ({"adapter.lora.alpha": 16.0}, "adapter.lora.alpha is 16.0"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count is 4.*heads of 16"),
        ({"split.count": 3}, "split.count is 3.*llama-gguf-split --merge"),
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


def test_a_norm_without_its_epsilon(tmp_path, monkeypatch):
    config = config_of("llama")
    monkeypatch.setattr(gguf.GGUFWriter, "add_layer_norm_rms_eps", lambda *_: None)
    with pytest.raises(ValueError, match="lacks llama.attention.layer_norm_rms_epsilon"):
        load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config))))


def test_windows_that_only_the_config_can_explain(tmp_path):
    config = config_of("qwen2", sliding_window=7)
    with pytest.raises(ValueError, match="qwen2.attention.sliding_window is 7 .*from safetensors"):
        load_model(write(tmp_path / "m.gguf", config, to_hf_tensors(config, params_of(config))))
