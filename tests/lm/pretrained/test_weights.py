"""Weights to disk and back, bit for bit; and what a damaged or strange folder is told."""

import json
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrl.lm.pretrained import assets, weights
from jaxrl.lm.pretrained.weights import from_hf_tensors, load_model, save_model, to_hf_tensors
from jaxrl.lm.transformer import language_model
from tests.helpers.families import FAMILIES, assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer


@pytest.fixture
def saved(tmp_path):
    """A folder with a small Llama, its config and its parameters."""
    config = config_of("llama")
    params = params_of(config)
    save_model(tmp_path / "model", config, params)
    return tmp_path / "model", config, params


def rewrite(folder, change):
    """Change the dictionary of arrays in a folder's file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("shard_bytes", [5e9, 20_000])
@pytest.mark.parametrize("name", FAMILIES)
def test_save_and_load(name, shard_bytes, tmp_path):
    config = config_of(name)
    params = params_of(config)
    save_model(tmp_path / "model", config, params, max_shard_bytes=shard_bytes)
    found = load_model(tmp_path / "model")
    assert found.config == config and found.tokenizer is None
    assert_same(found.params, params)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    files = list((tmp_path / "model").glob("*.safetensors"))
    assert len(files) == 1 if shard_bytes == 5e9 else len(files) > 3


def test_what_the_files_hold():
    """Matrices are [out, in] and contiguous, one a layer: 9 arrays in each of 3 layers, and 3 beside them."""
    config = config_of("llama")
    params = params_of(config)
    tensors = to_hf_tensors(config, params)
    assert tensors["model.layers.2.mlp.down_proj.weight"].shape == (32, 64)
    np.testing.assert_array_equal(tensors["model.layers.2.mlp.down_proj.weight"], params.layers.down_proj.kernel[2].T)
    np.testing.assert_array_equal(tensors["lm_head.weight"], params.head.kernel[...].T)
    assert all(t.flags.c_contiguous for t in tensors.values())
    assert len(tensors) == 3 + 9 * 3


def test_gemmas_norms_are_stored_less_one():
    config = config_of("gemma")
    params = params_of(config)
    tensors = to_hf_tensors(config, params)
    np.testing.assert_array_equal(tensors["model.norm.weight"], np.asarray(params.norm.weight[...]) - 1)
    found = from_hf_tensors(config, {**tensors, "model.norm.weight": np.zeros(32, np.float16)})
    np.testing.assert_array_equal(found.norm.weight[...], np.ones(32))


def test_shards_obey_their_limit_and_the_index(tmp_path):
    config = config_of("llama")
    save_model(tmp_path / "model", config, params_of(config), max_shard_bytes=20_000)
    index = json.loads((tmp_path / "model" / "model.safetensors.index.json").read_text())
    homes = {}
    for file in (tmp_path / "model").glob("*.safetensors"):
        tensors = load_file(file)
        assert sum(t.nbytes for t in tensors.values()) <= 20_000
        homes |= dict.fromkeys(tensors, file.name)
    assert homes == index["weight_map"]
    assert index["metadata"]["total_size"] == 4 * sum(x.size for x in jax.tree.leaves(params_of(config)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types(dtype, tmp_path):
    config = config_of("qwen2")
    narrow = jax.tree.map(lambda x: x.astype(dtype), params_of(config))
    save_model(tmp_path / "model", config, params_of(config), dtype=dtype)
    assert load_file(tmp_path / "model" / "model.safetensors")["model.norm.weight"].dtype == jnp.dtype(dtype)
    assert_same(load_model(tmp_path / "model", dtype).params, narrow)
    assert_same(load_model(tmp_path / "model").params, jax.tree.map(lambda x: x.astype("float32"), narrow))


def test_unknown_types(saved):
    with pytest.raises(ValueError, match="'int8' is not one of float32, bfloat16, float16"):
        load_model(saved[0], "int8")
    with pytest.raises(ValueError, match="'int8' is not one of"):
        to_hf_tensors(saved[1], saved[2], dtype="int8")


def test_a_tied_head_in_the_file(tmp_path):
    config = config_of("smollm2")
    tensors = to_hf_tensors(config, params_of(config))
    embed = tensors["model.embed_tokens.weight"]
    assert_same(from_hf_tensors(config, {**tensors, "lm_head.weight": embed.copy()}), params_of(config))
    under_the_other = {**tensors, "lm_head.weight": embed}
    del under_the_other["model.embed_tokens.weight"]
    assert_same(from_hf_tensors(config, under_the_other), params_of(config))
    with pytest.raises(ValueError, match="lm_head.weight .* differs from model.embed_tokens.weight.*tie_word_embed"):
        from_hf_tensors(config, {**tensors, "lm_head.weight": embed + 1})


def test_what_generation_needs_survives(tmp_path):
    config = config_of("llama", vocab_size=300)
    save_model(tmp_path / "a", config, params_of(config), byte_tokenizer())
    theirs = {"temperature": 0.6, "top_p": 0.95, "bos_token_id": 5, "eos_token_id": [7, 257]}
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps(theirs))
    first = load_model(tmp_path / "a")
    assert first.generation == theirs
    save_model(tmp_path / "b", *first)
    written = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    ours = {"bos_token_id": 256, "eos_token_id": [257, 7], "pad_token_id": 257}  # of the tokenizer, stops among them
    assert written == {"temperature": 0.6, "top_p": 0.95, **ours}
    assert load_model(tmp_path / "b").tokenizer.stops == {257, 7}
    save_model(tmp_path / "c", config, first.params, None, theirs)
    assert load_model(tmp_path / "c").generation == theirs


def test_rotary_buffers_are_ignored():
    config = config_of("llama")
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(3)}
    assert_same(from_hf_tensors(config, {**to_hf_tensors(config, params_of(config)), **buffers}), params_of(config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj.weight,"),
        (lambda t: t.pop("lm_head.weight"), "lacks lm_head.weight.*tie_word_embeddings to true"),
        (
            lambda t: [t.update({f"_orig_mod.{name}": t.pop(name)}) for name in list(t)],
            "lacks .*; its names begin with '_orig_mod.': save the model inside that",
        ),
        (
            lambda t: [t.update({name.removeprefix("model."): t.pop(name)}) for name in list(t)],
            "lacks .*; it is a model without its head: take the one that generates text",
        ),
        (lambda t: t.clear() or t.update(x=np.ones(1, np.float32)), r"lacks lm_head.weight, .* and 22 more"),
        (lambda t: t.update({"extra.weight": np.ones((1, 32), np.float32)}), "holds extra.weight, for which a llama"),
        (
            lambda t: t.update({"model.norm.weight": np.ones(31, np.float32)}),
            r"model.norm.weight in .*model has shape \(31,\), but its config calls for \(32,\)",
        ),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"].T.copy()}), r"\(32, 96\).* calls for \(96, 32\)"),
        (lambda t: t.update({"model.norm.weight": np.ones(32, np.int8)}), "model.norm.weight in .* is int8"),
    ],
)
def test_wrong_tensors_are_named(saved, change, words):
    rewrite(saved[0], change)
    with pytest.raises(ValueError, match=words):
        load_model(saved[0])


def test_damaged_folders(saved, tmp_path):
    folder = saved[0]
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="is not a safetensors file or is cut short .*download it again"):
        load_model(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="has no model.safetensors, only .bin files"):
        load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_model(folder)
    with pytest.raises(ValueError, match="there is no .*config.json"):
        load_model(tmp_path)


def test_an_index_names_files_of_its_own_folder(saved):
    (saved[0] / "model.safetensors").rename(saved[0].parent / "other.safetensors")
    index = saved[0] / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../other.safetensors"}}))
    with pytest.raises(ValueError, match="names files outside its folder"):
        load_model(saved[0])
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ValueError, match="has no model-00001-of-00002.safetensors"):
        load_model(saved[0])


def test_names_that_lead_nowhere(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no model 'smollm2'; give one of smollm2-135m, .*did you mean 'smollm2-135m'"):
        load_model("smollm2")
    with pytest.raises(ValueError, match="there is no file nowhere.gguf"):
        load_model("nowhere.gguf")
    monkeypatch.setattr(assets, "path", lambda name: tmp_path / name)
    with pytest.raises(ValueError, match="'reviews' is not a model"):
        load_model("reviews")


def test_the_hub(saved, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(saved[0])

    monkeypatch.setattr(weights, "package", lambda *_: types.SimpleNamespace(snapshot_download=snapshot_download))
    assert weights._resolve("organisation/name-1.5B") == saved[0]
    assert asked[0][0] == "organisation/name-1.5B" and not any(p.endswith(".bin") for p in asked[0][1])


def test_the_hub_without_a_network(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise OSError("Name or service not known\nand a long story")

    monkeypatch.setattr(weights, "package", lambda *_: types.SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(ValueError, match=r"no folder 'a/b' here, and the hub gave no such model \(Name or .*known\);"):
        load_model("a/b")


def test_a_folder_in_use_is_not_overwritten(saved):
    folder, config, params = saved
    with pytest.raises(ValueError, match="is there already and not empty; name a new folder"):
        save_model(folder, config, params)
    (folder.parent / "empty").mkdir()
    save_model(folder.parent / "empty", config, params)
    assert_same(load_model(folder.parent / "empty").params, params)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr(weights, "write_json", fail)
    with pytest.raises(OSError, match="no space left"):
        save_model(tmp_path / "model", config_of("llama"), params_of(config_of("llama")))
    assert not list(tmp_path.iterdir())


def test_adapters_are_to_be_merged_first(tmp_path):
    config = config_of("llama")
    params = params_of(config)
    rank = {"lora_a": jnp.ones((3, 32, 4)), "lora_b": jnp.ones((3, 4, 64))}
    for name, value in rank.items():
        setattr(params.layers.q_proj, name, type(params.embed)(value))
    with pytest.raises(ValueError, match="low-rank adapter.*merge it first"):
        save_model(tmp_path / "model", config, params)
    assert not list(tmp_path.iterdir())


def test_params_of_another_config():
    with pytest.raises(ValueError, match="not of this config.*embed"):
        to_hf_tensors(config_of("llama"), params_of(config_of("llama", vocab_size=97)))


@pytest.fixture(scope="module")
def smollm2():
    try:
        assets.path("smollm2-135m")
    except ValueError as error:
        pytest.skip(str(error))
    return load_model("smollm2-135m")


def test_smollm2(smollm2):
    config, params, tokenizer, _ = smollm2
    assert sum(x.size for x in jax.tree.leaves(params)) == 134_515_008
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.vocab_size)
    assert sizes == (30, 576, 1536, 49_152)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (9, 3, 64)
    assert (config.rms_norm_eps, config.rope_theta, config.max_position_embeddings) == (1e-5, 100_000.0, 8192)
    assert config.tie_word_embeddings and params.head is None and config.model_type == "llama"
    tokens = jnp.array([tokenizer.encode("The capital of France is")])
    logits = jax.jit(language_model(config).apply)(params, tokens)[0, -1]
    assert tokenizer.decode([int(logits.argmax())]) == " Paris"


def test_smollm2_saved_with_its_tokenizer(smollm2, tmp_path):
    """A small model under a real tokenizer: its ids reach config.json and generation_config.json."""
    config = config_of("llama", vocab_size=49_152)
    save_model(tmp_path / "model", config, params_of(config), smollm2.tokenizer)
    found = load_model(tmp_path / "model")
    assert found.tokenizer.fingerprint() == smollm2.tokenizer.fingerprint()
    for file in ("config.json", "generation_config.json"):
        written = json.loads((tmp_path / "model" / file).read_text())
        assert [written[f"{k}_token_id"] for k in ("bos", "eos", "pad")] == [1, 2, 2]
    assert load_model(tmp_path / "model", with_tokenizer=False).tokenizer is None


def test_a_saved_folder_can_be_read_by_whom_the_umask_lets(tmp_path):
    config = config_of("llama", vocab_size=259, num_hidden_layers=1)
    before = os.umask(0o027)
    try:
        save_model(tmp_path / "model", config, params_of(config), byte_tokenizer())
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()} == {0o640}


def test_a_runs_directory_in_the_place_of_its_model_is_told_apart(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match=f"there is no .*config.json; a run keeps its model in {tmp_path / 'model'}"):
        load_model(tmp_path)
