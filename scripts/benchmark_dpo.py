# needs: lm
"""One DPO step on SmolLM2-135M beside TRL's: seconds, and peak memory of the process.

    scripts/run scripts/benchmark_dpo.py compare --oracle other-env/bin/python
    scripts/run scripts/benchmark_dpo.py jaxrl

8 pairs of 48 tokens, float32, all parameters trained by AdamW with clipping, reference log-probs computed beforehand.
Each arm is a process of its own; they take turns on the same cores. `--oracle` names a Python with torch, transformers
and trl, under which this file imports nothing of jaxrl's: arm `trl` is TRL's own DPOTrainer.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PAIRS, LENGTH, PROMPT = 8, 48, 8
SETTINGS = {"learning_rate": 1e-6, "beta": 0.1}
WORDS = "the a of film and story is not very it but good bad all time this that actor scene plot".split()


def rows() -> list[dict[str, str]]:
    """Texts of words that are one token each: prompts of PROMPT tokens, answers that with their EOS fill LENGTH."""
    draw, answer = np.random.default_rng(0), LENGTH - PROMPT - 1

    def text(count: int) -> str:
        return "".join(f" {word}" for word in draw.choice(WORDS, count))

    return [{"prompt": text(PROMPT), "chosen": text(answer), "rejected": text(answer)} for _ in range(PAIRS)]


def jaxrl(steps: int, remat: bool) -> dict:
    """Each step of jaxrl's DPO: the same compiled step that `train` and `run` repeat."""
    import jax

    from jaxrl import cli, replace
    from jaxrl.algorithms import DPO
    from jaxrl.data import DataConfig, prepare
    from jaxrl.lm import LMConfig, language_model, load_model
    from jaxrl.lm.reference import with_reference
    from jaxrl.training.programs import program

    cli.enable_compilation_cache()
    base, lm = load_model("smollm2-135m"), LMConfig(remat=remat)
    config = replace(DPO(lm=lm, reference="cached"), batch_size=PAIRS, epochs=steps, **SETTINGS)
    model = language_model(base.config, remat=remat)
    data = prepare(DataConfig(max_length=LENGTH, buckets=(LENGTH,)), base.tokenizer, rows(), []).data
    assert data.train[0].chosen.length.tolist() == data.train[0].rejected.length.tolist() == [LENGTH] * PAIRS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"
        data = data._replace(train=with_reference(data.train, path, "", model, base.params, PAIRS))
    init = jax.jit(lambda params, data, key: program(config, network=model, params=params, data=data).init(key))
    state, shapes = init(base.params, data, jax.random.key(0)), jax.eval_shape(lambda x: x, base.params)
    del base  # the step asks for the reference's log-probs, not for the reference
    step = jax.jit(
        lambda data, state: program(config, network=model, params=shapes, data=data).step(state), donate_argnums=1
    )
    seconds, losses = [], []
    for _ in range(steps):
        began = time.perf_counter()
        state, metrics = jax.block_until_ready(step(data, state))
        seconds.append(time.perf_counter() - began)
        losses.append(float(metrics["loss"].value))
    return figures(seconds, losses)


def trl(steps: int, folder: str) -> dict:
    """Each step of TRL's DPOTrainer, from one step's end to the next's. folder: of the model."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")
    import datasets
    import torch
    import transformers
    import trl

    torch.set_num_threads(os.cpu_count())
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ends = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        arguments = trl.DPOConfig(
            output_dir=output,
            per_device_train_batch_size=PAIRS,
            max_steps=steps,
            max_length=LENGTH,
            precompute_ref_log_probs=True,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            max_grad_norm=1.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **SETTINGS,
        )
        dataset = datasets.Dataset.from_list(rows())
        trainer = trl.DPOTrainer(
            model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer, callbacks=[Clock()]
        )
        for row in trainer.train_dataset:
            assert {len(row["prompt_ids"] + row[side]) for side in ("chosen_ids", "rejected_ids")} == {LENGTH}
        began = time.perf_counter()
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return figures(np.diff([began, *ends]).tolist(), losses) | {"trl": trl.__version__, "torch": torch.__version__}


def figures(seconds: list[float], losses: list[float]) -> dict:
    """What an arm reports."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(min(seconds[1:]), 3), "peak GiB": round(peak, 2), "losses": losses[:2], "all": seconds}


def compare(oracle: str, steps: int, rounds: int) -> dict:
    """All arms in turns; of their rounds the least time and the largest peak, and the share of TRL's."""
    from jaxrl.lm import load_model, save_model
    from jaxrl.runs.directory import machine

    with tempfile.TemporaryDirectory() as folder:
        base = load_model("smollm2-135m")
        save_model(Path(folder) / "model", base.config, base.params, base.tokenizer)
        commands = {
            "jaxrl": [sys.executable, __file__, "jaxrl"],
            "jaxrl, remat": [sys.executable, __file__, "jaxrl", "--remat"],
            "trl": [oracle, __file__, "trl", "--model", f"{folder}/model"],
        }
        seen = {name: [] for name in commands}
        for _ in range(rounds):
            for name, command in commands.items():
                seen[name].append(last_json([*command, "--steps", str(steps)]))
    first = [run["losses"] for runs in seen.values() for run in runs]
    assert np.ptp(first, axis=0).max() < 1e-4, f"the arms do not compute the same: losses {first}"
    found = {
        name: {"seconds": min(run["seconds"] for run in runs), "peak GiB": max(run["peak GiB"] for run in runs)}
        for name, runs in seen.items()
    }
    share = {name: {k: round(x / found["trl"][k], 3) for k, x in figure.items()} for name, figure in found.items()}
    about = {**machine(), "load": os.getloadavg()[0], "python": platform.python_version(), "date": time.strftime("%F")}
    return {"found": found, "share of trl": share, "rounds": seen, "machine": about}


def last_json(command: list[str]) -> dict:
    """The last line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "jaxrl", "trl"))
    parser.add_argument("--oracle", help="a Python with torch, transformers and trl")
    parser.add_argument("--model", help="for trl: a folder of SmolLM2-135M")
    parser.add_argument("--steps", type=int, default=5, help="per process; the first is not timed")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each arm")
    parser.add_argument("--remat", action="store_true", help="recompute layers in the backward pass")
    asked = parser.parse_args()
    if asked.steps < 2 or (asked.what == "compare" and not asked.oracle):
        parser.error("needs --steps of at least 2, and to compare an --oracle")
    arms = {
        "jaxrl": lambda: jaxrl(asked.steps, asked.remat),
        "trl": lambda: trl(asked.steps, asked.model),
        "compare": lambda: compare(asked.oracle, asked.steps, asked.rounds),
    }
    print(json.dumps(arms[asked.what]()))


if __name__ == "__main__":
    main()
