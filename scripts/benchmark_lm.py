# needs: lm
"""Language models: tokens generated per second, and time and memory of chunked log-probabilities.

    scripts/run scripts/benchmark_lm.py generation
    scripts/run scripts/benchmark_lm.py generation --oracle other-env/bin/python   # and transformers' beside ours
    scripts/run scripts/benchmark_lm.py log-probs
    scripts/run scripts/benchmark_lm.py first-token

Each ends with a line of JSON: machine, load, versions, figures. `--oracle` names a Python that has torch and
transformers; its arm (scripts/oracle_lm.py speed) and ours take turns, in processes of their own, on the same cores.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tyro.conf import Positional

from jaxrl import cli
from jaxrl.lm import generate, language_model, load_model, per_token_log_probs
from jaxrl.lm.pretrained import assets
from jaxrl.runs.header import machine

ROOT = Path(__file__).parent.parent
PROMPT, NEW = 16, 128  # tokens


def main(
    what: Positional[Literal["generation", "log-probs", "first-token", "ours"]],
    *,
    oracle: Path | None = None,
    rounds: int = 3,
    batch: tuple[int, ...] = (1, 16),
) -> None:
    """Measure, and print figures.

    Args:
        what: `ours` is jaxrl's arm of `generation` alone.
        oracle: A Python with torch and transformers.
        rounds: How often each arm is timed; the best counts.
        batch: Rows generated side by side.
    """
    cli.enable_compilation_cache()
    arms: dict[str, Callable] = {
        "generation": lambda: generation(oracle, rounds, batch),
        "log-probs": lambda: log_probs(rounds),
        "first-token": first_token,
        "ours": lambda: ours(rounds, batch),
    }
    figures = arms[what]()
    about = {**machine(), "load": os.getloadavg()[0], "python": platform.python_version(), "date": time.strftime("%F")}
    print(json.dumps({what: figures} if what == "ours" else {what: figures, "machine": about}))


def ours(rounds: int, batch: tuple[int, ...]) -> dict[str, float]:
    """Tokens per second of jaxrl, float32, sampling at temperature 1, compiled before."""
    base = load_model("smollm2-135m", with_tokenizer=False)
    model, found = language_model(base.config), {}
    for rows in batch:
        tokens = jax.random.randint(jax.random.key(0), (rows, PROMPT), 5, base.config.vocab_size)
        lengths, keys = jnp.full(rows, PROMPT), jax.random.split(jax.random.key(1), rows)

        def arm(tokens=tokens, lengths=lengths, keys=keys):
            return generate(model, base.params, tokens, lengths, keys, max_new_tokens=NEW)

        found[str(rows)] = round(rows * NEW / best(arm, rounds), 1)
    return found


def generation(oracle: Path | None, rounds: int, batch: tuple[int, ...]) -> dict:
    """Ours and theirs in turns; the best round of each, and their ratio."""
    seen: dict[str, list[dict]] = {"jaxrl": [], "transformers": []}
    own = [sys.executable, __file__, "ours", "--rounds", "2", "--batch", *map(str, batch)]
    gguf = assets.path("smollm2-135m")
    theirs = [oracle, ROOT / "scripts/oracle_lm.py", "speed", gguf.parent, "--gguf", gguf.name, "--new", NEW]
    theirs += ["--prompt", PROMPT, "--threads", os.cpu_count(), "--sample", "--batch", *batch]
    for _ in range(rounds):
        seen["jaxrl"].append(last_json(own)["ours"])
        if oracle is not None:
            seen["transformers"].append(last_json(theirs)["tokens_per_second"])
    found = {name: {b: max(r[b] for r in runs) for b in runs[0]} for name, runs in seen.items() if runs}
    if oracle is not None:
        found["ratio"] = {b: round(found["jaxrl"][b] / found["transformers"][b], 2) for b in found["jaxrl"]}
    return found


def log_probs(rounds: int) -> dict:
    """Gradient of the log-probabilities of 8 × 256 tokens with regard to hidden states and to the embedding."""
    base = load_model("smollm2-135m", with_tokenizer=False)
    tokens = jax.random.randint(jax.random.key(0), (8, 256), 0, base.config.vocab_size)
    hidden = jax.random.normal(jax.random.key(1), (8, 256, base.config.hidden_size))
    real = language_model(base.config)
    model = real._replace(hidden=lambda given, _: given[1], unembed=lambda given, h: h @ given[0].T)
    given, compiled = (base.params.embed[...], hidden), {}
    for chunk in (None, base_chunk := cli.ALGORITHMS["sft"]().lm.logit_chunk):

        def loss(given, chunk=chunk):
            return jnp.mean(per_token_log_probs(model, given, tokens, chunk=chunk).log_prob)

        for name, argnums in (("hidden", 1), ("hidden and embedding", (0, 1))):
            gradient = jax.grad(lambda e, h, loss=loss: loss((e, h)), argnums)
            compiled[name, chunk] = jax.jit(gradient).lower(*given).compile()
    found = {}
    for name in ("hidden", "hidden and embedding"):
        dense, chunked = compiled[name, None], compiled[name, base_chunk]
        memory = [c.memory_analysis().temp_size_in_bytes for c in (dense, chunked)]
        seconds = [best(lambda c=c: c(*given), rounds) for c in (dense, chunked, dense, chunked)]
        found[name] = {
            "chunk": base_chunk,
            "temporary MiB, dense and chunked": [round(x / 2**20) for x in memory],
            "memory ratio": round(memory[1] / memory[0], 3),
            "seconds, dense and chunked": [round(min(seconds[i::2]), 3) for i in (0, 1)],
            "time ratio": round(min(seconds[1::2]) / min(seconds[0::2]), 3),
        }
    return found


def first_token() -> dict[str, list[str]]:
    """What `jaxrl generate` says of its first token: with an empty compilation cache, then with that one warm."""
    said = []
    model = assets.path("smollm2-135m")
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(3):
            command = [
                sys.executable,
                "-m",
                "jaxrl",
                "generate",
                model,
                "The sky is",
                "--max-new-tokens",
                "16",
            ]
            env = {**os.environ, "JAXRL_CACHE": cache}
            began = time.perf_counter()
            done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, check=True)
            said.append(f"{done.stderr.strip().splitlines()[-1]}; process {time.perf_counter() - began:.1f} s")
    return {"cold": said[:1], "warm": said[1:]}


def best(arm: Callable, rounds: int) -> float:
    """Least seconds of a call, after one that compiles."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        np.asarray(jax.tree.leaves(jax.block_until_ready(arm()))[0])
        times.append(time.perf_counter() - began)
    return min(times[1:])


def last_json(command: list) -> dict:
    """The last line that a command prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
