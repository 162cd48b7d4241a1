# needs: lm, sentiment
"""SmolLM2-135M learns to write film critics' verdicts by supervised fine-tuning, in six minutes on two idle CPU cores.

    scripts/run experiments/sentiment_sft.py
    scripts/run experiments/sentiment_sft.py --lora-rank 0 --learning-rate 2e-5 --max-updates 1000

Ends with the loss on films that were not trained on, what the model says before and after, and a folder that
transformers loads. `finetune.py` does the same with a file of your own.
"""

from pathlib import Path
from typing import Any

import jax
from sentiment import by_film, prompt, reviews, some

from jaxrl import cli
from jaxrl.algorithms import SFT
from jaxrl.data import DataConfig, Loop
from jaxrl.lm import LMConfig, complete
from jaxrl.ops.optimizers import AdamW
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import Tuned, finetune

CONFIG = SFT(
    lm=LMConfig("smollm2-135m", lora_rank=16),
    data=DataConfig(max_length=96, buckets=(32, 40, 48, 96)),
    loop=Loop(batch_size=16, max_updates=120),
    optimizer=AdamW(learning_rate=1e-3),
)
OPTIONS = cli.Options(schedule=Schedule(logs=60, evals=2, saves=4))
HELD_OUT = 256  # rows of held-out films; there are five times as many, but measuring them all takes minutes


def main() -> None:
    config, options = cli.parse(CONFIG, __doc__, options=OPTIONS)
    with cli.sentences():
        train, held_out = rows()
        tuned = finetune(config, train, some(held_out, HELD_OUT), **options)
    show(tuned, [row["movie"] for row in held_out], options["seed"])
    cli.report(tuned.result)


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reviews to learn from and held-out ones, fresh and rotten, without their labels: what is taught is how critics
    write, and a rotten verdict is as good an example of that.
    """
    return by_film([{k: v for k, v in row.items() if k != "label"} for row in reviews()], share=0.1)


def model(run_dir: Path) -> Path:
    """The folder of the model that such a run leaves; made now, with the settings above, if it is not there."""
    if not (run_dir / "model").is_dir():
        train, held_out = rows()
        resume = (run_dir / "run.json").is_file()
        finetune(CONFIG, train, some(held_out, HELD_OUT), run_dir=run_dir, schedule=OPTIONS.schedule, resume=resume)
    return run_dir / "model"


def show(tuned: Tuned, films: list[str], seed: int, count: int = 6) -> None:
    """Print what the model says of some films that it has read nothing about, before and after."""
    titles = sorted(set(films))[:: max(1, len(set(films)) // count)][:count]
    prompts, key = [prompt(title) for title in titles], jax.random.fold_in(jax.random.key(seed), 1)
    for name, params in (("before", tuned.base.params), ("after", tuned.params)):
        said = complete(tuned.model, params, tuned.base.tokenizer, prompts, key, max_new_tokens=64)
        print(
            f"\n{name}:",
            *(f"{ask} {' '.join(text.split())}" for ask, text in zip(prompts, said, strict=True)),
            sep="\n  ",
        )
    print(f"\nmodel       {tuned.folder}")


if __name__ == "__main__":
    main()
