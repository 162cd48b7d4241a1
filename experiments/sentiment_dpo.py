# needs: lm, sentiment
"""Align SmolLM2-135M with film critics' labels by DPO: more positive reviews, or more negative ones.

    scripts/run experiments/sentiment_dpo.py
    scripts/run experiments/sentiment_dpo.py --direction negative --seed 1
    scripts/run experiments/sentiment_dpo.py --preset dpo/sentiment --loss ipo

First the model is taught to write reviews (sentiment_sft.py, once, into runs/sentiment_sft); that model is the
reference. Then it learns from pairs of reviews of one film, a fresh and a rotten one. Ends with reviews before and
after, gold reward against KL with intervals, and a folder that transformers loads. It is sentiment that moves, not
helpfulness: see sentiment_report.py. On CPU the preset is configs/dpo/sentiment_cpu.yaml; on GPU and TPU it is
configs/dpo/sentiment.yaml, which sees every pair.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import sentiment_sft
from sentiment import by_film, pairs, reviews, some
from sentiment_report import report

from jaxrl import cli, replace
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import finetune

HELD_OUT = 64  # pairs measured along the way


@dataclasses.dataclass(frozen=True)
class Options(cli.Options):
    """What is asked of one run, beside its config."""

    schedule: Schedule = Schedule(logs=25, evals=2, saves=2)
    direction: Literal["positive", "negative"] = "positive"
    """Which reviews to prefer."""
    sft: Path = Path("runs/sentiment_sft")
    """The run of sentiment_sft.py whose model is the reference; it is made if it is not there."""


def main() -> None:
    config, argv = cli.preset("dpo/sentiment", sys.argv[1:])
    config, options = cli.parse(config, __doc__, argv, Options())
    direction, sft = options.pop("direction"), options.pop("sft")
    with cli.sentences():
        config = replace(config, lm=replace(config.lm, name=str(sentiment_sft.model(sft))))
        train, held_out = by_film(reviews(), share=0.1)
        chosen = pairs(train, direction, options["seed"])
        tuned = finetune(config, chosen, some(pairs(held_out, direction), HELD_OUT), samples=8, **options)
        report(tuned, held_out, direction, options["seed"])


if __name__ == "__main__":
    main()
