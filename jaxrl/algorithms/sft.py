"""Supervised fine-tuning: maximum likelihood of completions given their prompts, with AdamW.

The loss is the mean of -ln p over the completions' tokens of a batch, end tokens included, prompts not: every token
counts alike, however rows are batched, padded or cut into micro-batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from jaxrl.data.arrays import DataBatch
from jaxrl.data.settings import DataConfig
from jaxrl.lm.log_probs import completion_stats
from jaxrl.lm.lora import trained
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import accumulate
from jaxrl.ops.optimizers import adamw, adamw_step, check_micro_batches
from jaxrl.settings import config, leaf, static
from jaxrl.types import Algorithm, Key, Learner, Metrics, Params, PyTree


@config
class SFT:
    """Settings of supervised fine-tuning. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The language model, and whether all of it is trained or adapters only."""
    data: DataConfig = DataConfig()
    """The rows: {prompt, completion} or {messages}."""
    epochs: int = static(1, at_least=1)
    """Times that every row is seen."""
    max_updates: int | None = static(None, at_least=1)
    """Stop, and end the learning rate's schedule, after this many updates even if epochs remain."""
    batch_size: int = static(16, at_least=1)
    """Rows per update."""
    micro_batch_size: int | None = static(None, at_least=1)
    """Rows whose gradient is taken at once: less memory, the same result. None takes the batch whole."""

    learning_rate: float = leaf(2e-5, 0.0)
    """AdamW's step size at its peak: about 2e-5 for all parameters, 2e-4 to 1e-3 for adapters."""
    warmup: float = leaf(0.1, 0.0, 1.0)
    """Share of the updates over which the learning rate rises."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached along a cosine."""
    weight_decay: float = leaf(0.0, 0.0)
    """AdamW's decoupled decay, of matrices only."""
    adam_b1: float = leaf(0.9, 0.0, 1.0)
    """Adam's β₁."""
    adam_b2: float = leaf(0.999, 0.0, 1.0)
    """Adam's β₂."""
    adam_eps: float = leaf(1e-8, 0.0)
    """Adam's ε."""
    max_grad_norm: float = leaf(1.0, 1e-9)
    """Global norm that gradients are clipped to; inf is off."""

    def validate(self) -> None:
        """Raises ValueError, naming the nearest valid number, where the sizes do not divide."""
        check_micro_batches(self)

    def make(self, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
        """SFT of `params` in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)


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
        return SFTLearner(start, adamw(c).init(start), jnp.zeros((), jnp.int32))

    def loss(weights: Params, batch: DataBatch) -> tuple[m.Mean, Metrics]:
        stats, where = completion_stats(model, tuned.model(weights), batch.rows, c.lm.logit_chunk)
        where &= batch.weight[:, None] > 0
        nll = m.mean(-stats.log_prob, where)
        tokens = m.mean(where.sum(1), batch.weight > 0)
        return nll, {"loss": nll, "entropy": m.mean(stats.entropy, where), "tokens": tokens}

    def update(key: Key, learner: SFTLearner, batch: DataBatch) -> tuple[SFTLearner, Metrics]:
        grads, metrics = accumulate(loss, learner.trained, batch, c.micro_batch_size)
        new, opt_state, more = adamw_step(
            c, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        return SFTLearner(new, opt_state, learner.num_updates + 1), metrics | more

    def measure(learner: Learner, batch: DataBatch) -> Metrics:
        return loss(learner.trained, batch)[1]

    return Algorithm(init, update, policy=None, measure=measure)
