"""The decoder against torch and transformers: logits and greedy text that scripts/oracle_lm.py wrote to golden/."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm.pretrained import assets
from jaxrl.lm.pretrained.hf_config import from_hf_config, to_hf_config
from jaxrl.lm.pretrained.weights import from_hf_tensors, load_model, to_hf_tensors
from jaxrl.lm.sampling import generate
from jaxrl.lm.transformer import language_model

pytestmark = pytest.mark.computes
GOLDEN = Path(__file__).parent / "golden"
TINY = ("llama", "llama3", "smollm", "mistral", "qwen2", "qwen3", "gemma")


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def tensor(name, shape):
    """The weights of a tiny model by recipe pcg64-uniform-v1: the oracle's docstring describes it."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape))).reshape(shape)
    unit = np.sqrt(3.0) * ((raw >> np.uint64(11)) * 2.0**-52 - 1.0)
    if name.endswith("norm.weight"):
        return (1.0 + 0.1 * unit).astype(np.float32)
    scale = 0.5 if name.endswith(".bias") else 1.0 / np.sqrt(shape[-1])
    return (scale * unit).astype(np.float32)


def digest(tensors):
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + np.ascontiguousarray(tensors[name], "<f4").tobytes())
    return total.hexdigest()


def padded(rows):
    """Right-padded with zeros, and the lengths."""
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max()), np.int32)
    for place, row in zip(tokens, rows, strict=True):
        place[: len(row)] = row
    return tokens, lengths


def greedy(model, params, prompts, new):
    """The `new` likeliest tokens after each prompt, all prompts in one padded batch."""
    tokens, lengths = padded(prompts)
    keys = jax.random.split(jax.random.key(0), len(prompts))
    out = np.asarray(generate(model, params, tokens, lengths, keys, max_new_tokens=new, temperature=0.0).tokens)
    return [row[n : n + new].tolist() for row, n in zip(out, lengths, strict=True)]


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
    g = golden(request.param)
    tensors = {name: tensor(name, shape) for name, shape in g["tensors"]}
    config = from_hf_config(g["config"])
    params = from_hf_tensors(config, tensors)
    return SimpleNamespace(golden=g, tensors=tensors, config=config, model=language_model(config), params=params)


def test_the_weights_are_those_that_the_oracle_used(tiny):
    assert tiny.golden["recipe"] == "pcg64-uniform-v1"
    assert digest(tiny.tensors) == tiny.golden["sha256"]


def test_published_spelling_of_the_config_means_the_same(tiny):
    assert from_hf_config(tiny.golden["hub_config"]) == tiny.config


def test_parameters_go_back_to_the_same_tensors(tiny):
    back = to_hf_tensors(tiny.config, tiny.params)
    assert sorted(back) == sorted(tiny.tensors)
    for name, array in tiny.tensors.items():
        atol = 2e-7 if tiny.config.model_type == "gemma" and name.endswith("norm.weight") else 0.0
        np.testing.assert_allclose(back[name], array, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("remat", [False, True])
def test_tiny_logits(tiny, remat):
    tokens = jnp.asarray(tiny.golden["tokens"])
    logits = jax.jit(language_model(tiny.config, remat=remat).apply)(tiny.params, tokens)
    np.testing.assert_allclose(logits.reshape(tokens.size, -1), tiny.golden["logits"], rtol=0, atol=1e-4)


def test_tiny_logits_in_pieces(tiny):
    """`hidden` and `unembed` give what `apply` gives, also at chosen positions and with padding on the right."""
    tokens = np.pad(tiny.golden["tokens"], ((0, 0), (0, 5)))
    hidden = jax.jit(tiny.model.hidden)(tiny.params, tokens)
    rows, places = np.array([0, 1, 1]), np.array([23, 4, 17])
    expected = np.asarray(tiny.golden["logits"]).reshape(2, 24, -1)[rows, places]
    np.testing.assert_allclose(tiny.model.unembed(tiny.params, hidden[rows, places]), expected, rtol=0, atol=1e-4)


def test_tiny_greedy(tiny):
    """Prompts of unequal length in one batch, each of which transformers continued alone."""
    assert greedy(tiny.model, tiny.params, tiny.golden["greedy_prompts"], 16) == tiny.golden["greedy"]


ROPE = golden("rope")["cases"]


@pytest.fixture(scope="module", params=ROPE, ids=lambda case: case["what"])
def scaled(request):
    g = request.param
    config = from_hf_config(g["config"])
    params = from_hf_tensors(config, {name: tensor(name, shape) for name, shape in g["tensors"]})
    return SimpleNamespace(golden=g, config=config, model=language_model(config), params=params)


def test_scaled_rotations(scaled):
    """Rows of 60 tokens, of models whose first context was 16 tokens, dynamic NTK's 64."""
    logits = jax.jit(scaled.model.apply)(scaled.params, jnp.asarray([scaled.golden["tokens"]]))[0]
    np.testing.assert_allclose(logits[jnp.array(scaled.golden["places"])], scaled.golden["logits"], rtol=0, atol=1e-4)


def test_scaled_rotations_with_a_cache(scaled):
    prompt = scaled.golden["tokens"][: scaled.golden["prompt_length"]]
    assert greedy(scaled.model, scaled.params, [prompt, prompt[:3]], 16)[0] == scaled.golden["greedy"]


def test_scalings_survive_both_spellings_and_a_save(scaled):
    assert from_hf_config(scaled.golden["hub_config"]) == scaled.config
    assert from_hf_config(to_hf_config(scaled.config)) == scaled.config


@pytest.fixture(scope="module")
def smollm():
    try:
        path = assets.path("smollm2-135m")
    except ValueError as error:
        pytest.skip(f"SmolLM2 is not at hand: {error}")
    loaded = load_model(path, with_tokenizer=False)
    return SimpleNamespace(golden=golden("smollm2"), model=language_model(loaded.config), params=loaded.params)


def signs(vocab):
    """A vector of ±1/√V, whose product with the logits depends on every one of them."""
    raw = np.random.PCG64(0).random_raw(vocab)
    return (2.0 * (raw >> np.uint64(63)) - 1.0) / np.sqrt(vocab)


def fingerprint(logits, ids, columns):
    """What the oracle keeps of the logits [L, V] of a text."""
    best = logits.max(-1)
    total = best + np.log(np.exp(logits - best[:, None]).sum(-1))
    return {
        "logits": logits[:, columns],
        "signed": logits @ signs(logits.shape[-1]),
        "logsumexp": total,
        "next": logits[np.arange(len(ids) - 1), ids[1:]] - total[:-1],
        "max": best,
    }


def hidden_states(smollm, texts):
    """The last hidden states of each text, texts of about the same length in one batch."""
    hidden, found = jax.jit(smollm.model.hidden), {}
    for long in (False, True):
        chosen = [i for i, text in enumerate(texts) if (len(text["ids"]) > 64) == long]
        out = hidden(smollm.params, padded([texts[i]["ids"] for i in chosen])[0])
        found |= {i: row[: len(texts[i]["ids"])] for i, row in zip(chosen, out, strict=True)}
    return [found[i] for i in range(len(texts))]


def test_smollm_logits(smollm):
    texts = smollm.golden["texts"]
    assert len(texts) == 20
    for text, hidden in zip(texts, hidden_states(smollm, texts), strict=True):
        logits = np.asarray(smollm.model.unembed(smollm.params, hidden), np.float64)
        found = fingerprint(logits, text["ids"], text["columns"])
        for what, values in found.items():
            np.testing.assert_allclose(values, text[what], rtol=0, atol=2e-4, err_msg=f"{what} of {text['text']!r}")
        # the likeliest token, or one that the same tolerance cannot tell from it
        chosen = logits[np.arange(len(logits)), text["argmax"]]
        np.testing.assert_allclose(chosen, found["max"], rtol=0, atol=4e-4)


def test_smollm_greedy(smollm):
    """Ten prompts in one padded batch; the oracle goes on past the end of the text, and so does this."""
    records = smollm.golden["greedy"]
    assert [len(record["tokens"]) for record in records] == [64] * 10
    found = greedy(smollm.model, smollm.params, [record["ids"] for record in records], 64)
    for record, tokens in zip(records, found, strict=True):
        assert tokens == record["tokens"], record["text"]
