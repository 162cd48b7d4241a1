"""Supervised fine-tuning: maximum likelihood of completions given their prompts, with AdamW.

The loss is the mean of -ln p over the completions' tokens of a batch, end tokens included, prompts not: every token
counts alike, however rows are batched, padded or cut into micro-batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from jaxrl.algorithms.programs import language_program
from jaxrl.data.arrays import Data, DataBatch
from jaxrl.data.preferences import Pairs
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.evaluators import Ask
from jaxrl.lm.log_probs import completion_stats
from jaxrl.lm.lora import trained
from jaxrl.lm.settings import LMConfig, ModelParallel
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import accumulate, sum_over
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.settings import config
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


@config
class SFT:
    """Settings of supervised fine-tuning. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The language model, and whether all of it is trained or adapters only."""
    data: DataConfig = DataConfig()
    """The rows: {prompt, completion} or {messages}."""
    loop: Loop = Loop(batch_size=16)
    """How the rows are gone through."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    optimizer: AdamW = AdamW(learning_rate=2e-5)
    """AdamW and its schedule. Learning rate: about 2e-5 for all parameters, 2e-4 to 1e-3 for adapters."""

    learns_from = "answers"  # as in jaxrl/data/kinds.py: which rows, and what is made of others

    def program(
        self,
        network: LanguageModel | None = None,
        params: Params | None = None,
        data: Data | None = None,
        samples: Ask | None = None,
    ) -> Program:
        """What the drivers run: the model, its pretrained parameters, the rows, and what it is asked on the way."""
        return language_program(self, network, params, data, samples)

    def complete_data(self, model: LanguageModel, params: Params, data: Data) -> Data:
        """Nothing is added to the rows."""
        return data

    def make(self, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
        """SFT of `params` in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def check_data(self, data: Data) -> None:
        """Raises InputError for pairs, and for rows labelled false, which are not to be imitated."""
        buckets = data.train + data.held_out
        if any(isinstance(bucket, Pairs) for bucket in buckets):
            raise InputError(
                "SFT learns from {prompt, completion} or {messages}, and these are pairs; take the chosen answers, or "
                "use DPO"
            )
        bad = sum(int(np.sum(np.asarray(b.label) < 0.5)) for b in buckets if b.label is not None)
        if bad:
            raise InputError(
                f"{bad} of {sum(len(b.length) for b in buckets)} rows are labelled false: SFT would learn to imitate "
                "them; keep the good ones (label true), or use KTO"
            )


class SFTLearner(NamedTuple):
    """All that SFT carries from update to update. trained: all parameters, or the adapters alone."""

    trained: Params
    opt_state: PyTree
    num_updates: Int[jax.Array, ""]


def make(c: SFT, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of SFT."""
    tuned = trained(c.lm, params)

    def init(key: Key) -> SFTLearner:
        start = tuned.init(key)
        return SFTLearner(start, adamw(c.optimizer).init(start), jnp.zeros((), jnp.int32))

    def loss(weights: Params, batch: DataBatch) -> tuple[m.Mean, Metrics]:
        stats, where = completion_stats(model, tuned.model(weights), batch.rows, c.lm.logit_chunk)
        where &= batch.weight[:, None] > 0
        nll = m.mean(-stats.log_prob, where)
        tokens = m.mean(where.sum(1), batch.weight > 0)
        return nll, {"loss": nll, "entropy": m.mean(stats.entropy, where), "tokens": tokens}

    def update(key: Key, learner: SFTLearner, batch: DataBatch) -> tuple[SFTLearner, Metrics]:
        grads, metrics = accumulate(loss, learner.trained, batch, c.loop.micro_batch_size)
        new, opt_state, more = adamw_step(
            c.optimizer, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        return SFTLearner(new, opt_state, learner.num_updates + 1), metrics | more

    def measure(key: Key, learner: SFTLearner, batch: DataBatch) -> Metrics:
        return sum_over(lambda rows: loss(learner.trained, rows)[1], batch, c.loop.micro_batch_size)

    return Algorithm(init, update, policy=None, measure=measure)
