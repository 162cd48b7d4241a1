"""Reward models that jaxrl saves, against what AutoModelForSequenceClassification of transformers says of those folders
(scripts/oracle_lm.py rewards). As a program it writes those folders: python -m tests.lm.test_reward_parity FOLDER
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm.heads import last_scores, with_head
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.pretrained.safetensors_folder import SafeTensors
from jaxrl.lm.pretrained.weights import from_hf_tensors, load_model, save_model, to_hf_tensors
from jaxrl.lm.transformer import language_model
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import bare, byte_tokenizer
from tests.lm.test_parity import digest, golden, padded, tensor

NAMES = ("gemma", "llama", "mistral", "qwen2", "qwen3", "smollm2")


def write(folder, name):
    """A small reward model with the oracle's weights, saved as `jaxrl finetune reward` saves it. Its tokenizer ends and
    pads with the same token."""
    config = config_of(name, vocab_size=259, num_hidden_layers=2)
    shapes = {key: x.shape for key, x in to_hf_tensors(config, params_of(config)).items()}
    params = from_hf_tensors(config, {key: tensor(key, shape) for key, shape in shapes.items()})
    head = jnp.asarray(tensor("score.weight", (1, config.hidden_size))).T
    save_model(folder / name, config, with_head(params, head), byte_tokenizer())


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards")
    write(folder, request.param)
    found = golden("rewards")
    return folder / request.param, next(c for c in found["cases"] if c["name"] == request.param), found["texts"]


def test_the_folder_is_the_one_that_transformers_read(case):
    folder, told, _ = case
    tensors = SafeTensors(folder)
    assert digest({name: np.asarray(tensors[name]) for name in tensors}) == told["sha256"]
    assert json.loads((folder / "config.json").read_text()) == told["config"]
    assert json.loads((folder / "tokenizer_config.json").read_text()) == told["tokenizer"]


def test_where_every_token_is_of_texts_or_ends_them_one_is_added_to_pad_with(tmp_path):
    """A token that texts are made of would become special by it: "!!" of a text would be other ids in the folder."""
    spoken = bare(["ah!! so!! no! yes!!"] * 3, 300)
    config = config_of("llama", vocab_size=spoken.vocab_size, num_hidden_layers=2)
    params = with_head(params_of(config), jnp.ones((config.hidden_size, 1)))
    save_model(tmp_path / "reward", config, params, spoken)
    found = load_model(tmp_path / "reward", score=True)
    texts = ["ah!! so!", "!!!", "yes<|end|>"]
    assert [found.tokenizer.encode(text) for text in texts] == [spoken.encode(text) for text in texts]
    assert found.tokenizer.pad == spoken.vocab_size == found.config.vocab_size - 1
    assert json.loads((tmp_path / "reward" / "config.json").read_text())["pad_token_id"] == spoken.vocab_size
    assert found.tokenizer.same_ids(spoken) and spoken.same_ids(found.tokenizer)
    assert not spoken.same_ids(bare(["other words"] * 3, 300))
    np.testing.assert_array_equal(found.params.embed[:-1], params.embed[...])


def test_scores_of_padded_batches_are_those_of_transformers(case):
    folder, told, texts = case
    found = load_model(folder, score=True)
    assert [found.tokenizer.encode(text) for text in texts] == told["ids"]
    tokens, length = padded(told["ids"])
    score = jax.jit(lambda params, rows: last_scores(model, params, params.score.kernel[...], rows))
    model = language_model(found.config)
    for wider in (0, 7):
        rows = TokenRows(jnp.asarray(np.pad(tokens, ((0, 0), (0, wider)))), jnp.ones_like(length), jnp.asarray(length))
        np.testing.assert_allclose(score(found.params, rows), told["scores"], rtol=0, atol=1e-4)


if __name__ == "__main__":
    for each in NAMES:
        write(Path(sys.argv[1]), each)
