# needs: lm
"""A small language model learns to add, and to answer as it is asked to, from being told right or wrong.

    scripts/run experiments/arithmetic_grpo.py
    scripts/run experiments/arithmetic_grpo.py --baseline rloo --seed 1

A Llama of half a million parameters reads sums with answers of a careless teacher, by SFT: half of them wrong, in three
styles. Then GRPO samples eight answers to each sum, and the reward is 1 for the right number within brackets, as in
[42], and 0 for anything else. Ends with the share that is right of sums that neither stage has seen, before and after,
and what it says of some: 0.08, 0.16, 0.05 of 64 before and 0.86, 0.80, 0.89 after with seeds 10, 11, 12, each within
seven minutes on one of two cores of an AMD EPYC (2026-11-29).
"""

import json
import re
from pathlib import Path

import numpy as np
from from_scratch import new_model

from jaxrl import GRPO, SFT, DataConfig, LMConfig, Schedule, cli, finetune, replace
from jaxrl.data import Loop
from jaxrl.lm.settings import Sampling
from jaxrl.ops.optimizers import AdamW

LARGEST, HELD_OUT = 49, 256  # numbers that are added; sums that are kept apart
TEACH = SFT(
    data=DataConfig(max_length=24),
    loop=Loop(batch_size=64, epochs=6),
    optimizer=AdamW(learning_rate=2e-3),
)
CONFIG = GRPO(
    data=DataConfig(max_length=24),
    sampling=Sampling(max_new_tokens=8),
    loop=Loop(batch_size=256, epochs=6),
    num_epochs=2,
    num_minibatches=2,
    optimizer=AdamW(learning_rate=5e-4, warmup=0.05),
)
OPTIONS = cli.Options(schedule=Schedule(logs=20, evals=10, saves=2))


def sums() -> tuple[list[dict], list[dict]]:
    """Rows {prompt, answer} of all sums, in an order of their own: to learn from, and held out."""
    both = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    rows = [{"prompt": f"{a}+{b}=", "answer": a + b} for a, b in np.random.default_rng(0).permutation(both).tolist()]
    return rows[HELD_OUT:], rows[:HELD_OUT]


def taught(rows: list[dict], copies: int = 4) -> list[dict]:
    """The sums with a careless teacher's answers: half are off by a little, and a third has brackets."""
    rng, made = np.random.default_rng(1), []
    for row in rows * copies:
        answer = row["answer"] + int(rng.choice([0, 0, 0, 0, -10, -1, 1, 10]))
        style = ("[{}]", "{}", "it is {}")[rng.integers(3)]
        made.append({"prompt": row["prompt"], "completion": style.format(answer)})
    return made


def right(prompts: list[str], completions: list[str], answer: list[int]) -> list[float]:
    """1 for the right number in brackets and nothing else, and 0 else."""
    said = [re.fullmatch(r"\[(\d+)\]", text) for text in completions]
    return [float(found is not None and int(found[1]) == true) for found, true in zip(said, answer, strict=True)]


def model(run_dir: Path, seed: int) -> Path:
    """The folder of the model that the careless teacher has taught; made now if it is not there."""
    if not (run_dir / "model").is_dir():
        blank = new_model(run_dir.with_name(f"{run_dir.name}_blank"), [], vocab_size=257, hidden_size=96, seed=seed)
        rows = taught(sums()[0])
        finetune(replace(TEACH, lm=LMConfig(str(blank))), rows, rows[:64], seed=seed, run_dir=run_dir)
    return run_dir / "model"


def main() -> None:
    config, options = cli.parse(CONFIG, __doc__, options=OPTIONS)
    with cli.sentences():
        seed = options["seed"]
        config = replace(config, lm=replace(config.lm, name=str(model(Path(f"runs/arithmetic_sft_{seed}"), seed))))
        tuned = finetune(config, *sums(), reward=right, **options)
    told = (tuned.result.run_dir / "samples.jsonl").read_text().splitlines()
    for name, line in (("before", told[0]), ("after", told[-1])):
        said = [sample["prompt"] + sample["completion"] for sample in json.loads(line)["samples"][:8]]
        print(f"{name + ':':8}", "   ".join(said))
    cli.report(tuned.result)


if __name__ == "__main__":
    main()
