# needs: lm
"""One step of DPO, KTO or SFT on SmolLM2-135M beside TRL's: seconds, peak memory of the process, and a floor.

    scripts/run scripts/benchmark_dpo.py compare --oracle other-env/bin/python
    scripts/run scripts/benchmark_dpo.py jaxrl --algorithm sft

8 pairs of 48 tokens, or 16 answers, float32, all parameters trained by AdamW with clipping, reference log-probs
computed beforehand. Each arm is a process of its own; they take turns on the same cores. `--oracle` names a Python with
torch, transformers and trl, under which this file imports nothing of jaxrl's: arm `trl` is TRL's own trainer.
`compare` also runs floor_dpo.py: where jaxrl's step spends its time, and what it cannot do without.
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
RATE, BETA = 1e-6, 0.1
clock = time.perf_counter
WORDS = "the a of film and story is not very it but good bad all time this that actor scene plot".split()


def rows(algorithm: str) -> list[dict]:
    """Texts of words that are one token each: prompts of PROMPT tokens, answers that with their EOS fill LENGTH."""
    draw, answer = np.random.default_rng(0), LENGTH - PROMPT - 1

    def text(count: int) -> str:
        return "".join(f" {word}" for word in draw.choice(WORDS, count))

    pairs = [{"prompt": text(PROMPT), "chosen": text(answer), "rejected": text(answer)} for _ in range(PAIRS)]
    if algorithm == "dpo":
        return pairs
    label = (lambda side: {"label": side == "chosen"}) if algorithm == "kto" else lambda side: {}
    return [
        {"prompt": pair["prompt"], "completion": pair[side], **label(side)}
        for side in ("chosen", "rejected")
        for pair in pairs
    ]


def prepared(algorithm: str, steps: int, remat: bool | None):
    """(config, model, base, data) of `steps` updates, the reference's log-probs filled in."""
    from jaxrl import replace
    from jaxrl.algorithms import DPO, KTO, SFT
    from jaxrl.data import DataConfig, prepare
    from jaxrl.lm import LMConfig, language_model, load_model
    from jaxrl.lm.reference import with_reference

    base, settings = load_model("smollm2-135m"), {"lm": LMConfig(remat=remat)}
    # KTO's mismatched pairs are as wide as the longest prompt that the data may have makes them.
    settings["data"] = DataConfig(max_length=LENGTH, max_prompt_length=PROMPT, buckets=(LENGTH,))
    config = {
        "dpo": lambda: DPO(**settings, reference="cached", beta=BETA),
        "kto": lambda: KTO(**settings, reference="cached", beta=BETA),
        "sft": lambda: SFT(**settings),
    }[algorithm]()
    size = PAIRS if algorithm == "dpo" else 2 * PAIRS
    config = replace(config, batch_size=size, epochs=steps, learning_rate=RATE)
    model = language_model(base.config, remat=remat)
    data = prepare(config.data, base.tokenizer, rows(algorithm), []).data
    (bucket,) = data.train
    for side in bucket if algorithm == "dpo" else (bucket,):
        assert np.asarray(side.length).tolist() == [LENGTH] * size
    if algorithm != "sft":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "reference.npz"
            data = data._replace(train=with_reference(data.train, path, "", model, base.params, size))
    return config, model, base, data


def jaxrl(algorithm: str, steps: int, remat: bool | None) -> dict:
    """Each step of jaxrl's: the same compiled step that `train` and `run` repeat."""
    import jax

    from jaxrl import cli
    from jaxrl.training.programs import program

    cli.enable_compilation_cache()
    config, model, base, data = prepared(algorithm, steps, remat)
    init = jax.jit(lambda params, data, key: program(config, network=model, params=params, data=data).init(key))
    state, params = init(base.params, data, jax.random.key(0)), base.params
    del base
    if algorithm != "kto":  # the step asks for the reference's log-probs, not for the reference; z0 asks for itself
        shapes, params = jax.eval_shape(lambda x: x, params), ()
    step = jax.jit(
        lambda data, params, state: program(config, network=model, params=params or shapes, data=data).step(state),
        donate_argnums=2,
    )
    seconds, losses = [], []
    for _ in range(steps):
        began = clock()
        state, metrics = jax.block_until_ready(step(data, params, state))
        seconds.append(clock() - began)
        losses.append(float(metrics["loss"].value))
    return figures(seconds, losses)


def trl(algorithm: str, steps: int, folder: str) -> dict:
    """Each step of TRL's trainer, from one step's end to the next's. folder: of the model."""
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")
    import datasets
    import torch
    import transformers
    import trl

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers.utils.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ends, name = [], algorithm.upper()
    extra = {"max_length": LENGTH}
    if algorithm != "sft":
        extra |= {"beta": BETA, "precompute_ref_log_probs": True}
    if algorithm == "kto":
        extra |= {"train_sampling_strategy": "sequential"}

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ends.append(clock())

    with tempfile.TemporaryDirectory() as output:
        arguments = getattr(trl, f"{name}Config")(
            output_dir=output,
            per_device_train_batch_size=PAIRS if algorithm == "dpo" else 2 * PAIRS,
            max_steps=steps,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            max_grad_norm=1.0,
            learning_rate=RATE,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **extra,
        )
        dataset = datasets.Dataset.from_list(rows(algorithm))
        trainer = getattr(trl, f"{name}Trainer")(
            model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer, callbacks=[Clock()]
        )
        if algorithm == "dpo":
            for row in trainer.train_dataset:
                assert {len(row["prompt_ids"] + row[side]) for side in ("chosen_ids", "rejected_ids")} == {LENGTH}
        began = clock()
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return figures(np.diff([began, *ends]).tolist(), losses) | {"trl": trl.__version__, "torch": torch.__version__}


def figures(seconds: list[float], losses: list[float]) -> dict:
    """What an arm reports."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(min(seconds[1:]), 3), "peak GiB": round(peak, 2), "losses": losses[:2], "all": seconds}


def compare(algorithm: str, oracle: str, steps: int, rounds: int) -> dict:
    """All arms in turns; of their rounds the least time and the largest peak, and the share of TRL's."""
    from jaxrl.lm import load_model, save_model
    from jaxrl.runs.header import machine

    with tempfile.TemporaryDirectory() as folder:
        base = load_model("smollm2-135m")
        save_model(Path(folder) / "model", base.config, base.params, base.tokenizer)
        own = [sys.executable, __file__]
        commands = {
            "jaxrl": [*own, "jaxrl"],
            "jaxrl, all kept": [*own, "jaxrl", "--keep"],
            "trl": [oracle, __file__, "trl", "--model", f"{folder}/model"],
        }
        common = ["--algorithm", algorithm, "--steps", str(steps), *(["--cpu"] if clock is time.process_time else [])]
        seen, floors = {name: [] for name in commands}, []
        for _ in range(rounds):
            for name, command in commands.items():
                seen[name].append(last_json([*command, *common]))
            floors.append(last_json([sys.executable, str(Path(__file__).with_name("floor_dpo.py")), *common]))
    first = [run["losses"] for runs in seen.values() for run in runs]
    # KTO's second loss depends on whose completions are whose mismatches, which each library draws in its own way.
    apart = np.ptp(first, axis=0)[: 1 if algorithm == "kto" else 2].max()
    assert apart < 1e-4, f"the arms do not compute the same: losses {first}"
    found = {
        name: {"seconds": min(run["seconds"] for run in runs), "peak GiB": max(run["peak GiB"] for run in runs)}
        for name, runs in seen.items()
    }
    share = {name: {k: round(x / found["trl"][k], 3) for k, x in figure.items()} for name, figure in found.items()}
    about = {**machine(), "load": os.getloadavg()[0], "python": platform.python_version(), "date": time.strftime("%F")}
    return {"found": found, "share of trl": share, "floor": floors, "rounds": seen, "machine": about}


def last_json(command: list[str]) -> dict:
    """The last line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "jaxrl", "trl"))
    parser.add_argument("--algorithm", choices=("dpo", "kto", "sft"), default="dpo")
    parser.add_argument("--oracle", help="a Python with torch, transformers and trl")
    parser.add_argument("--model", help="for trl: a folder of SmolLM2-135M")
    parser.add_argument("--steps", type=int, default=5, help="per process; the first is not timed")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each arm")
    parser.add_argument("--cpu", action="store_true", help="seconds of CPU, for one core of a busy machine")
    parser.add_argument("--keep", action="store_true", help="keep activations for the backward pass: lm.remat off")
    asked = parser.parse_args()
    if asked.steps < 2 or (asked.what == "compare" and not asked.oracle):
        parser.error("needs --steps of at least 2, and to compare an --oracle")
    if asked.cpu:
        globals()["clock"] = time.process_time
    remat = False if asked.keep else None
    arms = {
        "jaxrl": lambda: jaxrl(asked.algorithm, asked.steps, remat),
        "trl": lambda: trl(asked.algorithm, asked.steps, asked.model),
        "compare": lambda: compare(asked.algorithm, asked.oracle, asked.steps, asked.rounds),
    }
    print(json.dumps(arms[asked.what]()))


if __name__ == "__main__":
    main()
