# needs: lm, sentiment
"""Reward against KL of every way to align that jaxrl has, on the same model, texts and judge, for several strengths and
seeds: what Rafailov et al. 2023 (arXiv 2305.18290) draw in their second figure, with parts that all can have.

    scripts/run experiments/frontier.py                       # a tiny critic, from scratch: two CPU cores
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
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import sentiment_reward
import sentiment_sft
import tyro
from from_scratch import new_model
from frontier_picture import draw
from sentiment import by_film, class_weights, kinder, pairs, reviews, some, thumbs
from sentiment_report import measure
from sentiment_rlhf import prompts

from jaxrl import DPO, GRPO, KTO, RLHF, SFT, DataConfig, LMConfig, Reward, Schedule, cli, finetune, replace
from jaxrl.data import Loop
from jaxrl.lm.settings import Sampling
from jaxrl.ops.optimizers import AdamW

QUIET = {"progress": False, "schedule": Schedule(logs=20, evals=10, saves=1)}


class Size(NamedTuple):
    """What fits a machine. model, reward_model: make them, or find them, in a folder. rates: of what learns from rows,
    and from a reward. updates: the same. batch: completions an update."""

    model: Callable[[Path], Path]
    reward_model: Callable[[Path], Path]
    lora_rank: int
    rates: tuple[float, float]
    updates: tuple[int | None, int]
    batch: int
    seeds: tuple[int, ...]
    strengths: int


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


def tiny(out: Path) -> Path:
    """A critic of a million parameters, from scratch."""
    run_dir = out / "sft"
    if not (run_dir / "model").is_dir():
        train, held_out = sentiment_sft.rows()
        blank = new_model(out / "blank", [row["prompt"] + row["completion"] for row in train])
        config = SFT(
            lm=LMConfig(str(blank)),
            data=DataConfig(max_length=96, buckets=(48, 96)),
            loop=Loop(batch_size=32, epochs=6),
            optimizer=AdamW(learning_rate=2e-3, weight_decay=0.1),
        )
        finetune(config, train, some(held_out, 256), samples=6, run_dir=run_dir, **going_on(run_dir))
    return run_dir / "model"


def tiny_reward(out: Path) -> Path:
    """A reward model with the tiny critic's body."""
    run_dir = out / "reward"
    if not (run_dir / "model").is_dir():
        config = Reward(
            lm=LMConfig(str(tiny(out))),
            data=DataConfig(max_length=96, buckets=(48, 96)),
            loop=Loop(batch_size=32, epochs=2),
            optimizer=AdamW(learning_rate=5e-4, weight_decay=0.1),
        )
        train, held_out = by_film(reviews(), share=0.1)
        made = pairs(train, "positive"), pairs(held_out, "positive")
        finetune(config, *made, run_dir=run_dir, **going_on(run_dir))
    return run_dir / "model"


def smollm2(out: Path) -> Path:
    """SmolLM2-135M after sentiment_sft.py."""
    return sentiment_sft.model(out.parents[1] / "sentiment_sft")


def smollm2_reward(out: Path) -> Path:
    """The reward model of sentiment_reward.py."""
    return sentiment_reward.model(out.parents[1] / "sentiment_reward", out.parents[1] / "sentiment_sft")


SIZES = {
    "tiny": Size(tiny, tiny_reward, 0, (3e-4, 3e-4), (None, 80), 64, (0, 1, 2), 3),
    "smollm2": Size(smollm2, smollm2_reward, 16, (5e-4, 2e-4), (50, 40), 32, (0, 1, 2), 3),
    "accelerator": Size(smollm2, smollm2_reward, 16, (5e-4, 2e-4), (None, 200), 256, (0, 1, 2, 3, 4), 5),
}
STRENGTHS = {  # from weak to strong; a size takes so many, from the middle
    "dpo": (0.03, 0.05, 0.1, 0.3, 1.0),
    "ipo": (0.05, 0.1, 0.3, 1.0, 3.0),
    "kto": (0.03, 0.05, 0.1, 0.3, 1.0),
    "ppo": (0.003, 0.01, 0.03, 0.1, 0.3),
    "grpo": (0.003, 0.01, 0.03, 0.1, 0.3),
    "rloo": (0.003, 0.01, 0.03, 0.1, 0.3),
    "ppo-learned": (0.003, 0.03, 0.1, 0.3, 1.0),
}


def configured(method: str, strength: float, size: Size) -> Any:
    """The settings of a method; the model comes later."""
    offline, online = (AdamW(learning_rate=rate) for rate in size.rates)
    data = DataConfig(max_length=96, buckets=(48, 96))
    rows = {"data": data, "loop": Loop(batch_size=32, max_updates=size.updates[0]), "optimizer": offline}
    said = {
        "data": DataConfig(max_length=96),
        "sampling": Sampling(max_new_tokens=48),
        "loop": Loop(batch_size=size.batch, epochs=1000, max_updates=size.updates[1]),
        "optimizer": online,
        "kl_coef": strength,
    }
    match method:
        case "dpo" | "ipo":
            loss = {"dpo": "sigmoid", "ipo": "ipo"}[method]
            return DPO(loss=loss, beta=strength, **rows)
        case "kto":
            return KTO(beta=strength, **rows)
        case "grpo" | "rloo":
            return GRPO(baseline=method, **said, num_epochs=2)
        case _:
            return RLHF(**said, num_epochs=2)


def arms(options: Options, size: Size) -> Iterator[tuple[str, float, int]]:
    """(method, strength, seed) of every run, seed by seed, so that what is there of them is a whole picture."""
    first = (5 - size.strengths) // 2
    for seed in options.seeds or size.seeds:
        for method, strengths in STRENGTHS.items():
            if not options.only or method in options.only:
                yield from ((method, strength, seed) for strength in strengths[first : first + size.strengths])


def going_on(run_dir: Path) -> dict[str, Any]:
    """Options of a run that may have begun."""
    return {**QUIET, "resume": (run_dir / "run.json").is_file()}


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
        found = []
        for method, strength, seed in arms(options, size):
            found.append(one(method, strength, seed, size, out, options.reviews))
            told = {name: round(found[-1][name], 3) for name in ("gain", "vader_gain", "kl")}
            print(f"{method:12} {strength:<6g} seed {seed}  {json.dumps(told)}", flush=True)
            (out / "frontier.json").write_text(json.dumps(found, indent=1) + "\n")
            draw(out / "frontier.png", found)
    print(json.dumps({"runs": len(found), "figures": str(out / "frontier.json"), "picture": str(out / "frontier.png")}))


if __name__ == "__main__":
    main()
