"""Adapters as PEFT keeps them: its logits, its files, and a sentence for whatever is not computed."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrl.lm import LMConfig, language_model, load_adapter, load_model, save_adapters, save_model
from jaxrl.lm.lora import attach, init_adapters, scale_of
from jaxrl.lm.pretrained.hf_config import from_hf_config
from jaxrl.lm.pretrained.weights import from_hf_tensors, is_adapter, load_tokenizer
from jaxrl.settings import replace
from tests.helpers.families import assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer
from tests.lm.test_parity import GOLDEN, digest, tensor

NAMES = ("plain", "rslora", "some_layers", "pattern")


def golden(path):
    return json.loads((GOLDEN.parent / path).read_text(encoding="utf-8"))


def write_adapter(folder, told, tensors):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(told))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module", params=NAMES)
def peft(request, tmp_path_factory):
    """What the oracle wrote of an adapter, its folder, and that of its base beside it."""
    g, place = golden(f"pretrained/golden/adapter_{request.param}.json"), tmp_path_factory.mktemp("peft")
    base = golden(f"golden/{g['base']}.json")
    config = from_hf_config(base["config"])
    params = from_hf_tensors(config, {name: tensor(name, shape) for name, shape in base["tensors"]})
    save_model(place / "base", config, params)
    tensors = {name: tensor(name, shape) for name, shape in g["tensors"]}
    assert digest(tensors) == g["sha256"]
    write_adapter(place / "adapter", {**g["config"], "base_model_name_or_path": "../base"}, tensors)
    return SimpleNamespace(golden=g, folder=place / "adapter", model=language_model(config), tensors=tensors)


def test_logits_are_those_of_peft_merged_and_attached(peft):
    tokens = np.array(peft.golden["tokens"])
    base, settings, adapters = load_adapter(peft.folder)
    for params in (load_model(peft.folder).params, attach(base.params, adapters, scale_of(settings))):
        logits = jax.jit(peft.model.apply)(params, tokens)[:, ::3]
        expected = np.array(peft.golden["logits"]).reshape(logits.shape)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_what_is_written_is_what_peft_wrote(peft, tmp_path):
    base, settings, adapters = load_adapter(peft.folder)
    save_adapters(tmp_path / "again", settings, adapters)
    told, written = (json.loads((f / "adapter_config.json").read_text()) for f in (peft.folder, tmp_path / "again"))
    tensors = load_file(tmp_path / "again" / "adapter_model.safetensors")
    for name, array in tensors.items():  # of layers without an adapter, zeros
        np.testing.assert_array_equal(array, peft.tensors.get(name, np.zeros_like(array)))
    assert set(peft.tensors) <= set(tensors)
    for name in set(written) - {"base_model_name_or_path", "target_modules", "lora_dropout"}:
        assert written[name] == told[name], name
    assert written["base_model_name_or_path"] == str(peft.folder.parent / "base")
    assert_same(load_model(tmp_path / "again").params, load_model(peft.folder).params)


# --- a model of our own


CONFIG = config_of("llama", vocab_size=259)
SETTINGS = LMConfig(lora_rank=2, lora_alpha=5.0, lora_targets=("q_proj", "down_proj"))


@pytest.fixture
def place(tmp_path):
    """A folder with `base` and `adapter`."""
    params = params_of(CONFIG)
    save_model(tmp_path / "base", CONFIG, params, byte_tokenizer())
    adapters = init_adapters(jax.random.key(0), params, 2, SETTINGS.lora_targets)
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    save_adapters(tmp_path / "adapter", replace(SETTINGS, name=str(tmp_path / "base")), adapters)
    return tmp_path


def edit(place, **changes):
    file = place / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def edit_tensors(place, change):
    file = place / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_there_and_back(place):
    base, settings, adapters = load_adapter(place / "adapter")
    assert settings == replace(SETTINGS, name=str(place / "base"))
    save_adapters(place / "again", settings, adapters)
    assert_same(load_adapter(place / "again").adapters, adapters)
    assert is_adapter(place / "adapter") and not is_adapter(place / "base")
    with pytest.raises(ValueError, match="is there already and not empty"):
        save_adapters(place / "again", settings, adapters)
    with pytest.raises(ValueError, match=r"base is no adapter: it has no adapter_config.json"):
        load_adapter(place / "base")


def test_weights_in_another_precision(place):
    wide = load_adapter(place / "adapter").adapters
    edit_tensors(place, lambda t: t.update({name: x.astype(jnp.bfloat16) for name, x in t.items()}))
    narrow = load_adapter(place / "adapter").adapters
    assert_same(narrow, jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), wide))
    merged = load_model(place / "adapter", "bfloat16").params
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


def test_the_adapters_own_tokenizer_comes_first(place):
    base = load_model(place / "base").tokenizer
    assert load_model(place / "adapter").tokenizer.chat_template == base.chat_template
    assert load_tokenizer(place / "adapter").chat_template == base.chat_template
    own = byte_tokenizer()
    own.chat_template = "{{ messages[0].content }}"
    own.save(place / "adapter")
    (place / "base" / "generation_config.json").write_text('{"eos_token_id": [257, 10]}')
    found = load_model(place / "adapter").tokenizer
    assert found.chat_template == load_tokenizer(place / "adapter").chat_template == own.chat_template
    assert found.stops == {257, 10}
    assert load_model(place / "adapter", with_tokenizer=False).tokenizer is None


def test_the_base_is_where_the_config_says_or_the_caller(place):
    moved = place / "elsewhere" / "model"
    moved.parent.mkdir()
    shutil.move(place / "base", moved)
    sentence = "is for the model .*: there is no model .*; or set base_model_name_or_path in .*adapter_config.json to"
    with pytest.raises(ValueError, match=sentence):
        load_model(place / "adapter")
    found = load_adapter(place / "adapter", base=str(moved))
    edit(place, base_model_name_or_path="../elsewhere/model")  # the remedy
    assert_same(load_adapter(place / "adapter").base.params, found.base.params)
    edit(place, base_model_name_or_path=None)
    with pytest.raises(ValueError, match="does not say for which model it was made; set base_model_name_or_path"):
        load_model(place / "adapter")
    assert_same(load_adapter(place / "adapter", base=str(moved)).adapters, found.adapters)
    edit(place, base_model_name_or_path=str(place / "adapter"))
    with pytest.raises(ValueError, match="names itself"):
        load_model(place / "adapter")


def test_a_folder_with_a_whole_model_too_is_ambiguous(place):
    shutil.copy(place / "base" / "model.safetensors", place / "adapter")
    with pytest.raises(ValueError, match=r"holds an adapter .* and a whole model; move one of them"):
        load_model(place / "adapter")


@pytest.mark.parametrize(
    "setting",
    [
        {"peft_type": "IA3"},
        {"task_type": "SEQ_CLS"},
        {"use_dora": True},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 8}},
        {"alpha_pattern": {"q_proj": 8}},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "pissa"},
        {"layers_pattern": "blocks"},
        {"layer_replication": [[0, 2], [1, 3]]},
        {"trainable_token_indices": [3]},
        {"alora_invocation_tokens": [1, 2]},
        {"of_years_to_come": 1},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_what_is_not_computed_is_refused_by_name(place, setting):
    edit(place, **setting)
    ((name, value),) = setting.items()
    with pytest.raises(ValueError) as error:
        load_model(place / "adapter")
    assert f"{name} = {value!r} in " in str(error.value) and "merge_and_unload" in str(error.value)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"r": 3}, r"q_proj.lora_A.weight .* shape \(2, 32\) .* call for floats of \(3, 32\)"),
        ({"r": "2"}, "r = '2' in .*; it must be a whole number of at least 1"),
        ({"lora_alpha": 0}, "lora_alpha = 0 in .*; it must be a number above 0"),
        ({"revision": "v2"}, "revision = 'v2' .* download that revision"),
        ({"target_modules": ["q_proj"]}, "holds .*down_proj.lora_A.weight.* does not call for"),
        ({"target_modules": ["q_proj", "down_proj", "k_proj"]}, "lacks .*0.self_attn.k_proj.lora_A.* and 2 more"),
        ({"target_modules": ["c_attn"]}, "name no projection of the model; it has"),
        ({"target_modules": "("}, r"'\(' in .* names no modules"),
        ({"layers_to_transform": [0]}, "holds .*layers.1.mlp.down_proj.lora_A.weight"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_sentences(place, setting, words):
    edit(place, **setting)
    with pytest.raises(ValueError, match=words):
        load_model(place / "adapter")


Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.clear(), "lacks .* and 8 more, which adapter_config.json calls for; save it again"),
        (lambda t: t.pop(f"{Q}.weight"), f"lacks {Q}.weight"),
        (lambda t: t.update({f"{Q}.default.weight": t.pop(f"{Q}.weight")}), f"lacks {Q}.weight"),
        (lambda t: t.update({f"{Q}.weight": np.zeros((0, 32), np.float32)}), r"has shape \(0, 32\)"),
        (lambda t: t.update({f"{Q}.weight": np.zeros((2, 32), np.int8)}), "type int8"),
        (
            lambda t: t.update({"base_model.model.model.embed_tokens.weight": np.zeros((259, 32), np.float32)}),
            "holds base_model.model.model.embed_tokens.weight, .*merge_and_unload",
        ),
        (
            lambda t: t.update({"base_model.model.lm_head.lora_A.weight": np.zeros((2, 32), np.float32)}),
            "holds base_model.model.lm_head.lora_A.weight",
        ),
        (
            lambda t: t.update({k.replace(".model.layers", ".language_model.layers"): t.pop(k) for k in list(t)}),
            "lacks .*base_model.model.model.layers.0",
        ),
    ],
)
def test_arrays_lost_renamed_or_beside_the_point_are_sentences(place, change, words):
    edit_tensors(place, change)
    with pytest.raises(ValueError, match=words):
        load_model(place / "adapter")


def test_pickled_or_cut_files_are_sentences(place):
    file = place / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match="not a safetensors file or is cut short"):
        load_model(place / "adapter")
    file.rename(file.with_name("adapter_model.bin"))
    with pytest.raises(ValueError, match="has no adapter_model.safetensors, only .bin files"):
        load_model(place / "adapter")
    edit(place, peft_type=None)
    (place / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapter_config.json"):
        load_model(place / "adapter")


def test_an_adapter_for_another_base_is_refused(place):
    other = config_of("llama", vocab_size=259, hidden_size=48)
    save_model(place / "other", other, params_of(other))
    with pytest.raises(ValueError, match=r"call for floats of \(2, 48\); was it made for another base"):
        load_adapter(place / "adapter", base=str(place / "other"))
