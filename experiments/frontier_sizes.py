# needs: lm, sentiment
"""What frontier.py compares: models of each size, methods, and how strongly each is held to where it began."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import sentiment_reward
import sentiment_sft
from from_scratch import new_model
from sentiment import by_film, pairs, reviews, some

from jaxrl import DPO, GRPO, KTO, RLHF, SFT, DataConfig, LMConfig, Reward, Schedule, finetune
from jaxrl.data import Loop
from jaxrl.lm.settings import Sampling
from jaxrl.ops.optimizers import AdamW

QUIET = {"progress": False, "schedule": Schedule(logs=20, evals=10, saves=1)}


class Size(NamedTuple):
    """What fits a machine. model, reward_model: make them, or find them, in a folder. rates: of what learns from rows,
    and from a reward. updates: the same. batch: completions an update. workers: processes, each with a share of the
    cores: two programs this small keep two cores busier than one does.
    """

    model: Callable[[Path], Path]
    reward_model: Callable[[Path], Path]
    lora_rank: int
    rates: tuple[float, float]
    updates: tuple[int | None, int]
    batch: int
    seeds: tuple[int, ...]
    strengths: int
    workers: int = 1


def tiny(out: Path) -> Path:
    """A critic of 340,000 parameters, from scratch."""
    run_dir = out / "sft"
    if not (run_dir / "model").is_dir():
        train, held_out = sentiment_sft.rows()
        texts = [row["prompt"] + row["completion"] for row in train]
        blank = new_model(out / "blank", texts, vocab_size=1024, hidden_size=96, layers=2)
        config = SFT(
            lm=LMConfig(str(blank)),
            data=DataConfig(max_length=96, buckets=(48, 96)),
            loop=Loop(batch_size=32, epochs=4),
            optimizer=AdamW(learning_rate=3e-3, weight_decay=0.1),
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
    "tiny": Size(tiny, tiny_reward, 0, (5e-4, 1e-3), (80, 40), 64, (0, 1, 2), 3, workers=2),
    "smollm2": Size(smollm2, smollm2_reward, 16, (5e-4, 1e-3), (50, 30), 32, (0, 1, 2), 3),
    "accelerator": Size(smollm2, smollm2_reward, 16, (5e-4, 2e-4), (None, 200), 256, (0, 1, 2, 3, 4), 5),
}
STRENGTHS = {  # from weak to strong; a size takes so many, from the middle
    "dpo": (0.03, 0.05, 0.1, 0.3, 1.0),
    "ipo": (0.05, 0.1, 0.3, 1.0, 3.0),
    "kto": (0.03, 0.05, 0.1, 0.3, 1.0),
    "ppo": (0.003, 0.01, 0.02, 0.05, 0.2),
    "grpo": (0.03, 0.1, 0.3, 1.0, 3.0),  # of advantages in units of a group's spread
    "rloo": (0.003, 0.01, 0.03, 0.1, 0.3),
    "ppo-learned": (0.001, 0.003, 0.03, 0.3, 1.0),
}


def configured(method: str, strength: float, size: Size) -> Any:
    """The settings of a method; the model comes later."""
    offline, online = (AdamW(learning_rate=rate) for rate in size.rates)
    data = DataConfig(max_length=96, buckets=(48, 96))
    rows = {"data": data, "loop": Loop(batch_size=32, max_updates=size.updates[0]), "optimizer": offline}
    said = {
        "data": DataConfig(max_length=96),
        "sampling": Sampling(max_new_tokens=64),  # as long as what is measured
        "loop": Loop(batch_size=size.batch, epochs=1000, max_updates=size.updates[1]),
        "optimizer": online,
        "kl_coef": strength,
        "missing_eos_penalty": 0.2,  # or a policy learns to go on and on, which the judge never minds
    }
    match method:
        case "dpo" | "ipo":
            return DPO(loss=method, beta=strength, **rows)
        case "kto":
            return KTO(beta=strength, **rows)
        case "grpo" | "rloo":
            return GRPO(baseline=method, **said, num_epochs=2)
        case _:
            return RLHF(**said, num_epochs=2, gae_lambda=1.0)


def going_on(run_dir: Path) -> dict[str, Any]:
    """Options of a run that may have begun."""
    return {**QUIET, "resume": (run_dir / "run.json").is_file()}
