# needs: lm, sentiment
"""SmolLM2-135M learns from a reward what critics' labels teach it in sentiment_dpo.py: kinder reviews, or harsher.

    scripts/run experiments/sentiment_rlhf.py
    scripts/run experiments/sentiment_rlhf.py --direction negative --seed 1
    scripts/run experiments/sentiment_rlhf.py --preset grpo/sentiment_cpu
    scripts/run experiments/sentiment_rlhf.py --reward learned

PPO from the model of sentiment_sft.py (made once), which is the reference; `--preset grpo/sentiment_cpu` and its like
are GRPO, RLOO (`--baseline rloo`) and REINFORCE++. The reward is the classifier that also judges the result, or with
`--reward learned` the reward model of sentiment_reward.py (made once): then the classifier is an outsider, and a reward
that rises while `gold` does not is a policy that has found what its reward model gets wrong. Ends with reviews before
and after, gold reward against KL with intervals, and the KL that the second half of training held. It is sentiment that
moves, not helpfulness. On CPU the preset is configs/rlhf/sentiment_cpu.yaml; on GPU and TPU it is
configs/rlhf/sentiment.yaml.
"""

import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Literal

import sentiment_reward
import sentiment_sft
from sentiment import by_film, prompt, reviews
from sentiment_report import report

from jaxrl import cli, replace
from jaxrl.reports.rows import METRICS, read_metrics
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import finetune
from jaxrl.types import InputError


@dataclasses.dataclass(frozen=True)
class Options(cli.Options):
    """What is asked of one run, beside its config."""

    schedule: Schedule = Schedule(logs=30, evals=5, saves=2)
    direction: Literal["positive", "negative"] = "positive"
    """Which reviews to reward."""
    reward: Literal["gold", "learned"] = "gold"
    """gold: the classifier. learned: a reward model, of the critics' pairs, which know the positive direction only."""
    sft: Path = Path("runs/sentiment_sft")
    """The run of sentiment_sft.py whose model is the reference; it is made if it is not there."""
    reward_model: Path = Path("runs/sentiment_reward")
    """The run of sentiment_reward.py; it is made if it is not there and asked for."""


def prompts(rows: list[dict]) -> list[dict]:
    """A prompt for each film."""
    return [{"prompt": prompt(movie), "movie": movie} for movie in sorted({row["movie"] for row in rows})]


def late_kl(run_dir: Path) -> float:
    """Mean KL of the completions of the second half of training, in nats each: what an adaptive kl_coef has held."""
    rows = [row for row in read_metrics(run_dir / METRICS) if "kl" in row]
    return statistics.fmean(row["kl"] for row in rows if row["step"] > rows[-1]["step"] / 2)


def main() -> None:
    config, argv = cli.preset("rlhf/sentiment", sys.argv[1:])
    config, options = cli.parse(config, __doc__, argv, Options())
    direction, kind, sft, made = (options.pop(name) for name in ("direction", "reward", "sft", "reward_model"))
    with cli.sentences():
        if kind == "learned" and direction == "negative":
            raise InputError("the learned reward knows what is kinder; take --direction positive, or --reward gold")
        config = replace(config, lm=replace(config.lm, name=str(sentiment_sft.model(sft))))
        # By name, so that `jaxrl resume` finds it again.
        reward = "sentiment:kinder" if direction == "positive" else "sentiment:harsher"
        reward = sentiment_reward.model(made, sft) if kind == "learned" else reward
        train, held_out = by_film(reviews(), share=0.1)
        tuned = finetune(config, prompts(train), prompts(held_out), reward=reward, **options)
        report(tuned, held_out, direction, options["seed"], kl_second_half=late_kl(tuned.result.run_dir))


if __name__ == "__main__":
    main()
