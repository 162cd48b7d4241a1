"""Fine-tune a language model on a file of your own: rows {prompt, completion} or {messages}.

    scripts/run experiments/finetune.py --path mine.jsonl --name smollm2-135m
    scripts/run experiments/finetune.py --path mine.jsonl --max-length 256 --buckets 64 128 256 --lora-rank 16

Look at the file first: `jaxrl data lint mine.jsonl`. Ends with the held-out loss before and after, and a folder that
transformers loads.
"""

from jaxrl import cli
from jaxrl.algorithms import SFT
from jaxrl.tune import tune


def main() -> None:
    config, options = cli.parse(SFT(), __doc__)
    with cli.sentences():
        tuned = tune(config, **options)
    print(f"rows        {tuned.counts}\nmodel       {tuned.folder}")
    cli.report(tuned.result)


if __name__ == "__main__":
    main()
