# needs: lm, sentiment
"""Align SmolLM2-135M with film critics' thumbs up and down by KTO: more positive reviews, or more negative ones.

    scripts/run experiments/sentiment_kto.py
    scripts/run experiments/sentiment_kto.py --direction negative --seed 1

As sentiment_dpo.py, but from single reviews with a label, no pairs: critics' labels as they are. On CPU the preset is
configs/kto/sentiment_cpu.yaml; on GPU and TPU it is configs/kto/sentiment.yaml, which sees every review. The class with
fewer reviews gets a larger weight, so that both weigh the same; --desirable-weight and its twin multiply that.
"""

import sys

import sentiment_sft
from sentiment import by_film, class_weights, reviews, some, thumbs
from sentiment_dpo import Options
from sentiment_report import report

from jaxrl import cli, replace
from jaxrl.runs.finetuning import finetune

HELD_OUT = 128  # reviews measured along the way


def main() -> None:
    config, argv = cli.preset("kto/sentiment", sys.argv[1:])
    config, options = cli.parse(config, __doc__, argv, Options())
    direction, sft = options.pop("direction"), options.pop("sft")
    with cli.sentences():
        config = replace(config, lm=replace(config.lm, name=str(sentiment_sft.model(sft))))
        train, held_out = by_film(reviews(), share=0.1)
        rows = thumbs(train, direction)
        config = replace(config, **{name: getattr(config, name) * x for name, x in class_weights(rows).items()})
        tuned = finetune(config, rows, some(thumbs(held_out, direction), HELD_OUT), samples=8, **options)
        report(tuned, held_out, direction, options["seed"])


if __name__ == "__main__":
    main()
