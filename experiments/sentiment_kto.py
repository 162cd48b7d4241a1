"""Align SmolLM2-135M with film critics' thumbs up and down by KTO: more positive reviews, or more negative ones.

    scripts/run experiments/sentiment_kto.py
    scripts/run experiments/sentiment_kto.py --direction negative --seed 1

As sentiment_dpo.py, but from single reviews with a label, no pairs: critics' labels as they are.
"""

import sentiment_sft
from sentiment import by_film, reviews, thumbs
from sentiment_dpo import Options
from sentiment_report import report

from jaxrl import cli, replace
from jaxrl.algorithms import KTO
from jaxrl.data import DataConfig
from jaxrl.lm import LMConfig
from jaxrl.tune import tune

CONFIG = KTO(
    lm=LMConfig(lora_rank=16),
    data=DataConfig(max_length=96, max_prompt_length=16, buckets=(40, 56, 96)),
    max_updates=50,
    batch_size=16,
    learning_rate=5e-4,
)
HELD_OUT = 128  # reviews measured along the way


def main() -> None:
    config, options = cli.parse(CONFIG, __doc__, options=Options())
    direction, sft = options.pop("direction"), options.pop("sft")
    with cli.sentences():
        config = replace(config, lm=replace(config.lm, name=str(sentiment_sft.model(sft))))
        train, held_out = by_film(reviews(), share=0.1)
        tuned = tune(config, thumbs(train, direction), thumbs(held_out, direction)[:HELD_OUT], samples=8, **options)
        films = sorted({row["movie"] for row in held_out})
        found = report(tuned, films, direction, options["seed"])
    print(f"samples     {tuned.result.run_dir / 'samples.md'}\nreward      {tuned.result.run_dir / 'reward.png'}")
    print(f"model       {tuned.folder}")
    cli.report(tuned.result, report=found)


if __name__ == "__main__":
    main()
