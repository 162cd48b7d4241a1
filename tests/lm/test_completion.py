"""Text in, text out: prompts that cannot be gone on with."""

import jax
import numpy as np
import pytest

from jaxrl.lm import Generation, complete, language_model
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer, prepending_tokenizer


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([], "there are no prompts; give each a text to go on from"),
        (["a", ""], "prompt 2 is empty, and the tokenizer adds no BOS to it"),
        (["a" * 200], "a prompt of 200 tokens and max_new_tokens = 3 exceed the model's context of 128"),
    ],
)
def test_prompts_that_nothing_can_follow(prompts, message):
    config = config_of("llama", vocab_size=259)
    with pytest.raises(ValueError, match=message):
        complete(
            language_model(config), params_of(config), byte_tokenizer(), prompts, jax.random.key(0), max_new_tokens=3
        )


def test_a_space_that_a_completion_begins_with_is_kept(monkeypatch):
    tokenizer = prepending_tokenizer()

    def says(model, params, tokens, length, keys, **options):
        ids = np.array([*tokens[0], *tokenizer.encode_inside(" ab")])
        return Generation(ids[None], length, length + 3, np.zeros((1, len(ids))), np.ones(1, bool))

    monkeypatch.setattr("jaxrl.lm.completion.generate", says)
    assert complete(None, None, tokenizer, ["ab"], jax.random.key(0), max_new_tokens=3) == [" ab"]
