# needs: lm
"""Fine-tune or align a language model on a file of your own.

    scripts/run experiments/finetune.py sft --path mine.jsonl --name smollm2-135m
    scripts/run experiments/finetune.py dpo --path pairs.jsonl --name runs/mine/model --lora-rank 16
    scripts/run experiments/finetune.py kto --path thumbs.jsonl --name runs/mine/model --buckets 64 128 256
    scripts/run experiments/finetune.py sft --path mine.jsonl --lora-rank 16 --adapter-only
    scripts/run experiments/finetune.py dpo --path pairs.jsonl --name runs/mine/adapter --lora-continue

Rows are {prompt, completion} or {messages} for sft, {prompt, chosen, rejected} for dpo, {prompt, completion, label} for
kto; `--format` names other shapes, and `--split` a part of a folder. Look at them first: `jaxrl data lint mine.jsonl`.
Ends with the held-out figures before and after, what the model says along the way (samples.jsonl), and a folder that
transformers loads, or PEFT with --adapter-only. This is `jaxrl finetune`, from a checkout.
"""

import sys

from jaxrl import cli

if __name__ == "__main__":
    with cli.sentences():
        cli.finetune(sys.argv[1:], __doc__)
