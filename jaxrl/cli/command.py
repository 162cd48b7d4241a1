"""The command `jaxrl`:

jaxrl generate smollm2-135m "The capital of France is"
jaxrl generate smollm2-135m "Why is the sky blue?" --chat --temperature 0
jaxrl data lint reviews.jsonl --max-length 64
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import tyro
from tyro.conf import Positional

from jaxrl.cli.experiment import enable_compilation_cache, sentences
from jaxrl.data.linting import lint
from jaxrl.lm.pretrained.weights import load_model, load_tokenizer
from jaxrl.lm.sampling import stream
from jaxrl.lm.transformer import language_model


def generate(
    model: Positional[str],
    prompt: Positional[str],
    *,
    chat: bool = False,
    max_new_tokens: int = 128,
    temperature: float = 0.7,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    dtype: str = "float32",
) -> None:
    """Continue a prompt, word by word as it comes.

    Args:
        model: "smollm2-135m", a .gguf file, a folder of safetensors, or "organisation/name" on the hub.
        prompt: The text to continue.
        chat: Put the prompt as a user's message, in the model's chat template.
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
        raise ValueError(f"{model} has no tokenizer; put its tokenizer.json beside the weights")
    if chat:
        ids = tokenizer.encode_chat([{"role": "user", "content": prompt}])
    else:
        ids = [*tokenizer.prefix, *tokenizer.encode(prompt)]
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


def data(
    action: Positional[Literal["lint"]],
    file: Positional[Path],
    *,
    model: str = "smollm2-135m",
    max_length: int = 512,
    max_prompt_length: int | None = None,
    split: str | None = None,
    rows: int = 3,
) -> None:
    """Look at a data set: `lint` shows its first rows with the trained tokens marked, counts, and lengths.

    Args:
        action: What to do.
        file: .jsonl, .json, .parquet, or a datasets folder.
        model: Whose tokenizer and chat template to use.
        max_length: Tokens of prompt and completion together.
        max_prompt_length: Tokens of the prompt, of which the end is kept.
        split: Which part of a folder, as in "train".
        rows: How many rows to show.
    """
    limits = {"max_length": max_length, "max_prompt_length": max_prompt_length}
    print(lint(file, load_tokenizer(model), **limits, split=split, rows=rows), end="")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input is a sentence on stderr and exit status 2."""
    with sentences():
        tyro.extras.subcommand_cli_from_dict(
            {"generate": generate, "data": data}, args=argv, prog="jaxrl", description=__doc__
        )


if __name__ == "__main__":
    main()
