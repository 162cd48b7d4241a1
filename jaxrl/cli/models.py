"""jaxrl generate and merge: what is done with a model."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Literal

import jax
from tyro.conf import Positional

from jaxrl.lm.lora import merge as merged
from jaxrl.lm.lora import scale_of
from jaxrl.lm.pretrained.weights import load_adapter, load_model, save_model
from jaxrl.lm.sampling import stream
from jaxrl.lm.transformer import language_model
from jaxrl.lm.vocabulary import check_tokenizer
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.types import InputError


def generate(
    model: Positional[str],
    prompt: Positional[str],
    *,
    chat: bool = False,
    markup: Literal["text", "tokens"] = "text",
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Continue a prompt, word by word as it comes.

    Args:
        model: "smollm2-135m", a .gguf file, a folder of safetensors or an adapter, or "organisation/name" of the hub.
        prompt: The text to continue.
        chat: Put the prompt as a user's message, in the model's chat template.
        markup: What special tokens are that the prompt spells (<|im_end|>): plain text, or tokens.
        max_new_tokens: Stop after this many.
        temperature: Logits are divided by it; 0 always takes the likeliest token.
        top_k: Draw from the k likeliest tokens only; 0 is off.
        top_p: Draw from the fewest tokens with this probability together; 1 is off.
        min_p: Draw from tokens at least this share as likely as the likeliest; 0 is off.
        seed: The same seed says the same.
        dtype: Of activations and matrix products: float32 or bfloat16.
    """
    began = time.perf_counter()
    enable_compilation_cache()
    loaded = load_model(model)
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        raise InputError(f"{model} has no tokenizer; put its tokenizer.json beside the weights")
    if chat:
        ids = tokenizer.encode_chat([{"role": "user", "content": prompt}], markup=markup)
    else:
        ids = tokenizer.encode_prompt(prompt, markup)
    check_tokenizer(tokenizer, loaded.config)
    if markup == "text" and tokenizer.has_markup(prompt):
        print("special tokens in the prompt are plain text; --markup tokens makes them tokens", file=sys.stderr)
    times = []

    def timed(tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            times.append(time.perf_counter())
            yield token

    drawn = stream(
        language_model(loaded.config, dtype=dtype),
        loaded.params,
        ids,
        jax.random.key(seed),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=sorted(tokenizer.stops),
    )
    for piece in tokenizer.stream(timed(drawn)):
        print(piece, end="", flush=True)
    print(flush=True)
    rate = f", then {(len(times) - 1) / (times[-1] - times[0]):.1f} tokens/s" if len(times) > 1 else ""
    print(f"first token after {times[0] - began:.1f} s{rate}", file=sys.stderr)
    print(json.dumps({"prompt_tokens": len(ids), "tokens": len(times)}))


def merge(
    adapter: Positional[str], folder: Positional[str], *, base: str | None = None, dtype: str = "float32"
) -> None:
    """Merge an adapter into its base, and save the whole model.

    Args:
        adapter: A folder with adapter_config.json, as PEFT or `finetune --adapter-only` writes it, or its hub name.
        folder: Where the model goes: safetensors, config.json and tokenizer.
        base: The model that the adapter is for, where it is not where adapter_config.json says.
        dtype: Of the weights on disk: float32, bfloat16 or float16.
    """
    model, settings, adapters = load_adapter(adapter, base=base)
    params = merged(model.params, adapters, scale_of(settings))
    save_model(folder, model.config, params, model.tokenizer, dtype=dtype)
    print(f"model       {folder}")
    print(json.dumps({"model": folder}))
