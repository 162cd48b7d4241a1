"""One update of TRL's PPO, RLOO and GRPO from fixed completions, for jaxrl, which never imports it.

Runs in environments of its own, named on the command line: torch, transformers, datasets, peft, sentencepiece, and trl.
TRL took its PPO away after 1.12.0, so there are two of them:
    PYTHON_WITH_TRL_1.16.0 scripts/oracle_rlhf.py tests/algorithms/golden --only rloo grpo
    PYTHON_WITH_TRL_1.12.0 scripts/oracle_rlhf.py tests/algorithms/golden --only ppo

One file trl_NAME.json each, of the tiny random Llama of oracle_lm.py. Two prompts have four completions each, some of
which end and some are cut at NEW tokens; their scores are given. All goes through `trainer.train()`: only what samples
and what scores is replaced, by what looks the fixed answers up, and everything else listens. PPO's numbers are the
local variables of its `train`, read when its update is over.

Weights are not stored: `tensor` of oracle_lm.py makes each one, and `mixed` those of the reference and the critic. The
words are those of oracle_trl.py; 0 ends a text. Numbers of step i come before update i.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import datasets
import numpy as np
import torch
import transformers
import trl
from oracle_lm import RECIPE, config_file, digest, stored, tensor, tiny_model, write
from oracle_trl import EOS, OPTIMIZER, VERSIONS, short, text, tokenizer
from torch import nn

PAD, NEW, GROUP, STEPS = 96, 7, 4, 3
PROMPTS = (5, 3)  # tokens
LENGTHS = (7, 3, 5, 7, 1, 6, 7, 2)  # of completions, the end token included
CUT = (0, 6)  # those that do not end
SCORES = (0.7, -1.6, 2.9, 0.4, -0.3, 1.1, -2.0, 0.9)
BETA, RATE, PENALTY = 0.05, 5e-4, 0.5
SHARED = {
    "per_device_train_batch_size": len(LENGTHS),
    "gradient_accumulation_steps": 1,
    "learning_rate": RATE,
    "adam_epsilon": OPTIMIZER["eps"],
    "weight_decay": 0.0,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "optim": "adamw_torch",
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "seed": 0,
}


def answers(lengths=LENGTHS, cut=CUT):
    """Rows {prompt, completion}, those of one prompt next to each other."""

    def words(seed, count):  # neither the end nor the padding
        return (1 + np.random.PCG64(seed).random_raw(max(count, 1)) % np.uint64(PAD - 1)).astype(int).tolist()[:count]

    rows = []
    for i, length in enumerate(lengths):
        said = words(5000 + i, length) if i in cut else [*words(5000 + i, length - 1), EOS]
        rows.append({"prompt": words(4000 + i // GROUP, PROMPTS[i // GROUP]), "completion": said})
    return rows


def mixed(name, shape, who):
    """A tensor of the policy, moved by a tenth of what the recipe makes of its name with `who` before it."""
    start = tensor(name, shape)
    return start if name.endswith("norm.weight") else start + np.float32(0.1) * tensor(f"{who}.{name}", shape)


def moved(model, who):
    """The model with the weights of `mixed`; a score head keeps those of the recipe."""
    with torch.no_grad():
        for name, value in stored(model).items():
            shape = tuple(value.shape)
            value.copy_(torch.from_numpy(tensor(name, shape) if name == "score.weight" else mixed(name, shape, who)))
    return model


def tokens(pad=PAD):
    """The tokenizer of oracle_trl.py, but for its padding."""
    made = tokenizer()
    made.pad_token, made.padding_side = "</s>" if pad == EOS else f"t{pad}", "left"
    return made


def prompts(rows):
    """Their strings, each once."""
    return [{"prompt": text(row["prompt"])} for row in rows[::GROUP]]


# Without a critic.


def fixed(base, rows):
    """The trainer class that says these completions, and writes down what it makes of them."""
    score = {tuple(row["completion"]): value for row, value in zip(rows, SCORES, strict=True)}

    class Fixed(base):
        heard_losses, heard = [], {}

        def _generate_single_turn(self, prompt_ids, *args):
            assert prompt_ids == [row["prompt"] for row in rows]
            said = [row["completion"] for row in rows]
            return said if base is trl.RLOOTrainer else (said, None)

        def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
            out = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
            # the batch is shuffled after these two
            self.heard.setdefault("ref_log_probs" if model is self.ref_model else "log_probs", out[0].detach())
            return out

        def _generate_and_score_completions(self, inputs):
            out = super()._generate_and_score_completions(inputs)
            self.heard["advantages"] = out["advantages"]
            return out

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.heard_losses.append(loss.item())
            return loss

    def scores(completion_ids, **columns):
        return [score[tuple(ids)] for ids in completion_ids]

    return Fixed, scores


def without_critic(kind, options):
    """Three updates on one batch."""
    rows = answers()
    base, config = {"rloo": (trl.RLOOTrainer, trl.RLOOConfig), "grpo": (trl.GRPOTrainer, trl.GRPOConfig)}[kind]
    trainer_class, scores = fixed(base, rows)
    with tempfile.TemporaryDirectory() as folder:
        policy = tiny_model("llama")
        moved(tiny_model("llama"), "reference").save_pretrained(folder)
        policy.config._name_or_path = folder  # where the trainer loads its reference from
        arguments = config(
            output_dir=folder,
            max_steps=STEPS,
            num_iterations=STEPS,
            num_generations=GROUP,
            max_completion_length=NEW,
            beta=BETA,
            max_grad_norm=OPTIMIZER["max_grad_norm"],
            shuffle_dataset=False,
            **SHARED,
            **options,
        )
        trainer = trainer_class(
            model=policy,
            reward_funcs=scores,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(prompts(rows)),
            processing_class=tokens(),
        )
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    heard = {
        name: [line[:n].tolist() for line, n in zip(x, LENGTHS, strict=True)] if x.ndim == 2 else x.tolist()
        for name, x in trainer.heard.items()
    }
    return {
        **heard,
        "loss": trainer.heard_losses,
        **{name: [log[name] for log in logs if name in log] for name in ("grad_norm", "entropy", "kl")},
        "clip_fraction": [log["clip_ratio/region_mean"] for log in logs],
    }


# PPO.


class Judge(nn.Module):
    """Where PPOTrainer wants a model: at every place of a row, the score that the row was given."""

    base_model_prefix = "body"

    def __init__(self, rows, pad):
        super().__init__()
        self.known = {
            tuple(t for t in row["prompt"] + row["completion"] if t != pad): value
            for row, value in zip(rows, SCORES, strict=True)
        }
        self.score = nn.Identity()

    def body(self, input_ids, attention_mask, **_):
        found = [
            self.known[tuple(ids[real].tolist())] for ids, real in zip(input_ids, attention_mask.bool(), strict=True)
        ]
        hidden = torch.tensor(found)[:, None, None].expand(*input_ids.shape, 1)
        return transformers.modeling_outputs.BaseModelOutput(hidden_states=(hidden,))


class Reader(transformers.TrainerCallback):
    """Reads the local variables of the `train` that calls it."""

    def on_step_end(self, *args, **kwargs):
        frame = sys._getframe()
        while not (frame.f_code.co_name == "train" and "padding_mask_p1" in frame.f_locals):
            frame = frame.f_back
        self.seen = {k: v.clone() for k, v in frame.f_locals.items() if torch.is_tensor(v)}
        self.metrics = dict(frame.f_locals["metrics"])


def with_critic(name, rows, pad=PAD, whiten_rewards=False):
    """Four epochs on one batch."""
    from trl.experimental.ppo import ppo_trainer  # newer releases have none

    reader = Reader()

    def say(model, queries, rollout, pad_token, config):
        waiting = {}
        for row in rows:
            waiting.setdefault(tuple(row["prompt"]), []).append(row["completion"])
        said = [waiting[tuple(query[query != pad_token].tolist())].pop(0) for query in queries]
        said = torch.tensor([ids + [pad_token] * (NEW - len(ids)) for ids in said])
        whole = torch.cat([queries, said], 1)
        return whole, ppo_trainer.forward(model, whole, pad_token).logits[:, queries.shape[1] - 1 : -1]

    with tempfile.TemporaryDirectory() as folder:
        arguments = ppo_trainer.PPOConfig(
            output_dir=folder,
            total_episodes=len(rows),
            num_ppo_epochs=4,
            num_mini_batches=1,
            local_rollout_forward_batch_size=len(rows),
            num_sample_generations=0,
            response_length=NEW,
            stop_token="eos",
            temperature=1.0,
            kl_coef=BETA,
            missing_eos_penalty=PENALTY,
            whiten_rewards=whiten_rewards,
            dataloader_pin_memory=False,
            **SHARED,
        )
        config = transformers.AutoConfig.for_model(**{**tiny_model("llama").config.to_dict(), "num_labels": 1})
        critic = transformers.AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
        asked = datasets.Dataset.from_list([{"input_ids": row["prompt"]} for row in rows])
        trainer = ppo_trainer.PPOTrainer(
            args=arguments,
            processing_class=tokens(pad),
            model=tiny_model("llama"),
            ref_model=moved(tiny_model("llama"), "reference"),
            reward_model=Judge(rows, pad),
            value_model=moved(critic.float(), "critic"),
            train_dataset=asked,
            eval_dataset=asked,
            callbacks=[reader],
        )
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        with mock.patch.object(ppo_trainer, "batch_generation", say):
            trainer.train()
    seen = reader.seen
    order = []
    for row in rows:  # the batch is shuffled
        wanted = row["prompt"] + row["completion"] + [pad] * (NEW - len(row["completion"]))
        width = seen["query_responses"].shape[1]
        order.append(seen["query_responses"].tolist().index([pad] * (width - len(wanted)) + wanted))
    arrays = {"logprobs": "log_probs", "ref_logprobs": "ref_log_probs"}
    arrays |= {k: k for k in ("kl", "rewards", "values", "returns", "advantages", "scores")}
    stats = {"pg_loss": "policy_loss", "vf_loss": "value_loss", "entropy": "entropy"}
    stats |= {"pg_clipfrac": "clip_fraction", "vf_clipfrac": "value_clip_fraction"}
    return {
        "name": name,
        "pad": pad,
        "whiten_rewards": whiten_rewards,
        "rows": rows,
        **{ours: seen[theirs][order].tolist() for theirs, ours in arrays.items()},
        **{ours: seen[f"{theirs}_stats"].flatten().tolist() for theirs, ours in stats.items()},
        **{k: v for k, v in reader.metrics.items() if k.startswith("objective/")},
    }


RUNS = {
    "rloo": lambda: [{"name": "rloo", "rows": answers(), **without_critic("rloo", {})}],
    "grpo": lambda: [
        {"name": name, **options, "rows": answers(), **without_critic("grpo", options)}
        for name, options in {
            "grpo_group": {"loss_type": "grpo", "scale_rewards": "group", "use_bias_correction_kl": False},
            "bnpo_none": {"loss_type": "bnpo", "scale_rewards": "none", "use_bias_correction_kl": False},
            "dr_grpo_none": {"loss_type": "dr_grpo", "scale_rewards": "none", "use_bias_correction_kl": False},
            "kl_by_ratio": {"loss_type": "grpo", "scale_rewards": "group", "use_bias_correction_kl": True},
        }.items()
    ],
    "ppo": lambda: [
        with_critic("even", answers((NEW,) * len(LENGTHS), ())),
        with_critic("uneven", answers()),
        with_critic("uneven_whitened", answers(), whiten_rewards=True),
        with_critic("uneven_end_pads", answers(), pad=EOS),
    ],
}


def main():
    """Write the files asked for, and one line on each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--only", nargs="+", choices=RUNS, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.set_verbosity_error()
    for name in options.only:
        transformers.set_seed(0)  # PPO shuffles by NumPy's
        found = RUNS[name]()
        weights = {"policy": stored(tiny_model("llama")), "reference": stored(moved(tiny_model("llama"), "reference"))}
        golden = {
            "versions": VERSIONS,
            "recipe": RECIPE,
            "config": config_file(tiny_model("llama")),
            "shapes": {key: list(value.shape) for key, value in weights["policy"].items()},
            "sha256": {who: digest({k: v.numpy() for k, v in state.items()}) for who, state in weights.items()},
            "settings": {
                "scores": SCORES,
                "beta": BETA,
                "missing_eos_penalty": PENALTY if name == "ppo" else 0.0,
                "learning_rate": RATE,
                "adam_eps": OPTIMIZER["eps"],
            },
            "runs": found,
        }
        path = Path(options.out) / f"trl_{name}.json"
        write(path, short(golden))
        print(json.dumps({name: path.stat().st_size, "versions": VERSIONS}))
        for run in found:
            print(json.dumps({k: run.get(k) for k in ("name", "loss", "policy_loss", "value_loss", "clip_fraction")}))


if __name__ == "__main__":
    sys.exit(main())
