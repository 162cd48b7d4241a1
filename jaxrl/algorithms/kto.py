"""Kahneman-Tversky Optimization: learn from answers with a thumb up or down, no pairs needed.

One update: estimate z0, how far the policy has moved from the reference, on prompts with other prompts' answers; then
compare every answer's log-ratio with it. z0 belongs to the whole batch of the update: it is summed over micro-batches
first, divided and clamped once, so that neither their size nor the number of devices changes the loss.

The reference is the model as it was given, an adapter that is continued included: the same parameters without what is
trained, or a frozen copy.

Is it going well? rewards/margin rises, and rewards/accuracy, the share of answers on the right side of z0; logps/chosen
may fall all the same. A batch in which all prompts are equal has z0 = 0.
"""

import math
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from jaxrl.algorithms.programs import language_program, with_cached_reference
from jaxrl.data.arrays import Data, DataBatch
from jaxrl.data.preferences import Completions
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.evaluators import Ask
from jaxrl.lm.log_probs import Scores, completion_scores
from jaxrl.lm.lora import trained
from jaxrl.lm.reference import check_cache_read, check_cached, start_tolerance
from jaxrl.lm.settings import LMConfig, ModelParallel
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import losses
from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import accumulate, sum_over, take
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.settings import config, leaf, static
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


@config
class KTO:
    """Settings of KTO. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The model to align, by rule one that was fine-tuned on such texts, and what of it is trained."""
    data: DataConfig = DataConfig()
    """The answers: {prompt, completion, label}, label true for a good one."""
    loop: Loop = Loop(batch_size=64)
    """How the answers are gone through."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    beta: float = leaf(0.1, 1e-6)
    """Reward per nat of log-ratio: larger stays closer to the reference. 0.1, in 0.01 to 0.5."""
    desirable_weight: float = leaf(1.0, 0.0)
    """λ_D, of good answers. With n_D good and n_U bad ones, keep λ_D·n_D / (λ_U·n_U) between 1 and 4/3."""
    undesirable_weight: float = leaf(1.0, 0.0)
    """λ_U, of bad answers."""
    kl: bool = static(True)
    """Compare with z0. Without, z0 = 0: APO-zero of single answers (arXiv 2408.06266), for half the time."""
    reference: str = static("frozen", choices=("frozen", "cached"))
    """frozen: the model as given, beside the policy. cached: its log-probs of the answers, computed before; z0 still
    asks the model itself, since its pairs are drawn anew for each update."""
    reference_cache: str = static("")
    """Where the cached log-probs are kept; by default in the user's cache, under a hash of all they depend on."""

    optimizer: AdamW = AdamW(learning_rate=1e-6)
    """AdamW and its schedule. Learning rate: 5e-7 to 5e-6 for all parameters, 1e-5 to 5e-4 for adapters."""

    def validate(self) -> None:
        """Raises InputError for a batch too small for z0, and for a setting that nothing reads."""
        if self.kl and self.loop.batch_size < 2:
            raise InputError("loop.batch_size = 1 leaves no other prompt for z0; set at least 2, or kl = False")
        check_cache_read(self)

    learns_from = "labels"  # as in jaxrl/data/kinds.py: which rows, and what is made of others
    defines_loss = ("beta", "desirable_weight", "undesirable_weight", "kl")  # as in DPO

    def program(
        self,
        network: LanguageModel | None = None,
        params: Params | None = None,
        data: Data | None = None,
        samples: Ask | None = None,
    ) -> Program:
        """What the drivers run: the model, its pretrained parameters, the rows, and what it is asked on the way."""
        return language_program(self, network, params, data, samples, check_start=self.check_start)

    def complete_data(self, model: LanguageModel, params: Params, data: Data) -> Data:
        """The rows, with log-probs of the reference if those are to be computed beforehand."""
        return with_cached_reference(self, model, params, data)

    def make(self, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
        """KTO of `params`, which are also the reference, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def check_data(self, data: Data) -> None:
        """Raises InputError for rows without labels, or with a single prompt while z0 needs two."""
        if any(not isinstance(bucket, Completions) or bucket.label is None for bucket in data.train + data.held_out):
            raise InputError(
                "KTO learns from {prompt, completion, label}; give every row a label, or `unpair` the pairs"
            )
        prompts = {int(i) for bucket in data.train for i in np.unique(bucket.prompt_id)}
        if self.kl and len(prompts) == 1:
            raise InputError("every row has the same prompt, so none can be mismatched for z0; set kl = False")
        check_cached(self, data.train + data.held_out)

    def check_start(self, metrics: dict[str, float]) -> None:
        """Raises InputError unless rewards are 0 before the first update, as equal policy and reference give."""
        found = [abs(x) for x in (metrics["rewards/chosen"], metrics["rewards/rejected"]) if x == x]  # nan: none of it
        worst = max(found, default=math.nan)
        if not worst <= start_tolerance(self) or math.isnan(metrics["loss"]):
            raise InputError(
                f"rewards start at {worst:.8f}, not 0: policy and reference differ before the first update; give them "
                "the same parameters, dtype and rows, or remove a stale reference cache"
            )


class KTOLearner(NamedTuple):
    """All that KTO carries from update to update."""

    trained: Params
    opt_state: PyTree
    num_updates: Int[jax.Array, ""]


def make(c: KTO, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of KTO."""
    tuned, width = trained(c.lm, params), c.data.max_prompt_length

    def init(key: Key) -> KTOLearner:
        start = tuned.init(key)
        return KTOLearner(start, adamw(c.optimizer).init(start), jnp.zeros((), jnp.int32))

    def compare(weights: Params, rows: Completions) -> tuple[Scores, Float[Array, " B"]]:
        """Scores of the policy, and its log-ratio to the reference."""
        scores, ref = completion_scores(model, tuned.model(weights), rows, c.lm.logit_chunk), rows.ref_log_prob
        if ref is None or c.reference != "cached":
            ref = completion_scores(model, params, rows, c.lm.logit_chunk).log_prob
        return scores, scores.log_prob - jax.lax.stop_gradient(ref)

    def divergence(key: Key, weights: Params, batch: DataBatch) -> m.Mean:
        other, valid = mismatch(key, batch.rows, batch.weight > 0)
        crossed = cross(batch.rows, other, width, model.config.max_position_embeddings)

        def part(rows: tuple[Completions, Bool[Array, " B"]]) -> m.Mean:
            return m.mean(compare(weights, rows[0])[1], rows[1])

        return jax.lax.stop_gradient(sum_over(part, (crossed, valid), c.loop.micro_batch_size))

    def loss(z0: Float[Array, ""], weights: Params, batch: DataBatch) -> tuple[m.Mean, Metrics]:
        scores, h = compare(weights, batch.rows)
        good, where = batch.rows.label > 0.5, batch.weight > 0
        values = losses.kto_loss(h, good, z0, c.beta, c.desirable_weight, c.undesirable_weight)
        figures = {"rewards": c.beta * h, "logps": scores.log_prob, "length": scores.length}
        metrics = {"loss": m.mean(values, where), "desirable": m.mean(good, where)}
        for name, x in figures.items():
            metrics |= {f"{name}/chosen": m.mean(x, where & good), f"{name}/rejected": m.mean(x, where & ~good)}
        metrics["rewards/accuracy"] = m.mean(jnp.where(good, h > z0, h < z0), where)
        metrics["entropy"] = m.ratio(scores.entropy, scores.length, where)
        return metrics["loss"], metrics

    def z0_of(key: Key, weights: Params, batch: DataBatch) -> tuple[Float[Array, ""], Metrics]:
        if not c.kl:
            return jnp.zeros(()), {}
        raw = divergence(key, weights, batch)
        z0 = losses.kto_z0(raw.total, raw.count)
        return z0, {"z0_raw": raw, "z0": m.mean(z0)}

    def update(key: Key, learner: KTOLearner, batch: DataBatch) -> tuple[KTOLearner, Metrics]:
        z0, found = z0_of(key, learner.trained, batch)
        grads, metrics = accumulate(partial(loss, z0), learner.trained, batch, c.loop.micro_batch_size)
        new, opt_state, more = adamw_step(
            c.optimizer, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        return KTOLearner(new, opt_state, learner.num_updates + 1), metrics | margin(metrics) | found | more

    def measure(key: Key, learner: KTOLearner, batch: DataBatch) -> Metrics:  # z0, margin: each batch's, as in training
        z0, found = z0_of(key, learner.trained, batch)
        metrics = sum_over(lambda rows: loss(z0, learner.trained, rows)[1], batch, c.loop.micro_batch_size)
        return metrics | margin(metrics) | found

    return Algorithm(init, update, policy=None, measure=measure)


def margin(metrics: Metrics) -> Metrics:
    """Mean reward of the batch's good answers less that of its bad ones, where it has both."""
    good, bad = metrics["rewards/chosen"], metrics["rewards/rejected"]
    return {"rewards/margin": m.mean(good.value - bad.value, (good.count > 0) & (bad.count > 0))}


def mismatch(key: Key, rows: Completions, real: Bool[Array, " B"]) -> tuple[Int[Array, " B"], Bool[Array, " B"]]:
    """For every row the number of a row with another prompt, drawn at random, and where there is one.

    Rows are put in a random order in which equal prompts are neighbours, and each takes the row m places on, m the size
    of the largest group: a derangement by prompt wherever there is one. Rows that are not `real` take no part. The draw
    is a function of key and contents: however the rows lie in the batch, the same prompts meet the same completions.
    """
    k_group, k_row = jax.random.split(key)
    ids = jnp.where(real, rows.prompt_id, -1)
    group = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(k_group, i)))(ids)
    # real rows first, groups in random order, equal bits of two groups told apart by their ids
    order = jnp.lexsort((content_bits(k_row, rows), ids, group, ~real))
    largest = jnp.max(jnp.sum((ids[:, None] == ids) & real, axis=1))
    count = jnp.maximum(jnp.sum(real), 1)
    partner = order[(jnp.arange(len(ids)) + largest) % count]
    other = jnp.zeros_like(order).at[order].set(partner)
    return other, real & real[other] & (ids != ids[other])


def content_bits(key: Key, rows: Completions) -> UInt[Array, " B"]:
    """Random bits of every row, equal where rows are: neither place in the batch nor padding has a say.

    Two random linear hashes of the tokens, which tell rows apart, seed the draw: a linear hash alone would not make
    every order of them as likely.
    """
    k_hash, k_bits = jax.random.split(key)
    place = jnp.arange(rows.tokens.shape[1])
    factors = jax.vmap(lambda t: jax.random.bits(jax.random.fold_in(k_hash, t), (2,), jnp.uint32))(place)
    numbered = jnp.where(place < rows.length[:, None], rows.tokens + 1, 0).astype(jnp.uint32)
    hashes = jnp.sum(numbered[:, :, None] * factors, axis=1, dtype=jnp.uint32)

    seeds = jnp.stack([x.astype(jnp.uint32) for x in (rows.prompt_id, rows.prompt_length, *hashes.T)], axis=1)
    return jax.vmap(lambda s: jax.random.bits(reduce(jax.random.fold_in, s, k_bits)))(seeds)


def cross(
    rows: Completions, other: Int[Array, " B"], max_prompt_length: int | None, context: int | None = None
) -> Completions:
    """Every row's prompt with the completion of row `other`. As wide as any two of them need, cut at the context."""
    width = rows.tokens.shape[1]
    own, theirs = rows.prompt_length, take(rows, other)
    place = jnp.arange(min(width + min(width, max_prompt_length or width), context or 2 * width))
    source = place - own[:, None] + theirs.prompt_length[:, None]
    completion = jnp.take_along_axis(theirs.tokens, jnp.clip(source, 0, width - 1), axis=1)
    prompt = jnp.pad(rows.tokens, ((0, 0), (0, len(place) - width)))
    tokens = jnp.where(place < own[:, None], prompt, completion)
    length = jnp.minimum(own + theirs.length - theirs.prompt_length, len(place))
    return Completions(tokens, own, length, None, rows.prompt_id)
