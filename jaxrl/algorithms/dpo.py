"""Direct Preference Optimization and its family: learn from pairs of answers, without a reward model.

(Not Discovered Policy Optimisation, which other JAX libraries call DPO.) One update: score both answers of every pair
under the policy and the reference, take the loss of the pair, step. Every score is a sum of log-probabilities over the
completion's tokens, its end token included; what differs between DPO, IPO, SimPO and the rest is one line of `LOSSES`.

The reference is the model as it was given, an adapter that is continued included: the same parameters without what is
trained, a frozen copy, or its log-probs computed beforehand; all three go through the same code, so the loss starts at
ln 2, up to rounding: `check_start` holds it to that.

Is it going well? rewards/margin and rewards/accuracy rise (the second from 0: before the first update all are ties),
and eval_loss falls. The chosen log-probs may fall too: only the margin is trained. Trouble is when logps/chosen falls
by more nats than the answers are worth, whatever the margin says: the model forgets how to say them, and its samples
show it (lower the learning rate, raise beta, or add nll_coef); or when entropy collapses. Rewards are β times summed
log-ratios, whatever the loss.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxrl.algorithms.programs import language_program, with_cached_reference
from jaxrl.data.arrays import Data, DataBatch
from jaxrl.data.preferences import Pairs
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.evaluators import Ask
from jaxrl.lm.log_probs import Scores
from jaxrl.lm.lora import trained
from jaxrl.lm.reference import check_cache_read, check_cached, score_sides, start_tolerance
from jaxrl.lm.settings import LMConfig, ModelParallel
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import losses
from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import accumulate, sum_over
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.settings import check_unread, config, leaf, static
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


class Pair(NamedTuple):
    """What a loss sees of B pairs: summed log-probs, under the policy and the reference, and numbers of tokens."""

    chosen: Float[Array, " B"]
    rejected: Float[Array, " B"]
    ref_chosen: Float[Array, " B"]
    ref_rejected: Float[Array, " B"]
    chosen_length: Float[Array, " B"]
    rejected_length: Float[Array, " B"]


def _means(p: Pair) -> tuple[Array, Array]:
    return p.chosen / jnp.maximum(p.chosen_length, 1), p.rejected / jnp.maximum(p.rejected_length, 1)


class Loss(NamedTuple):
    """One of the family. function(config, pair) -> a loss for each pair.

    reads: the settings that change it, beside beta, which is every loss's: rewards are in its unit. reference: whether
    it compares with one.
    """

    function: Callable[["DPO", Pair], Float[Array, " B"]]
    reads: tuple[str, ...] = ()
    reference: bool = True


SMOOTHED, WITH_MARGIN = ("label_smoothing",), ("gamma",)
LOSSES = {
    "dpo": Loss(lambda c, p: losses.dpo_loss(*p[:4], c.beta, c.label_smoothing), SMOOTHED),
    "robust": Loss(lambda c, p: losses.robust_dpo_loss(*p[:4], c.beta, c.label_smoothing), SMOOTHED),
    "ipo": Loss(lambda c, p: losses.ipo_loss(*p[:4], c.beta)),
    "ipo_mean": Loss(lambda c, p: losses.ipo_mean_loss(*p, c.beta)),
    "dpo_norm": Loss(lambda c, p: losses.dpo_norm_loss(*p, c.beta)),
    "hinge": Loss(lambda c, p: losses.hinge_loss(*p[:4], c.beta)),
    "apo_zero": Loss(lambda c, p: losses.apo_zero_loss(*p[:4], c.beta)),
    "apo_down": Loss(lambda c, p: losses.apo_down_loss(*p[:4], c.beta)),
    "bco": Loss(lambda c, p: losses.bco_loss(*p[:4], c.beta, 0.0)),
    "nca": Loss(lambda c, p: losses.nca_loss(*p[:4], c.beta)),
    "exo": Loss(lambda c, p: losses.exo_loss(*p[:4], c.beta, jnp.maximum(c.label_smoothing, 1e-3)), SMOOTHED),
    "sppo": Loss(lambda c, p: losses.sppo_loss(*p[:4], c.beta)),
    "discopop": Loss(lambda c, p: losses.discopop_loss(*p[:4], c.beta)),
    "js": Loss(lambda c, p: losses.f_dpo_loss(*p[:4], c.beta, losses.jensen_shannon_link)),
    "forward_kl": Loss(lambda c, p: losses.f_dpo_loss(*p[:4], c.beta, losses.forward_kl_link)),
    "simpo": Loss(lambda c, p: losses.simpo_loss(*_means(p), c.beta, c.gamma), WITH_MARGIN, reference=False),
    "orpo": Loss(lambda c, p: losses.orpo_loss(*_means(p), c.beta), reference=False),
    "cpo": Loss(lambda c, p: losses.cpo_loss(*p[:2], c.beta, 0.0), reference=False),
    "slic": Loss(lambda c, p: losses.slic_loss(*p[:2], c.gamma, 0.0), WITH_MARGIN, reference=False),
}
REFERENCE_FREE = tuple(name for name, loss in LOSSES.items() if not loss.reference)
SOME_READ = tuple(dict.fromkeys(name for loss in LOSSES.values() for name in loss.reads))


@config
class DPO:
    """Settings of DPO and its family. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The model to align, by rule one that was fine-tuned on such texts, and what of it is trained."""
    data: DataConfig = DataConfig()
    """The pairs: {prompt, chosen, rejected}."""
    loop: Loop = Loop(batch_size=64)
    """How the pairs are gone through."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    loss: str = static("dpo", choices=tuple(LOSSES))
    """Start with dpo; ipo or label_smoothing for noisy labels (ipo_mean is per token, as TRL's "ipo" is); simpo or orpo
    to do without a reference. cpo and slic come without their NLL, which nll_coef adds, and bco with δ = 0."""
    beta: float = leaf(0.1, 1e-6)
    """Reward per nat of log-ratio: larger stays closer to the reference. 0.1, in 0.01 to 0.5; dpo_norm 5; simpo 2 to
    2.5. For ipo it is τ, for orpo λ."""
    label_smoothing: float = leaf(0.0, 0.0, 0.499)
    """ε: the share of labels believed wrong. With dpo this is cDPO; robust uses it too, and exo, at least 1e-3."""
    gamma: float = leaf(1.0, 0.0)
    """The margin of simpo, in units of reward (0.5 to 1.5), and δ of slic, in nats."""
    nll_coef: float = leaf(0.0, 0.0)
    """Weight of the chosen answer's NLL per token, added to any loss: keeps its probability from falling."""
    wpo: bool = static(False)
    """Weigh each pair, its NLL too, by how likely the policy is to say it (Zhou et al. 2024, arXiv 2406.11827)."""
    reference: str = static("frozen", choices=("frozen", "cached", "none"))
    """frozen: the model as given, beside the policy. cached: its log-probs, computed before. none: for simpo, orpo, cpo
    and slic, which need none; with frozen they still measure rewards against it."""
    reference_cache: str = static("")
    """Where the cached log-probs are kept; by default in the user's cache, under a hash of all they depend on."""
    sync_every: int = static(0, at_least=0)
    """TR-DPO (Gorbatovski et al. 2024, arXiv 2404.09656): move the reference every so many updates; 0 never does."""
    sync_alpha: float = leaf(0.6, 0.0, 1.0)
    """How far towards the policy the reference moves then."""

    optimizer: AdamW = AdamW(learning_rate=1e-6)
    """AdamW and its schedule. Learning rate: 5e-7 to 1e-6 for all parameters, 1e-5 to 5e-4 for adapters."""

    def validate(self) -> None:
        """Raises InputError for a reference that the loss cannot do without, and for settings that nothing reads."""
        if self.reference == "none" and self.loss not in REFERENCE_FREE:
            free = ", ".join(REFERENCE_FREE)
            raise InputError(f"loss = {self.loss!r} compares with a reference; set reference = 'frozen', or use {free}")
        if self.sync_every and self.loss in REFERENCE_FREE:
            raise InputError(
                f"sync_every = {self.sync_every} moves a reference, and loss = {self.loss!r} compares with none; leave "
                "sync_every out, or use a loss that does, such as dpo"
            )
        if self.sync_every and (self.reference != "frozen" or self.lm.lora_rank):
            need = (
                "reference = 'frozen' and lm.lora_rank = 0: parameters are averaged, and adapters' factors are not them"
            )
            raise InputError(f"sync_every = {self.sync_every} needs {need}")
        for name in [name for name in SOME_READ if name not in LOSSES[self.loss].reads]:
            *most, last = (other for other, loss in LOSSES.items() if name in loss.reads)
            check_unread(self, (name,), f"by loss = {self.loss!r}", f"use {', '.join(most)} or {last}")
        if not self.sync_every:
            check_unread(self, ("sync_alpha",), "with sync_every = 0", "set sync_every to at least 1")
        check_cache_read(self)

    learns_from = "pairs"  # as in jaxrl/data/kinds.py: which rows, and what is made of others
    # What the loss is: with two values of one of these, losses are not the same thing measured twice.
    defines_loss = ("loss", "beta", "label_smoothing", "gamma", "nll_coef", "wpo")

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
        """DPO of `params`, which are also the reference, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def check_data(self, data: Data) -> None:
        """Raises InputError for rows that are not pairs, or lack the log-probs that a cached reference reads."""
        pairs = data.train + data.held_out
        if any(not isinstance(bucket, Pairs) for bucket in pairs):
            raise InputError("DPO learns from {prompt, chosen, rejected}; give pairs, or use KTO for single answers")
        check_cached(self, [side for pair in pairs for side in pair])

    def check_start(self, metrics: dict[str, float]) -> None:
        """Raises InputError unless the loss before the first update is what equal policy and reference give."""
        found, nothing, tolerance = metrics["preference_loss"], jnp.zeros(1), start_tolerance(self)
        if not math.isfinite(found):
            raise InputError(f"the {self.loss} loss starts at {found}; look for what is not finite in the model")
        if self.loss in REFERENCE_FREE:
            return
        expected = float(LOSSES[self.loss].function(self, Pair(*[nothing] * 4, nothing + 1, nothing + 1))[0])
        if not abs(found - expected) <= tolerance * max(1.0, abs(expected)):
            raise InputError(
                f"the {self.loss} loss starts at {found:.8f}, not {expected:.8f}: policy and reference differ before "
                "the first update; give them the same parameters, dtype and rows, or remove a stale reference cache"
            )


class DPOLearner(NamedTuple):
    """All that DPO carries from update to update. reference: parameters of its own if it moves, else ()."""

    trained: Params
    opt_state: PyTree
    reference: Params
    num_updates: Int[jax.Array, ""]


def make(c: DPO, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of DPO."""
    tuned = trained(c.lm, params)

    def init(key: Key) -> DPOLearner:
        start, moving = tuned.init(key), params if c.sync_every else ()
        return DPOLearner(start, adamw(c.optimizer).init(start), moving, jnp.zeros((), jnp.int32))

    def reference(moving: Params, rows: Pairs) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        if c.reference == "none":
            return jnp.zeros(len(rows.chosen.length)), jnp.zeros(len(rows.chosen.length))
        if c.reference == "cached":
            return rows.chosen.ref_log_prob, rows.rejected.ref_log_prob  # pyright: ignore[reportReturnType]  # computed
        scores = score_sides(model, moving if c.sync_every else params, rows, c.lm.logit_chunk)
        return jax.lax.stop_gradient((scores[0].log_prob, scores[1].log_prob))

    def loss(moving: Params, weights: Params, batch: DataBatch) -> tuple[m.Mean, Metrics]:
        chosen, rejected = score_sides(model, tuned.model(weights), batch.rows, c.lm.logit_chunk)
        ref = reference(moving, batch.rows)
        pair = Pair(chosen.log_prob, rejected.log_prob, *ref, chosen.length, rejected.length)
        preference = LOSSES[c.loss].function(c, pair)
        total = preference - c.nll_coef * chosen.mean_log_prob
        if c.wpo:
            total *= wpo_weight(chosen) * wpo_weight(rejected)
        where = batch.weight > 0
        figures = {"loss": total, "preference_loss": preference, **losses.preference_metrics(*pair[:4], c.beta)}
        figures |= {"logps/chosen": chosen.log_prob, "logps/rejected": rejected.log_prob}
        figures |= {"length/chosen": chosen.length, "length/rejected": rejected.length}
        metrics = {name: m.mean(values, where) for name, values in figures.items()}
        tokens = chosen.length + rejected.length
        metrics["entropy"] = m.ratio(chosen.entropy + rejected.entropy, tokens, where)
        return metrics["loss"], metrics

    def update(key: Key, learner: DPOLearner, batch: DataBatch) -> tuple[DPOLearner, Metrics]:
        grads, metrics = accumulate(partial(loss, learner.reference), learner.trained, batch, c.loop.micro_batch_size)
        new, opt_state, more = adamw_step(
            c.optimizer, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        done, moved = learner.num_updates + 1, learner.reference
        if c.sync_every:
            share = jnp.where(done % c.sync_every == 0, c.sync_alpha, 0.0)
            moved = jax.tree.map(lambda ref, now: ref + share * (now - ref), moved, new)
        return DPOLearner(new, opt_state, moved, done), metrics | more

    def measure(key: Key, learner: DPOLearner, batch: DataBatch) -> Metrics:
        part = lambda rows: loss(learner.reference, learner.trained, rows)[1]  # noqa: E731
        return sum_over(part, batch, c.loop.micro_batch_size)

    return Algorithm(init, update, policy=None, measure=measure)


def wpo_weight(scores: Scores) -> Float[Array, " B"]:
    """WPO's weight of an answer, held constant."""
    return losses.wpo_weight(scores.mean_log_prob, scores.log_sum_p2)
