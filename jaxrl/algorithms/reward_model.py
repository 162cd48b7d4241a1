"""A reward model learned from pairs of answers: a language model with a scalar head, whose number for a text, read off
its last token, is to be larger for the answer that was preferred (Christiano et al. 2017, arXiv 1706.03741; Stiennon et
al. 2020, arXiv 2009.01325; Ouyang et al. 2022, arXiv 2203.02155).

Is it going well? eval_accuracy on prompts that it has not seen is what counts, and calibration: `eval_ece` says by how
much the probability that it gives to a preference, σ(r_w - r_l), is off on the average. A model that is sure of itself
and wrong is what a policy will find and exploit: one epoch is the rule, since further ones make it surer and no better.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl.algorithms.programs import language_program
from jaxrl.data.arrays import Data, DataBatch
from jaxrl.data.preferences import Pairs, grouped_by_prompt
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.lm.heads import Head, init_head, last_scores, with_head
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.lora import trained
from jaxrl.lm.settings import LMConfig, ModelParallel
from jaxrl.lm.transformer import Decoder, LanguageModel
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import bradley_terry_loss
from jaxrl.ops.minibatch import accumulate, sum_over
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.settings import config, leaf, static
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree

BINS = 10  # of the probability that the likelier answer is given, from a half to one


@config
class Reward:
    """Settings of a reward model. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The model whose body it has, by rule the one that is to be aligned, after SFT; and what of it is trained."""
    data: DataConfig = DataConfig()
    """The pairs: {prompt, chosen, rejected}."""
    loop: Loop = Loop(batch_size=64)
    """How the pairs, or their groups, are gone through."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    margin: float = leaf(0.0, 0.0)
    """By how much the preferred answer is to score higher, in units of reward (Llama 2)."""
    centring: float = leaf(0.0, 0.0)
    """Weight of (r_w + r_l)², which holds rewards around 0; 0.01 as a rule."""
    pairs_per_prompt: int = static(1, at_least=1)
    """So many pairs of one prompt go into a batch together, and count as one row of it (Ouyang et al. 2022, §3.5):
    of K ranked answers take K(K - 1)/2. Apart, the same answer is learned from again and again, and overfitted."""

    optimizer: AdamW = AdamW(learning_rate=1e-5)
    """AdamW and its schedule. Learning rate: about 1e-5 for all parameters, 1e-4 to 1e-3 for adapters."""

    learns_from = "comparisons"  # as in jaxrl/data/kinds.py: which rows, and what is made of others
    defines_loss = ("margin", "centring")

    def program(
        self, network: LanguageModel | None = None, params: Params | None = None, data: Data | None = None
    ) -> Program:
        """What the drivers run: the model, its pretrained parameters, and the rows."""
        judged = {"check_start": self.check_start, "tell": told, "keep": reliability}
        made = language_program(self, network, params, data, **judged, scores=True)
        return made._replace(export=lambda learner: exported(self, params, learner), adapters=None)

    def complete_data(self, model: LanguageModel, params: Params, data: Data) -> Data:
        """The rows, in groups of one prompt each where those are asked for."""
        if self.pairs_per_prompt == 1:
            return data
        self.check_data(data)
        train, held_out = ([grouped_by_prompt(rows, self.pairs_per_prompt) for rows in part] for part in data)
        return Data(tuple(train), tuple(held_out))

    def make(self, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
        """A reward model from `params`, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def check_data(self, data: Data) -> None:
        """Raises InputError for rows that are not pairs."""
        if any(not isinstance(bucket, Pairs) for bucket in data.train + data.held_out):
            raise InputError(
                "a reward model learns from {prompt, chosen, rejected}; give pairs, which say which of two is better"
            )

    def check_start(self, metrics: dict[str, float]) -> None:
        """Raises InputError for a loss that is not finite before the first update."""
        if not math.isfinite(metrics["loss"]):
            raise InputError(f"the loss starts at {metrics['loss']}; look for what is not finite in the model")


class Weights(NamedTuple):
    """What is trained. model: all parameters of the body, or its adapters."""

    model: Params
    head: Head


class RewardLearner(NamedTuple):
    """All that is carried from update to update."""

    trained: Weights
    opt_state: PyTree
    num_updates: Int[jax.Array, ""]


def make(c: Reward, model: LanguageModel, params: Decoder, num_updates: int) -> Algorithm:
    """The functions of learning a reward model."""
    tuned, start = trained(c.lm, body(params)), head_of(params)

    def init(key: Key) -> RewardLearner:
        weights = Weights(tuned.init(key), start)
        return RewardLearner(weights, adamw(c.optimizer).init(weights), jnp.zeros((), jnp.int32))

    def compared(weights: Weights, batch: DataBatch) -> tuple[Metrics, Float[Array, " P"], Bool[Array, " P"]]:
        chosen, rejected, where = scored(model, tuned.model(weights.model), weights.head, batch)
        losses = bradley_terry_loss(chosen, rejected, c.margin, c.centring)
        margin = chosen - rejected
        figures = {"loss": losses, "accuracy": (margin > 0).astype(margin.dtype), "margin": margin}
        figures |= {"rewards/chosen": chosen, "rewards/rejected": rejected}
        return {name: m.mean(values, where) for name, values in figures.items()}, margin, where

    def loss(weights: Weights, batch: DataBatch) -> tuple[m.Mean, Metrics]:
        metrics = compared(weights, batch)[0]
        return metrics["loss"], metrics

    def update(key: Key, learner: RewardLearner, batch: DataBatch) -> tuple[RewardLearner, Metrics]:
        grads, metrics = accumulate(loss, learner.trained, batch, c.loop.micro_batch_size)
        new, opt_state, more = adamw_step(
            c.optimizer, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        return RewardLearner(new, opt_state, learner.num_updates + 1), metrics | more

    def measure(key: Key, learner: RewardLearner, batch: DataBatch) -> Metrics:
        def part(rows: DataBatch) -> Metrics:
            metrics, margin, where = compared(learner.trained, rows)
            return metrics | binned(margin, where)

        return sum_over(part, batch, c.loop.micro_batch_size)

    return Algorithm(init, update, policy=None, measure=measure)


def scored(
    model: LanguageModel, params: Decoder, head: Head, batch: DataBatch
) -> tuple[Float[Array, " P"], Float[Array, " P"], Bool[Array, " P"]]:
    """Rewards of both answers of all P pairs of a batch, in groups or not, in one forward pass; and which pairs count:
    not those that fill up a batch, or a group.
    """
    sides = [TokenRows(side.tokens, side.prompt_length, side.length) for side in batch.rows]
    counts = sides[0].length > 0  # [B], or [B, pairs of a prompt]
    both = jax.tree.map(lambda *x: jnp.concatenate([y.reshape(-1, *y.shape[counts.ndim :]) for y in x]), *sides)
    chosen, rejected = jnp.split(last_scores(model, params, head, both), 2)
    weight = batch.weight.reshape(-1, *[1] * (counts.ndim - 1)) > 0
    return chosen, rejected, (counts & weight).reshape(-1)


def binned(margin: Float[Array, " P"], where: Bool[Array, " P"]) -> Metrics:
    """How sure, and how often right, by how sure: in bins of the likelier answer's probability, [BINS] each."""
    sure = jax.nn.sigmoid(jnp.abs(margin))
    place = jnp.clip(((sure - 0.5) * 2 * BINS).astype(jnp.int32), 0, BINS - 1)
    within = (place == jnp.arange(BINS)[:, None]) & where
    count = jnp.sum(within, axis=1, dtype=sure.dtype)

    def over(x: Float[Array, " P"]) -> m.Mean:
        return m.Mean(jnp.sum(jnp.where(within, x, 0.0), axis=1), count)

    # Of two that score alike either is said to be the better: right half the time, as sure as it is.
    right = jnp.where(margin == 0, 0.5, (margin > 0).astype(sure.dtype))
    return {"bin_confidence": over(sure), "bin_accuracy": over(right)}


def told(measured: Metrics) -> dict[str, float]:
    """Figures of held-out pairs: means, and the expected calibration error, the mean distance between how sure and how
    often right (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599).
    """
    figures = {name: float(mean.value) for name, mean in measured.items() if not name.startswith("bin_")}
    sure, right = measured["bin_confidence"], measured["bin_accuracy"]
    off = np.abs(np.asarray(sure.total, np.float64) - np.asarray(right.total, np.float64))
    return figures | {"ece": float(off.sum() / np.asarray(sure.count).sum())}


def reliability(measured: Metrics) -> list[dict[str, float]]:
    """A row for each bin that has pairs: how sure, how often right, how many."""
    bins = [np.asarray(x, np.float64) for x in (*measured["bin_confidence"], measured["bin_accuracy"].total)]
    return [
        {"confidence": sure / count, "accuracy": right / count, "pairs": int(count)}
        for sure, count, right in zip(*(x.tolist() for x in bins), strict=True)
        if count
    ]


def body(params: Decoder) -> Decoder:
    """The model without a head of scores."""
    copy = jax.tree.map(lambda x: x, params)
    copy.score = None
    return copy


def head_of(params: Decoder) -> Head:
    """The head of a reward model that is trained on, or a new one."""
    return init_head(params.norm.weight.shape[0]) if params.score is None else params.score.kernel[...]


def exported(c: Reward, params: Decoder, learner: RewardLearner) -> Decoder:
    """The reward model as one decoder, adapters merged."""
    return with_head(trained(c.lm, body(params)).merged(learner.trained.model), learner.trained.head)
