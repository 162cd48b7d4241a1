"""Reference runs of preference optimisation from TRL itself, which jaxrl never imports.

Runs in an environment of its own (torch, transformers, datasets, trl), named on the command line:
    PYTHON scripts/oracle_trl.py tests/algorithms/golden [--only dpo kto] [--learning-rate 1e-3]

One file trl_NAME.json for each of RUNS: 20 steps of TRL's DPOTrainer or KTOTrainer on a tiny random Llama, through
`trainer.train()`. A subclass and forward hooks only listen: losses, gradients and log-probabilities are the trainer's.
Weights are not stored: `tensor` of oracle_lm.py makes each one from its name and shape, with the same bits everywhere.
The text is made of words t1 ... t96, word ti being token i; token 0 is end of text and padding at once. What counts
are the ids in `rows`, read back from the trainer's own data set and checked against each batch that the model saw.

Every number of a step is taken before that step's update. Log-probabilities are sums over a completion, its end of
text included. Each run is repeated in float64 with a plain log-softmax in place of TRL's fused head: the largest
differences are in `float64`, and say how much of a disagreement rounding can explain.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")

import accelerate
import datasets
import numpy as np
import torch
import transformers
import trl
from oracle_lm import RECIPE, config_file, digest, hub_config, stored, tensor, tiny_model, write
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers.models.llama import modeling_llama
from trl.trainer import utils as trl_utils

EOS, VOCAB, BATCH, STEPS = 0, 97, 4, 20
VERSIONS = {
    "trl": trl.__version__,
    "transformers": transformers.__version__,
    "torch": torch.__version__,
    "accelerate": accelerate.__version__,
    "datasets": datasets.__version__,
    "numpy": np.__version__,
    "python": platform.python_version(),
}
OPTIMIZER = {
    "name": "AdamW",
    "learning_rate": 1e-3,
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-6,  # at 1e-8 Adam makes whole steps of rounding: losses are some 40 times further from float64
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "schedule": "constant",
    "batch_size": BATCH,
    "gradient_accumulation": 1,
    "steps": STEPS,
}
RUNS = {
    "dpo": {"loss_type": "sigmoid"},
    "dpo_tied": {"model": "smollm", "loss_type": "sigmoid"},
    "cdpo": {"loss_type": ["sigmoid", "robust"], "loss_weights": [1.6, -0.6], "label_smoothing": 0.2},
    "ipo": {"loss_type": "ipo"},
    "hinge": {"loss_type": "hinge"},
    "robust": {"loss_type": "robust", "label_smoothing": 0.2},
    "apo_zero": {"loss_type": "apo_zero"},
    "kto": {"trainer": "KTO", "loss_type": "kto", "desirable_weight": 1.0, "undesirable_weight": 1.33},
    "apo_zero_unpaired": {"trainer": "KTO", "loss_type": "apo_zero_unpaired"},
}
BETA = 0.1

# Rows: (prompt, its length, chosen length, rejected length), lengths without end of text. A prompt used twice is
# shared: within a batch (rows 0 and 1; 5, 6 and 7) and between batches (2 and 9).
SHAPES = [
    *((0, 5, 4, 7), (0, 5, 6, 2), (1, 9, 3, 10), (2, 3, 5, 0)),
    *((3, 2, 3, 6), (4, 7, 1, 5), (4, 7, 8, 4), (4, 7, 2, 3)),
    *((5, 4, 6, 6), (1, 9, 5, 1), (6, 8, 4, 9), (7, 1, 7, 3)),
    *((8, 6, 9, 8), (9, 3, 2, 11), (10, 5, 10, 4), (11, 4, 5, 5)),
]
LABELS = [True, False, True, False, True, True, False, True, *[True] * 4, *[False] * 4]


def words(seed, count):
    """Token ids between 1 and VOCAB - 1, the same everywhere."""
    return (1 + np.random.PCG64(seed).random_raw(count) % np.uint64(VOCAB - 1)).astype(int).tolist() if count else []


def pairs():
    """Rows of token ids {prompt, chosen, rejected}, without the end of text that TRL adds; made to hit the corners."""
    rows = []
    for i, (prompt, length, chosen, rejected) in enumerate(SHAPES):
        ids = [
            words(1000 * (kind + 1) + n, count)
            for kind, n, count in zip((0, 1, 2), (prompt, i, i), (length, chosen, rejected), strict=True)
        ]
        rows.append(dict(zip(("prompt", "chosen", "rejected"), ids, strict=True)))
    rows[4]["rejected"][:3] = rows[4]["chosen"]  # one answer opens with the whole of the other
    rows[8]["rejected"][:2] = rows[8]["chosen"][:2]  # common opening words belong to the answers, not to the prompt
    rows[10]["prompt"][3] = EOS  # an end of text, which is padding too, inside a prompt
    rows[14]["chosen"].append(EOS)  # there already: TRL must not add a second one
    return rows


def text(ids):
    """The words of token ids."""
    return " ".join("</s>" if i == EOS else f"t{i}" for i in ids)


def unpaired():
    """The same rows as {prompt, completion, label}; two of the four batches hold one class only."""
    return [
        {"prompt": row["prompt"], "completion": row["chosen" if label else "rejected"], "label": label}
        for row, label in zip(pairs(), LABELS, strict=True)
    ]


def dataset(rows):
    """TRL's kind of data set: strings, the completion's first word parted from the prompt by a space of its own."""
    made = [
        {k: v if k == "label" else text(v) if k == "prompt" else f" {text(v)}" for k, v in row.items()} for row in rows
    ]
    return datasets.Dataset.from_list(made)


def tokenizer():
    """One token for each word, padding = end of text."""
    vocabulary = {"</s>": EOS, **{f"t{i}": i for i in range(1, VOCAB)}}
    raw = Tokenizer(WordLevel(vocabulary, unk_token="</s>"))
    raw.pre_tokenizer = WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="</s>")


# Listening to a trainer.


def listening(base):
    """The trainer class, writing down losses and the first gradient."""

    class Listening(base):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.heard_losses.append(loss.item())
            return loss

        def training_step(self, model, inputs, *args, **kwargs):
            if "label" in inputs:
                self.heard_labels.append(inputs["label"].tolist())
            out = super().training_step(model, inputs, *args, **kwargs)
            if not self.heard_gradient:
                self.heard_gradient.update({k: p.grad.clone() for k, p in model.named_parameters()})
            return out

    return Listening


def listen(trainer):
    """Hooks on policy and reference; the list they fill with who ran, on which ids and masks, and the sums."""
    calls = []

    def hook(who):
        def heard(module, args, kwargs, output):
            ids, mask, attended = kwargs["input_ids"], kwargs["labels"] != -100, kwargs["attention_mask"]
            assert output.log_probs.shape == (len(ids), ids.shape[1] - 1)
            trained = [
                (row[keep > 0].tolist(), int((keep - m.long()).sum()))
                for row, keep, m in zip(ids, attended, mask, strict=True)
            ]
            calls.append(
                {"who": who, "rows": trained, "width": ids.shape[1], "logps": output.log_probs.detach().sum(-1)}
            )

        return heard

    trainer.model.register_forward_hook(hook("policy"), with_kwargs=True)
    trainer.ref_model.register_forward_hook(hook("reference"), with_kwargs=True)
    return calls


class PlainHead:
    """What TRL's fused head computes, as a plain log-softmax in the dtype of its inputs."""

    @staticmethod
    def apply(hidden, weight, bias, labels, temperature, chunk, softcap, scale, outputs):
        assert (bias, temperature, softcap, scale) == (None, 1.0, None, 1.0)
        logits = hidden @ weight.T
        logps = logits.log_softmax(-1)
        nothing = torch.zeros(len(labels), dtype=logits.dtype)
        return logps.gather(-1, labels[:, None])[:, 0], nothing, nothing, nothing, nothing.bool()


class Double:
    """`torch` as Llama's code sees it in the float64 run: norms, softmax and rotation do not fall back to float32."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def trained(run, double=False):
    """The trainer after 20 steps, what it logged, what its models were asked, and its rows as ids."""
    options = dict(run)
    kind, name = options.pop("trainer", "DPO"), options.pop("model", "llama")
    base, config = {"DPO": (trl.DPOTrainer, trl.DPOConfig), "KTO": (trl.KTOTrainer, trl.KTOConfig)}[kind]
    policy, reference = tiny_model(name), tiny_model(name)
    if double:
        policy, reference = policy.double(), reference.double()
    with tempfile.TemporaryDirectory() as folder:
        arguments = config(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=1,
            max_steps=STEPS,
            optim="adamw_torch",
            learning_rate=OPTIMIZER["learning_rate"],
            adam_beta1=OPTIMIZER["beta1"],
            adam_beta2=OPTIMIZER["beta2"],
            adam_epsilon=OPTIMIZER["eps"],
            weight_decay=OPTIMIZER["weight_decay"],
            max_grad_norm=OPTIMIZER["max_grad_norm"],
            lr_scheduler_type="constant",
            warmup_steps=0,
            train_sampling_strategy="sequential",
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            max_length=None,
            seed=0,
            beta=BETA,
            **options,
        )
        trainer = listening(base)(
            model=policy,
            ref_model=reference,
            args=arguments,
            train_dataset=dataset(unpaired() if kind == "KTO" else pairs()),
            processing_class=tokenizer(),
        )
        trainer.heard_losses, trainer.heard_labels, trainer.heard_gradient = [], [], {}
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        calls = listen(trainer)
        if double:
            with (
                mock.patch.object(trl_utils, "_ChunkedLogProbFunction", PlainHead),
                mock.patch.object(modeling_llama, "torch", Double()),
            ):
                trainer.train()
                after = final(trainer, calls, kind)
        else:
            trainer.train()
            after = final(trainer, calls, kind)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == len(trainer.heard_losses) == STEPS
    return trainer, logs, calls, after


def rows_of(trainer, kind):
    """Rows as token ids, as the trainer's own data set has them after tokenisation."""
    names = ("prompt", "completion") if kind == "KTO" else ("prompt", "chosen", "rejected")
    rows = [{name: row[f"{name}_ids"] for name in names} for row in trainer.train_dataset]
    given = unpaired() if kind == "KTO" else pairs()
    for row, source in zip(rows, given, strict=True):
        for name in names:
            ended = source[name] + ([EOS] if name != "prompt" and source[name][-1:] != [EOS] else [])
            assert row[name] == ended, (row, source)
    return [
        {**row, "label": source["label"]} if kind == "KTO" else row for row, source in zip(rows, given, strict=True)
    ]


def final(trainer, calls, kind):
    """Policy's log-probabilities of all rows after the last update, through the trainer's own collator and loss."""
    asked, losses = len(calls), len(trainer.heard_losses)
    loader, found = trainer.get_train_dataloader(), []
    for batch in loader:
        with torch.no_grad():
            trainer.compute_loss(trainer.model, batch)
        policy = [call for call in calls[asked:] if call["who"] == "policy"][-1]
        found.append(policy["logps"])
        del calls[asked:]
    del trainer.heard_losses[losses:]
    if kind == "KTO":
        return {"policy": torch.cat(found).tolist()}
    chosen, rejected = zip(*(logps.chunk(2) for logps in found), strict=True)
    return {"policy_chosen": torch.cat(chosen).tolist(), "policy_rejected": torch.cat(rejected).tolist()}


def paired_step(log, calls, rows):
    """One step of DPOTrainer."""
    policy, reference = calls
    assert (policy["who"], reference["who"], policy["rows"]) == ("policy", "reference", reference["rows"])
    half = len(policy["rows"]) // 2
    keys = [(row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]) for row in rows]
    batch = [
        keys.index((won, lost))
        for (won, _), (lost, _) in zip(policy["rows"][:half], policy["rows"][half:], strict=True)
    ]
    assert [n for _, n in policy["rows"]] == [len(rows[i]["prompt"]) for i in batch] * 2
    sums = {
        f"{who}_{side}": logps.tolist()
        for who, call in (("policy", policy), ("reference", reference))
        for side, logps in zip(("chosen", "rejected"), call["logps"].chunk(2), strict=True)
    }
    return {
        "rows": batch,
        "width": policy["width"],
        **sums,
        "rewards_chosen": log["rewards/chosen"],
        "rewards_rejected": log["rewards/rejected"],
        "margin": log["rewards/margins"],
        "accuracy": log["rewards/accuracies"],
        "logps_chosen": log["logps/chosen"],
        "logps_rejected": log["logps/rejected"],
    }


def unpaired_step(log, calls, rows, labels):
    """One step of KTOTrainer."""
    expected = ["policy", "policy", "reference", "reference"] if len(calls) == 4 else ["policy", "reference"]
    assert [call["who"] for call in calls] == expected
    policy, reference = calls[len(calls) // 2 - 1], calls[-1]
    assert policy["rows"] == reference["rows"]
    keys = [row["prompt"] + row["completion"] for row in rows]
    batch = [keys.index(ids) for ids, _ in policy["rows"]]
    assert [n for _, n in policy["rows"]] == [len(rows[i]["prompt"]) for i in batch]
    assert labels == [rows[i]["label"] for i in batch]
    pairing = {}
    if len(calls) == 4:
        found = []
        for i, (ids, length) in zip(batch, calls[0]["rows"], strict=True):
            assert ids[:length] == rows[i]["prompt"]
            found.append(next(j for j in batch if rows[j]["completion"] == ids[length:]))
        raw = (calls[0]["logps"] - calls[2]["logps"]).mean()
        pairing = {
            "kl_completions": found,
            "kl_width": calls[0]["width"],
            "policy_kl": calls[0]["logps"].tolist(),
            "reference_kl": calls[2]["logps"].tolist(),
            "kl_raw": raw.item(),
        }
        assert log["kl"] == max(0.0, pairing["kl_raw"])
    return {
        "rows": batch,
        "width": policy["width"],
        "policy": policy["logps"].tolist(),
        "reference": reference["logps"].tolist(),
        **pairing,
        "kl": log["kl"],
        "rewards_chosen": log.get("rewards/chosen"),
        "rewards_rejected": log.get("rewards/rejected"),
        "margin": log.get("rewards/margins"),
        "logps_chosen": log.get("logps/chosen"),
        "logps_rejected": log.get("logps/rejected"),
    }


def steps_of(run, trainer, logs, calls, rows):
    """All steps, each with the calls that belong to it."""
    per_step = len(calls) // STEPS
    steps = []
    for i, (log, loss) in enumerate(zip(logs, trainer.heard_losses, strict=True)):
        own = calls[i * per_step : (i + 1) * per_step]
        assert abs(log["loss"] - loss) <= 1e-6 * max(1.0, abs(loss)), (log["loss"], loss)
        assert log["learning_rate"] == OPTIMIZER["learning_rate"]
        if run.get("trainer") == "KTO":
            found = unpaired_step(log, own, rows, trainer.heard_labels[i])
        else:
            found = paired_step(log, own, rows)
        steps.append({"step": i, "loss": loss, "grad_norm": log["grad_norm"], **found})
    return steps


# What is kept.


def short(value):
    """Floats of nested lists and dictionaries with eight significant digits."""
    if isinstance(value, dict):
        return {key: short(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [short(v) for v in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value


def parameters(trainer, name):
    """Each tensor after the last step: sums, how far it moved, its first entries; and its first gradient, unclipped."""
    before, after = stored(tiny_model(name)), stored(trainer.model)
    found = {}
    for key, value in after.items():
        value, start, slope = value.double(), before[key].double(), trainer.heard_gradient[key].double()
        assert torch.equal(start.float(), torch.from_numpy(tensor(key, tuple(start.shape))))
        found[key] = {
            "shape": list(value.shape),
            "sum": value.sum().item(),
            "abs_sum": value.abs().sum().item(),
            "moved": (value - start).abs().sum().item(),
            "first": value.flatten()[:4].tolist(),
            "first_gradient_norm": slope.norm().item(),
            "first_gradient_sum": slope.sum().item(),
        }
    return found


def difference(left, right):
    """Largest absolute difference between two nested records, by the innermost key."""
    found = {}

    def visit(key, a, b):
        if isinstance(a, dict):
            for k in a:
                visit(k, a[k], b[k])
        elif isinstance(a, list | tuple):
            for x, y in zip(a, b, strict=True):
                visit(key, x, y)
        elif isinstance(a, float):
            found[key] = max(found.get(key, 0.0), abs(a - b))
        else:
            assert a == b, (key, a, b)

    visit(None, left, right)
    return found


NOTES = [
    "Numbers of a step come before its update; log-probabilities are sums over the completion, end of text included.",
    "grad_norm is the whole gradient's, before clipping; the clip factor is min(1, max_grad_norm / (norm + 1e-6)).",
    "Batches are right-padded to the longest of all their sequences; padding and end of text are both token 0.",
]
PAIRED_NOTES = [
    "loss is the mean over the batch; rewards are batch means of beta times summed log-ratios, whatever the loss.",
    "accuracy counts strictly larger rewards: 0 at step 0, where policy and reference agree to the bit.",
    "logps_chosen and logps_rejected are batch means of the policy's sums.",
]
KTO_NOTES = [
    "loss is the mean over all rows of the batch, desirable or not, after the class weights.",
    "Rewards and logps are means over the class; null where the batch has none of it, and then margin too.",
]
OWN_NOTES = {
    "cdpo": [
        "TRL ignores label_smoothing for loss_type 'sigmoid', without a word. With e = label_smoothing, cDPO is",
        "2 (1 - e) sigmoid - (1 - 2 e) robust, two losses that TRL can combine: -(1 - e) log s(x) - e log s(-x).",
    ],
    "ipo": [
        "Per-token averages: (h_w / n_w - h_l / n_l - 1 / (2 beta))^2, n the completion's tokens with end of text.",
        "TRL takes n from the unshifted mask: for an empty prompt n would exceed the number of scored tokens by one.",
    ],
    "kto": [
        "KL pairs: within each batch of the fixed order, row k's prompt with the completion of row k - 1, row 0's with "
        "the last one's (kl_completions). Nothing checks that prompts differ: rows that share one are no mismatch, as "
        "rows 1, 6 and 7 here: their KL pairs are the real answers of rows 0, 5 and 6.",
        "kl = max(0, kl_raw), kl_raw the mean over the four KL pairs: per micro-batch, not per optimiser batch.",
    ],
}


def golden(name):
    """Everything about one run."""
    run = RUNS[name]
    kind, model = run.get("trainer", "DPO"), run.get("model", "llama")
    trainer, logs, calls, after = trained(run)
    rows = rows_of(trainer, kind)
    steps = steps_of(run, trainer, logs, calls, rows)
    weights = parameters(trainer, model)
    exact, exact_logs, exact_calls, exact_after = trained(run, double=True)
    exact_steps = steps_of(run, exact, exact_logs, exact_calls, rows)
    gap = difference({"steps": steps, "final": after}, {"steps": exact_steps, "final": exact_after})
    gap["parameters"] = max(
        (a.double() - b).abs().max().item()
        for a, b in zip(stored(trainer.model).values(), stored(exact.model).values(), strict=True)
    )
    start = stored(tiny_model(model))
    config = config_file(tiny_model(model))
    chosen = {key: value for key, value in run.items() if key not in ("trainer", "model")}
    notes = [*NOTES, *(KTO_NOTES if kind == "KTO" else PAIRED_NOTES), *OWN_NOTES.get(name, [])]
    return short(
        {
            "name": name,
            "trainer": f"{kind}Trainer",
            "versions": VERSIONS,
            "recipe": RECIPE,
            "sha256": digest({key: value.numpy() for key, value in start.items()}),
            "config": config,
            "hub_config": hub_config(config),
            "loss": {"beta": BETA, **chosen},
            "optimizer": OPTIMIZER,
            "eos": EOS,
            "notes": notes,
            "rows": rows,
            "steps": steps,
            "final": after,
            "parameters": [{"name": key, **value} for key, value in weights.items()],
            "float64": {
                "difference": gap,
                "loss": exact.heard_losses,
                "grad_norm": [s["grad_norm"] for s in exact_steps],
            },
        }
    )


def main():
    """Write the runs asked for, and one line on each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--learning-rate", type=float, default=OPTIMIZER["learning_rate"])
    options = parser.parse_args()
    OPTIMIZER["learning_rate"] = options.learning_rate
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    print(json.dumps(VERSIONS))
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        found = golden(name)
        path = folder / f"trl_{name}.json"
        write(path, found)
        print(json.dumps({name: [step["loss"] for step in found["steps"]], "bytes": path.stat().st_size}))
        print(json.dumps({"grad_norm": [step["grad_norm"] for step in found["steps"]]}))
        print(json.dumps({"float64": found["float64"]["difference"]}))


if __name__ == "__main__":
    sys.exit(main())
