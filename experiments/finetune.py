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
transformers loads, or PEFT with --adapter-only.
"""

import dataclasses
import sys

from jaxrl import cli
from jaxrl.algorithms import DPO, KTO, SFT
from jaxrl.runs.finetuning import finetune

CONFIGS = {"sft": SFT(), "dpo": DPO(), "kto": KTO()}


@dataclasses.dataclass(frozen=True)
class Options(cli.Options):
    """What is asked of one run, beside its config."""

    adapter_only: bool = False
    """Save the adapters alone, in run_dir/adapter, and not the model with them merged."""


def main() -> None:
    name, argv = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name not in CONFIGS:
        print(f"{__doc__}\n`finetune.py {'|'.join(CONFIGS)} --help` lists every setting.")
        sys.exit(0 if name in ("-h", "--help") else 2)
    config, options = cli.parse(CONFIGS[name], __doc__, argv, Options())
    with cli.sentences():
        tuned = finetune(config, samples=4, **options)
    print("".join(f"note        {note}\n" for note in tuned.notes), end="")
    print(f"rows        {tuned.counts}\nmodel       {tuned.folder}")
    cli.report(tuned.result)


if __name__ == "__main__":
    main()
