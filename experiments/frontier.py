# needs: lm, sentiment
"""Reward against KL of every way to align that jaxrl has, on the same model, texts and judge, for several strengths and
seeds: what Rafailov et al. 2023 (arXiv 2305.18290) draw in their second figure, with parts that all can have.

    scripts/run experiments/frontier.py                       # a tiny critic, from scratch: 24 minutes on two cores
    scripts/run experiments/frontier.py --size smollm2 --seeds 0 1 2    # SmolLM2-135M: hours; resumable
    scripts/run experiments/frontier.py --size accelerator    # the same with larger batches, for one GPU or TPU
    scripts/run experiments/frontier.py --only dpo ppo        # some methods; the picture has all that there is

Each point is one run: a method, a strength (β, or what a nat costs) and a seed. DPO, IPO and KTO see critics' labels
and no classifier; PPO, GRPO and RLOO are given the classifier's P(positive), which also judges: what they reach is what
the others could, and no more. `ppo-learned` is PPO with a reward model of the same pairs as DPO's: there reward and
judge part when the KL grows, as the last panel shows. Reviews are of films that nothing was trained on, sampled at
temperature 1; intervals are over seeds where there are three or more, and over films otherwise. Stopped, the same
command goes on. Sentiment moves, not helpfulness: see samples.md of each run.
"""

import dataclasses
import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from frontier_picture import draw
from frontier_sizes import SIZES, STRENGTHS, Size, configured, going_on
from sentiment import by_film, class_weights, kinder, pairs, reviews, some, thumbs
from sentiment_report import measure
from sentiment_rlhf import prompts

from jaxrl import LMConfig, cli, finetune, replace


@dataclasses.dataclass(frozen=True)
class Options:
    """What is compared."""

    size: Literal["tiny", "smollm2", "accelerator"] = "tiny"
    """Which model, and how long."""
    seeds: tuple[int, ...] = ()
    """Seeds of every run; by default those of the size."""
    only: tuple[Literal["dpo", "ipo", "kto", "ppo", "grpo", "rloo", "ppo-learned"], ...] = ()
    """Methods; by default all."""
    out: Path = Path("runs/frontier")
    """Where the runs are, frontier.json and frontier.png; the size's name is added."""
    reviews: int = 256
    """Reviews that each model is judged by."""


def arms(options: Options, size: Size) -> Iterator[tuple[str, float, int]]:
    """(method, strength, seed) of every run, seed by seed, so that what is there of them is a whole picture."""
    first = (5 - size.strengths) // 2
    for seed in options.seeds or size.seeds:
        for method, strengths in STRENGTHS.items():
            if not options.only or method in options.only:
                yield from ((method, strength, seed) for strength in strengths[first : first + size.strengths])


def every(arms: Iterable[tuple[str, float, int]], do: Callable[..., dict], workers: int) -> Iterator[dict[str, Any]]:
    """What each arm came to, in order, several at a time."""
    if workers == 1 or not hasattr(os, "sched_setaffinity"):  # macOS cannot share cores out
        yield from (do(*arm) for arm in arms)
        return
    context = multiprocessing.get_context("spawn")  # JAX has threads, which a fork would not take along
    cores, shares = sorted(os.sched_getaffinity(0)), context.Queue()
    for i in range(workers):
        shares.put(cores[i::workers] or cores)
    with ProcessPoolExecutor(workers, context, bound, (shares,)) as pool:
        yield from pool.map(do, *zip(*arms, strict=True))


def bound(shares: Any) -> None:
    """Keep this process to its share of the cores."""
    os.sched_setaffinity(0, shares.get())


def one(method: str, strength: float, seed: int, size: Size, out: Path, count: int) -> dict[str, Any]:
    """Train and measure one arm, or read what it came to."""
    run_dir = out / f"{method}_{strength:g}_s{seed}"
    if not (run_dir / "report.json").is_file():
        lm = LMConfig(str(size.model(out)), lora_rank=size.lora_rank)
        train, held_out = by_film(reviews(), share=0.1)
        config, given = replace(configured(method, strength, size), lm=lm), {}
        match method:
            case "dpo" | "ipo":
                rows = pairs(train, "positive", seed), some(pairs(held_out, "positive"), 64)
            case "kto":
                rows = thumbs(train, "positive"), some(thumbs(held_out, "positive"), 64)
                config = replace(config, **class_weights(rows[0]))
            case _:
                rows = prompts(train), prompts(held_out)
                given["reward"] = size.reward_model(out) if method == "ppo-learned" else "sentiment:kinder"
        tuned = finetune(config, *rows, seed=seed, run_dir=run_dir, **given, **going_on(run_dir))
        measure(tuned, sorted({row["movie"] for row in held_out}), "positive", seed, count)
    found = json.loads((run_dir / "report.json").read_text())
    return {"method": method, "strength": strength, "seed": seed, "along": along(run_dir), **found}


def along(run_dir: Path) -> list[dict[str, float]]:
    """Of a run with a reward, at each of its evaluations: the reward it was given, the judge's, and the KL."""
    if not (run_dir / "samples.jsonl").is_file():
        return []
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kl = {row["step"]: row["eval_kl"] for row in rows if "eval_kl" in row}
    made = []
    for line in (run_dir / "samples.jsonl").read_text().splitlines():
        said = json.loads(line)
        given = [s["reward"] for s in said["samples"] if s["reward"] is not None]
        gold = kinder([], [s["completion"] for s in said["samples"]])
        made.append({"step": said["step"], "reward": float(np.mean(given)), "gold": float(np.mean(gold))})
        made[-1]["kl"] = kl[said["step"]]
    return made


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    size, out = SIZES[options.size], options.out / options.size
    with cli.sentences():
        size.model(out), size.reward_model(out)  # before arms that run at once look for them
        found, do = [], functools.partial(one, size=size, out=out, count=options.reviews)
        for made in every(arms(options, size), do, size.workers):
            found.append(made)
            told = {name: round(made[name], 3) for name in ("gain", "vader_gain", "kl")}
            print(f"{made['method']:12} {made['strength']:<6g} seed {made['seed']}  {json.dumps(told)}", flush=True)
            (out / "frontier.json").write_text(json.dumps(found, indent=1) + "\n")
            draw(out / "frontier.png", found)
    print(json.dumps({"runs": len(found), "figures": str(out / "frontier.json"), "picture": str(out / "frontier.png")}))


if __name__ == "__main__":
    main()
