"""SmolLM2-135M learns to write film critics' verdicts by supervised fine-tuning, in ten minutes on two CPU cores.

    scripts/run experiments/sentiment_sft.py
    scripts/run experiments/sentiment_sft.py --lora-rank 0 --learning-rate 2e-5 --max-updates 1000

Ends with the loss on films that were not trained on, what the model says before and after, and a folder that
transformers loads. `finetune.py` does the same with a file of your own.
"""

import jax
from sentiment import PROMPT, by_film, reviews

from jaxrl import cli
from jaxrl.algorithms import SFT
from jaxrl.data import DataConfig
from jaxrl.lm import LMConfig, complete
from jaxrl.run import Schedule
from jaxrl.tune import Tuned, tune

CONFIG = SFT(
    lm=LMConfig("smollm2-135m", lora_rank=16),
    data=DataConfig(max_length=96, buckets=(32, 48, 96)),
    max_updates=120,
    batch_size=16,
    learning_rate=1e-3,
)
OPTIONS = cli.Options(schedule=Schedule(logs=60, evals=2, saves=4))
HELD_OUT = 256  # rows; the held-out films have five times as many, but measuring them all takes minutes


def main() -> None:
    config, options = cli.parse(CONFIG, __doc__, options=OPTIONS)
    with cli.sentences():
        train, held_out = by_film(reviews(), share=0.1)
        tuned = tune(config, train, held_out[:HELD_OUT], **options)
    show(tuned, options["seed"])
    cli.report(tuned.result)


def show(tuned: Tuned, seed: int, count: int = 6) -> None:
    """Print what the model says of films, before and after."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    for title, params in (("before", tuned.base.params), ("after", tuned.params)):
        said = complete(tuned.model, params, tuned.base.tokenizer, [PROMPT] * count, key, max_new_tokens=64)
        print(f"\n{PROMPT} ({title})", *(f"- {' '.join(text.split())}" for text in said), sep="\n  ")
    print(f"\nmodel       {tuned.folder}")


if __name__ == "__main__":
    main()
