# needs: lm
"""Small language models made here, for experiments that two cores finish in minutes: a tokenizer learned from texts and
a Llama that knows nothing yet, in a folder as `LMConfig.name` takes it.
"""

from collections.abc import Iterable
from pathlib import Path

import jax

from jaxrl.lm import language_model, save_model
from jaxrl.lm.extras import package
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import ModelConfig

END = "<|end|>"


def new_model(
    folder: Path,
    texts: Iterable[str],
    *,
    vocab_size: int = 2048,
    hidden_size: int = 128,
    layers: int = 4,
    seed: int = 0,
) -> Path:
    """The folder of a model with fresh weights and a byte-level BPE of `texts`; made if it is not there.

    vocab_size: 257 is bytes alone, and an end. Context: 128 tokens. hidden_size: a multiple of 32, the width of a head.
    """
    if (folder / "config.json").is_file():
        return folder
    tokenizer = learned_tokenizer(texts, vocab_size)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    save_model(folder, shape, language_model(shape).init(jax.random.key(seed)), tokenizer)
    return folder


def learned_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE: every text has tokens, and the same text again."""
    t = package("tokenizers", "a model from scratch", "lm")
    backend = t.Tokenizer(t.models.BPE())
    backend.pre_tokenizer, backend.decoder = t.pre_tokenizers.ByteLevel(add_prefix_space=False), t.decoders.ByteLevel()
    trainer = t.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END],
        initial_alphabet=t.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, {"eos_token": END, "pad_token": END})
