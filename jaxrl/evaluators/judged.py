"""Completions of held-out prompts, and what the reward says of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxrl.data.prompts import PromptRows
from jaxrl.evaluators.samples import as_texts
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.sampling import Generation
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.sources.sampled import Completed, Sampler
from jaxrl.types import Evaluator, Key, Learner, Line, Metrics, Panel, Params


def judged_completions(
    sampler: Sampler,
    params_of: Callable[[Learner], tuple[Params, Params]],
    prompts: PromptRows,
    told: Callable[[Completed], Metrics],
    score: Callable[[dict[str, float]], float],
    host: Callable[[Completed], Completed] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Evaluator:
    """One completion of each prompt, sampled as in training: the figures of `told`, as eval_*, and the texts with their
    rewards. host: scores texts, as in Program. score: of the figures, higher is better.
    """

    def measure(key: Key, learner: Learner, case: Int[Array, ""]) -> Completed:
        to_sample, to_score = params_of(learner)
        made = sampler.say(to_sample, prompts, jax.random.split(key, len(prompts.length)))
        rows = TokenRows(made.tokens, made.prompt_length, made.length)
        return sampler.measured(to_score, rows, made.finished, jnp.asarray(prompts.row))

    last: list[Completed] = []  # a reward is asked once, of what is both told and kept

    def judged(measured: Completed) -> Completed:
        if host is None:
            return measured
        if not last or last[0] is not measured:
            last[:] = [measured, jax.tree.map(jnp.asarray, host(jax.device_get(measured)))]
        return last[1]

    def read(case: str, measured: Completed) -> dict[str, float]:
        return {name: float(mean.value) for name, mean in told(judged(measured)).items()}

    def keep(measured: Completed) -> list[dict[str, Any]]:
        batch = judged(measured)
        blank = np.zeros(batch.tokens.shape, np.float32)
        made = Generation(batch.tokens, batch.prompt_length, batch.length, blank, batch.finished)
        numbers = zip(np.asarray(batch.score).tolist(), np.asarray(batch.valid).tolist(), strict=True)
        texts = zip(as_texts(tokenizer, made), numbers, strict=True)
        return [{**text, "reward": value if valid else None} for text, (value, valid) in texts]

    return Evaluator(
        name="samples",
        measure=measure,
        read=read,
        at_start=True,
        before=("reward",),
        keep=None if tokenizer is None else keep,
        score=score,
        panels=(
            Panel("reward", (Line("reward", "training batches"), Line("eval_reward", "held-out prompts"))),
            Panel("KL, nats a text", (Line("kl", "training batches"), Line("eval_kl", "held-out prompts"))),
            Panel("tokens", (Line("length", "training batches"), Line("eval_length", "held-out prompts"))),
        ),
        references={"held-out prompts, before": "reward_before"},
    )
