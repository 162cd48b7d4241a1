"""jaxrl generate, chat, winrate and merge: what is done with a model."""

import itertools
import json
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tyro.conf import Positional

from jaxrl import sweeps
from jaxrl.cli.sweeping import is_sweep
from jaxrl.data.prompts import encode_prompts, read_prompts, with_prompts
from jaxrl.lm.lora import merge as merged
from jaxrl.lm.lora import scale_of
from jaxrl.lm.pretrained.weights import load_adapter, load_model, save_model
from jaxrl.lm.sampling import generate as sample
from jaxrl.lm.sampling import stream
from jaxrl.lm.transformer import language_model
from jaxrl.lm.vocabulary import check_tokenizer
from jaxrl.reports.statistics import interval, mean
from jaxrl.sources.rewards import as_reward, scored
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


def chat(
    model: Positional[str],
    *,
    against: str | None = None,
    system: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.7,
    top_p: float = 1.0,
    seed: int = 0,
) -> None:
    """Talk to a model, or to two side by side: a line is a message, an empty line begins anew, and Ctrl-D ends.

    Args:
        model: As for jaxrl generate. It needs a chat template.
        against: Another one, which is told the same.
        system: What both are told first.
        max_new_tokens: Of each answer, at most.
        temperature: Logits are divided by it; 0 always takes the likeliest token.
        top_p: Draw from the fewest tokens with this probability together; 1 is off.
        seed: Of the first answers; the same seed and words give the same answers.
    """
    enable_compilation_cache()
    sides = [_Side(name, system) for name in (model, against) if name is not None]
    width, said = (shutil.get_terminal_size().columns - 3 * (len(sides) - 1)) // len(sides), 0
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            break
        if not line:
            for side in sides:
                side.begin()
            continue
        key = jax.random.fold_in(jax.random.key(seed), said)
        sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
        answers = [side.answer(line, key, **sampling) for side in sides]
        said += 1
        print("\n".join(beside(answers, width)), flush=True)
    print(json.dumps({"models": [side.name for side in sides], "messages": said}))


class _Side:
    """One of the models that are talked to, and what was said to and by it."""

    def __init__(self, name: str, system: str | None):
        self.name, self.loaded, self.system = name, load_model(name), system
        self.tokenizer = self.loaded.tokenizer
        if self.tokenizer is None or self.tokenizer.chat_template is None:
            raise InputError(
                f"{name} has no chat template; talk to it by jaxrl generate, or take one that was tuned to"
            )
        check_tokenizer(self.tokenizer, self.loaded.config)
        self.begin()

    def begin(self) -> None:
        """Forget what was said."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def answer(self, line: str, key: jax.Array, **sampling: Any) -> str:
        """What it says next."""
        self.messages.append({"role": "user", "content": line})
        ids, forgotten = self._within(self.loaded.config.max_position_embeddings - sampling["max_new_tokens"])
        if forgotten:
            print(f"{self.name} has forgotten its oldest {forgotten} messages: its context is full", file=sys.stderr)
        model, stops = language_model(self.loaded.config), sorted(self.tokenizer.stops)
        text = "".join(self.tokenizer.stream(stream(model, self.loaded.params, ids, key, stop=stops, **sampling)))
        self.messages.append({"role": "assistant", "content": text})
        return text

    def _within(self, room: int) -> tuple[list[int], int]:
        """The conversation as ids, and how many of its oldest messages were left out for it to have room."""
        start, forgotten = int(self.system is not None), 0
        while len(ids := self.tokenizer.encode_chat(self.messages)) > room and len(self.messages) > start + 1:
            del self.messages[start : start + 2]  # a question and its answer
            forgotten += 2
        return ids, forgotten


def beside(texts: Sequence[str], width: int) -> list[str]:
    """Texts in columns of `width` characters, line by line."""
    columns = [
        [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, width) or [""]] for text in texts
    ]
    rows = itertools.zip_longest(*columns, fillvalue="")
    return [" | ".join(cell.ljust(width) for cell in row).rstrip() for row in rows]


def winrate(
    model: Positional[str],
    against: Positional[str],
    *,
    path: str,
    reward: str,
    prompts: int = 256,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """How often a reward prefers what one model says to what another one says to the same prompts.

    Args:
        model: As for jaxrl generate.
        against: The other one.
        path: Prompts: a file of {prompt}, or of any rows with prompts.
        reward: The folder of a reward model, or "package.module:function" of (prompts, completions).
        prompts: So many of them, from the first on.
        max_new_tokens: Of each completion, at most.
        temperature: Logits are divided by it; 0 always takes the likeliest token.
        batch_size: Completions that are sampled at the same time.
        seed: Of what is sampled.
    """
    enable_compilation_cache()
    for name, value in (("prompts", prompts), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise InputError(f"{name} = {value} must be at least 1")
    rows = with_prompts(read_prompts(path)[:prompts])
    scores = [_scores(name, rows, reward, max_new_tokens, temperature, batch_size, seed) for name in (model, against)]
    fine = np.isfinite(scores[0]) & np.isfinite(scores[1])
    if not fine.any():
        raise InputError(f"reward = {reward!r} gave no finite score to any of {len(rows)} prompts for both models")
    better = (np.sign(scores[0] - scores[1])[fine] + 1) / 2  # a tie is half a win
    found = interval(better, statistic=mean)
    told = {"winrate": found.value, "low": found.low, "high": found.high, "ties": float(np.mean(better == 0.5))}
    told |= {"reward": float(scores[0][fine].mean()), "reward_against": float(scores[1][fine].mean())}
    between = "" if found.low is None else f", 95 % interval {found.low:.1%} to {found.high:.1%}"
    print(f"{model} wins {found.value:.1%} of {int(fine.sum())} prompts against {against}{between}")
    print(json.dumps({**told, "prompts": int(fine.sum()), "without_score": int(np.sum(~fine))}))


def _scores(
    name: str, rows: Sequence[Any], reward: str, max_new_tokens: int, temperature: float, batch_size: int, seed: int
) -> np.ndarray:
    """Of a completion of each prompt; NaN where there is no finite one. The draws are the same for every model."""
    loaded = load_model(name)
    if loaded.tokenizer is None:
        raise InputError(f"{name} has no tokenizer; put its tokenizer.json beside the weights")
    scorer = as_reward(reward, loaded.tokenizer, rows)
    longest = loaded.config.max_position_embeddings - max_new_tokens
    asked = encode_prompts(rows, loaded.tokenizer, max_length=longest)
    keys, model = jax.random.split(jax.random.key(seed), len(rows)), language_model(loaded.config)
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "stop": sorted(loaded.tokenizer.stops)}
    found = []
    for start in range(0, len(rows), batch_size):
        places = (start + np.arange(batch_size)) % len(rows)  # of the same shape every time
        made = sample(model, loaded.params, asked.tokens[places], asked.length[places], keys[places], **sampling)
        found.append(scored(scorer, made, places)[: len(rows) - start])
    return np.concatenate(found)


def merge(what: Positional[tuple[str, ...]], *, base: str | None = None, dtype: str = "float32") -> None:
    """Merge an adapter into its base, and save the whole model; or make one sweep of the parts of it.

        jaxrl merge runs/mine/adapter merged
        jaxrl merge runs/part1 runs/part2 runs/part3 runs/whole

    Args:
        what: A folder with adapter_config.json, as PEFT or `finetune --adapter-only` writes it, or its hub name, and
            where the model goes: safetensors, config.json and tokenizer. Or the directories of all parts that `sweep
            --shard 1/3` and so on made, and a new directory.
        base: The model that the adapter is for, where it is not where adapter_config.json says.
        dtype: Of the weights on disk: float32, bfloat16 or float16.
    """
    if len(what) > 1 and is_sweep(Path(what[0])):
        figures = sweeps.merge([Path(part) for part in what[:-1]], Path(what[-1]))
        print(f"report      jaxrl report {what[-1]}")
        print(json.dumps(figures))
        return
    if len(what) != 2:
        raise InputError(
            f"merge takes an adapter and a folder, or directories of sweeps, not {' '.join(what) or 'none'}"
        )
    adapter, folder = what
    model, settings, adapters = load_adapter(adapter, base=base)
    params = merged(model.params, adapters, scale_of(settings))
    save_model(folder, model.config, params, model.tokenizer, dtype=dtype)
    print(f"model       {folder}")
    print(json.dumps({"model": folder}))
