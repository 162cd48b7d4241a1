# needs: lm, sentiment
"""A reward model of film critics' preferences: SmolLM2-135M with a scalar head learns which of two reviews of a film is
the kinder one.

    scripts/run experiments/sentiment_reward.py

From the model of sentiment_sft.py (made once, into runs/sentiment_sft), on pairs of a fresh and a rotten review of one
film. Ends with the share of pairs that it gets right of films that it has read nothing about, how well calibrated it
is, and beside it what an independent classifier gets right of the same pairs; and with a folder that transformers loads
as a sequence classifier, which sentiment_rlhf.py takes as its reward. On CPU the preset is
configs/reward/sentiment_cpu.yaml; on GPU and TPU it is configs/reward/sentiment.yaml, which sees every pair.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import sentiment_sft
from sentiment import by_film, kinder, pairs, reviews

from jaxrl import cli, replace
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import Tuned, finetune


@dataclasses.dataclass(frozen=True)
class Options(cli.Options):
    """What is asked of one run, beside its config."""

    schedule: Schedule = Schedule(logs=25, evals=4, saves=2)
    sft: Path = Path("runs/sentiment_sft")
    """The run of sentiment_sft.py whose model is the body; it is made if it is not there."""


def learn(config: Any, sft: Path, **options: Any) -> Tuned:
    """Train it on the critics' pairs, and measure it on those of films held out."""
    config = replace(config, lm=replace(config.lm, name=str(sentiment_sft.model(sft))))
    train, held_out = by_film(reviews(), share=0.1)
    return finetune(config, pairs(train, "positive"), pairs(held_out, "positive"), **options)


def model(run_dir: Path, sft: Path) -> Path:
    """The folder of the reward model that such a run leaves; made now, by the preset, if it is not there."""
    if not (run_dir / "model").is_dir():
        config, _ = cli.preset("reward/sentiment", [])
        learn(config, sft, run_dir=run_dir, schedule=Options().schedule, resume=(run_dir / "run.json").is_file())
    return run_dir / "model"


def main() -> None:
    config, argv = cli.preset("reward/sentiment", sys.argv[1:])
    config, options = cli.parse(config, __doc__, argv, Options())
    with cli.sentences():
        tuned = learn(config, options.pop("sft"), **options)
    judged = pairs(by_film(reviews(), share=0.1)[1], "positive")
    chosen, rejected = (kinder([], [pair[side] for pair in judged]) for side in ("chosen", "rejected"))
    accuracy = tuned.result.figures["accuracy"]
    print(f"model       {tuned.folder}")
    cli.report(
        tuned.result,
        pairs=len(judged),
        accuracy_ci=float(1.96 * np.sqrt(accuracy * (1 - accuracy) / len(judged))),
        classifier_accuracy=float(np.mean(np.array(chosen) > np.array(rejected))),
    )


if __name__ == "__main__":
    main()
