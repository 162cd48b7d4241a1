"""Ids against the model: held to its embedding and its context, or the embedding grown."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm import language_model, load_model, save_model
from jaxrl.lm.vocabulary import check_ids, check_tokenizer, grow
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer


def test_ids_and_rows_that_the_model_has_no_place_for():
    model = config_of("llama", vocab_size=100, max_position_embeddings=4)
    check_ids([0, 99, 1, 2], model, "row 1")
    with pytest.raises(ValueError, match="row 7 has token 100, but the model's vocabulary has 100; .*grow_vocabulary"):
        check_ids([0, 100], model, "row 7")
    with pytest.raises(ValueError, match="row 7 has 5 tokens, but the model's context is 4; set data.max_length = 4"):
        check_ids(np.arange(5), model, "row 7")


def test_tokens_that_end_texts_are_in_the_vocabulary():
    check_tokenizer(byte_tokenizer(), config_of("llama", vocab_size=258))
    with pytest.raises(ValueError, match="the tokenizer's EOS is 257, but the model's vocabulary has 257"):
        check_tokenizer(byte_tokenizer(), config_of("llama", vocab_size=257))


@pytest.mark.parametrize("family", ["llama", "smollm2"])
def test_a_grown_model_says_what_it_said_and_more(family, tmp_path):
    config = config_of(family, vocab_size=96)
    params = params_of(config)
    grown = grow(config, params, 100)
    assert grown.config.vocab_size == 100 and params.embed.shape == (96, 32)
    np.testing.assert_allclose(grown.params.embed[96:], jnp.mean(params.embed[...], 0)[None].repeat(4, 0), rtol=1e-6)
    tokens = jnp.arange(12)[None] * 7
    before, after = (language_model(c).apply(p, tokens) for c, p in ((config, params), grown))
    np.testing.assert_allclose(after[..., :96], before, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(after[..., 96:], before.mean(-1, keepdims=True).repeat(4, -1), rtol=1e-3, atol=1e-4)
    save_model(tmp_path / "grown", *grown)
    assert load_model(tmp_path / "grown").config.vocab_size == 100
    assert grow(config, params, 96) == (config, params)
