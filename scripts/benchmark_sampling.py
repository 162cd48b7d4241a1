# needs: lm
"""Tokens per second of sampling from SmolLM2-135M, 64 critics' prompts at a time, beside transformers' `generate`.

    scripts/run scripts/benchmark_sampling.py --peer other-env/bin/python

Rows go on to the last token, end at their EOS, or at the first full stop, as a critic's verdict of one sentence does;
tokens count where a row really said them. Every arm is a process of its own that lives through all rounds, prepared and
compiled before; they take turns on the same cores, each round with another seed, and ratios are taken within a round.
`--peer` names a Python with torch and transformers, under which this file imports nothing of jaxrl's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

FULL_STOP = (".", "!", "?")


def jaxrl(folder: Path, new: int, halve: bool) -> Callable:
    """say(stop, seed) -> how many tokens each row said."""
    import jax

    from jaxrl.lm import generate, language_model, load_model
    from jaxrl.ops.platform import tuned

    base, prompts = load_model(str(folder / "model"), with_tokenizer=False), asked_in(folder)
    model, length = language_model(base.config), np.array([len(ids) for ids in prompts], np.int32)
    tokens = np.array([ids + [0] * (length.max() - len(ids)) for ids in prompts], np.int32)

    def say(stop: list[int], seed: int) -> list[int]:
        keys = jax.random.split(jax.random.key(seed), len(tokens))
        with tuned() if halve else tuned(halve_above=None):
            made = generate(model, base.params, tokens, length, keys, max_new_tokens=new, stop=stop)
        return np.asarray(made.length - made.prompt_length).tolist()

    return say


def transformers(folder: Path, new: int, halve: bool) -> Callable:
    """The same of transformers' `generate`, its own key-value cache and attention, left-padded as it asks for."""
    os.environ.update(HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, logging

    logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    prompts = asked_in(folder)
    width = max(map(len, prompts))
    tokens = torch.tensor([[0] * (width - len(ids)) + ids for ids in prompts])
    mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])

    def say(stop: list[int], seed: int) -> list[int]:
        torch.manual_seed(seed)
        model.generation_config = GenerationConfig(
            do_sample=True, top_k=0, max_new_tokens=new, pad_token_id=0, eos_token_id=stop or None
        )
        said = model.generate(tokens, attention_mask=mask)[:, width:].numpy()
        ends = np.isin(said, stop)
        return np.where(ends.any(1), ends.argmax(1) + 1, said.shape[1]).tolist()

    return say


ARMS = {
    "jaxrl": lambda *given: jaxrl(*given, halve=True),
    "jaxrl, all rows to the end": lambda *given: jaxrl(*given, halve=False),
    "transformers": lambda *given: transformers(*given, halve=False),
}


def serve(arm: str, folder: Path, new: int, clock: Callable[[], float]) -> None:
    """For every line [stop, seed] of stdin one line [seconds, lengths] on stdout."""
    answers, sys.stdout = sys.stdout, sys.stderr
    say = ARMS[arm](folder, new)
    for line in sys.stdin:
        began = clock()
        lengths = say(*json.loads(line))
        print(json.dumps([clock() - began, lengths]), file=answers, flush=True)


def asked_in(folder: Path) -> list[list[int]]:
    """The prompts that were saved there."""
    return json.loads((folder / "asked.json").read_text())


def prepare(folder: Path, rows: int) -> dict[str, list[int]]:
    """Save the model and `rows` prompts there; the tokens that end a row, by case."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))
    import sentiment

    from jaxrl.lm import load_model, save_model

    base = load_model("smollm2-135m")
    save_model(folder / "model", base.config, base.params, base.tokenizer)
    texts = sorted({row["prompt"] for row in sentiment.reviews()})
    chosen = np.random.default_rng(0).permutation(len(texts))[:rows]
    prompts = [base.tokenizer.encode_prompt(texts[i], "text") for i in chosen]
    (folder / "asked.json").write_text(json.dumps(prompts))
    stops = sorted(base.tokenizer.stops)
    ends = [base.tokenizer.encode_prompt(mark, "text")[-1] for mark in FULL_STOP]
    return {"no row ends": [], "at EOS": stops, "at a full stop": stops + ends}


def compare(peer: str, rows: int, new: int, rounds: int, cpu: bool) -> dict:
    """Of every case and arm: tokens per second, their ratio to transformers', and the seconds of the first call."""
    from jaxrl.runs.header import machine

    pythons = {name: peer if name == "transformers" else sys.executable for name in ARMS}
    with tempfile.TemporaryDirectory() as name:
        cases = prepare(Path(name), rows)
        own = [__file__, "--folder", name, "--new", str(new), *(["--cpu"] if cpu else []), "--arm"]
        arms = {arm: Arm([python, *own, arm]) for arm, python in pythons.items()}
        first = {case: {arm: each.ask(stop, 0)[0] for arm, each in arms.items()} for case, stop in cases.items()}
        seen = {case: {arm: [] for arm in ARMS} for case in cases}
        for seed in range(1, rounds + 1):
            for case, stop in cases.items():
                for arm, each in arms.items():
                    seconds, lengths = each.ask(stop, seed)
                    seen[case][arm].append((sum(lengths) / seconds, sum(lengths) / rows, seconds))
        for each in arms.values():
            each.process.stdin.close()
    found = {case: {arm: summary(of, by["transformers"]) for arm, of in by.items()} for case, by in seen.items()}
    about = {**machine(), "load": os.getloadavg()[0], "python": platform.python_version(), "date": time.strftime("%F")}
    return {"found": found, "first call, seconds": first, "machine": about}


class Arm:
    """Its process."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *question: object) -> list:
        """Its answer to one line."""
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(self.process.args)} ended with {self.process.wait()}")
        return json.loads(answer)


def summary(runs: list[tuple[float, ...]], peers: list[tuple[float, ...]]) -> dict[str, float | list[float]]:
    """Medians over the rounds; the ratio with its least and most. Where rows end by chance, some batches say more."""
    ratios = sorted(own[0] / theirs[0] for own, theirs in zip(runs, peers, strict=True))
    rate, length, seconds = np.median(runs, axis=0)
    spread = [round(float(x), 2) for x in (np.median(ratios), ratios[0], ratios[-1])]
    return {
        "tokens/s": round(rate),
        "ratio, least, most": spread,
        "tokens a row": round(length, 1),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="a Python with torch and transformers")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--new", type=int, default=64, help="most tokens that a row says")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="seconds of CPU, for one core of a busy machine")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.arm:
        serve(asked.arm, asked.folder, asked.new, time.process_time if asked.cpu else time.perf_counter)
    elif asked.peer:
        print(json.dumps(compare(asked.peer, asked.rows, asked.new, asked.rounds, asked.cpu)))
    else:
        parser.error("--peer names a Python with torch and transformers")


if __name__ == "__main__":
    main()
