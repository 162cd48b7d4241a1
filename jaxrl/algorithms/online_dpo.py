"""Online DPO: the policy says two things to each prompt, a reward says which is better, and that pair is learned from
as DPO learns from pairs of others (Guo et al. 2024, "Direct Language Model Alignment from Online AI Feedback", arXiv
2402.04792).

Pairs of others tell of answers that the policy may no longer give; these are its own, so that it does not outrun them.
Two that score alike, or of which one has no score, say nothing and are left out: `pairs` is the share that is not.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.algorithms.programs import completion_program
from jaxrl.algorithms.rlhf import told
from jaxrl.data.arrays import Data
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.lm.log_probs import TokenRows, completion_scores
from jaxrl.lm.lora import Trained, trained
from jaxrl.lm.settings import LMConfig, ModelParallel, Sampling
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import losses
from jaxrl.ops import metrics as m
from jaxrl.ops.minibatch import accumulate
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.settings import check_unread, config, leaf, static
from jaxrl.sources.sampled import Completed
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


@config
class OnlineDPO:
    """Settings of online DPO. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The model to train, by rule one that was fine-tuned on such texts, and what of it is trained. As it is given it
    is the reference."""
    data: DataConfig = DataConfig()
    """The prompts: {prompt}, or rows of any kind, of which the prompts are taken."""
    sampling: Sampling = Sampling()
    """How completions are sampled."""
    loop: Loop = Loop(batch_size=64)
    """How the prompts are gone through; a row is a completion, and two are a pair."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    loss: str = static("dpo", choices=("dpo", "ipo"))
    """dpo, or ipo, which does not drive the margin of a sure pair to infinity."""
    beta: float = leaf(0.1, 1e-6)
    """Reward per nat of log-ratio: larger stays closer to the reference. For ipo it is τ."""
    label_smoothing: float = leaf(0.0, 0.0, 0.499)
    """ε of dpo: the share of the reward's preferences believed wrong."""
    missing_eos_penalty: float = leaf(0.0, 0.0)
    """Taken off the score of a completion that did not end."""

    eval_prompts: int = static(64, at_least=1)
    """Held-out prompts that are completed at every evaluation, at most."""
    optimizer: AdamW = AdamW(learning_rate=1e-6)
    """AdamW and its schedule. Learning rate: 5e-7 to 1e-6 for all parameters, about 1e-5 to 1e-4 for adapters."""

    def validate(self) -> None:
        """Raises InputError for an odd batch, and for settings that nothing reads."""
        micro = self.loop.micro_batch_size
        if self.loop.batch_size % 2 or (micro or 2) % 2:
            name = "batch_size" if self.loop.batch_size % 2 else "micro_batch_size"
            raise InputError(f"{name} = {getattr(self.loop, name)} is odd, and two completions are a pair; add one")
        self.sampling.check_varied(self.per_prompt)
        if self.loss != "dpo":
            check_unread(self, ("label_smoothing",), f"by loss = {self.loss!r}", "use dpo")

    learns_from = "prompts"  # as in jaxrl/data/kinds.py
    per_prompt = 2  # completions

    @property
    def kl_coef(self) -> float:
        """What a nat of KL is worth: β, of whose optimum this is the penalty."""
        return self.beta

    def program(
        self,
        network: LanguageModel | None = None,
        params: Params | None = None,
        data: Data | None = None,
        reward: Any = None,
        stop: Sequence[int] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> Program:
        """What the drivers run: the model, its parameters, the prompts, what scores completions, what ends them."""
        return completion_program(self, network, params, data, reward, stop, tokenizer, told)

    def complete_data(self, model: LanguageModel, params: Params, data: Data) -> Data:
        """Nothing is added to the prompts."""
        return data

    def make(self, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
        """Online DPO of `params`, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def policy(self, params: Params) -> Trained:
        """What of a model is trained."""
        return trained(self.lm, params)


class Weights(NamedTuple):
    """What is trained. policy: all parameters, or adapters."""

    policy: Params


class OnlineDPOLearner(NamedTuple):
    """All that is carried from update to update."""

    trained: Weights
    opt_state: PyTree
    num_updates: Int[Array, ""]


class Judged(NamedTuple):
    """N pairs, [N, 2] in every array, the better one first. ref_log_prob: summed. counts [N]: whether one is better."""

    rows: TokenRows
    ref_log_prob: Float[Array, "N 2"]
    counts: Bool[Array, " N"]


def make(c: OnlineDPO, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of online DPO."""
    tuned = trained(c.lm, params)

    def init(key: Key) -> OnlineDPOLearner:
        weights = Weights(tuned.init(key))
        return OnlineDPOLearner(weights, adamw(c.optimizer).init(weights), jnp.zeros((), jnp.int32))

    def loss(weights: Weights, pairs: Judged) -> tuple[m.Mean, Metrics]:
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs.rows)
        scores = completion_scores(model, tuned.model(weights.policy), flat, c.lm.logit_chunk)
        log_prob = scores.log_prob.reshape(-1, 2)
        sides = (*log_prob.T, *pairs.ref_log_prob.T)
        of_pair = (
            losses.dpo_loss(*sides, c.beta, c.label_smoothing) if c.loss == "dpo" else losses.ipo_loss(*sides, c.beta)
        )
        figures = {"loss": of_pair, **losses.preference_metrics(*sides, c.beta)}
        metrics = {name: m.mean(values, pairs.counts) for name, values in figures.items()}
        both = jnp.repeat(pairs.counts, 2)
        metrics["entropy"] = m.ratio(scores.entropy, scores.length, both)
        return metrics["loss"], metrics

    def update(key: Key, learner: OnlineDPOLearner, batch: Completed) -> tuple[OnlineDPOLearner, Metrics]:
        pairs, micro = judged(batch, c.missing_eos_penalty), c.loop.micro_batch_size
        grads, metrics = accumulate(loss, learner.trained, pairs, micro and micro // 2)
        weights, opt_state, more = adamw_step(
            c.optimizer, learner.trained, learner.opt_state, grads, learner.num_updates, num_updates
        )
        metrics |= more | told(batch) | {"pairs": m.mean(pairs.counts)}
        return OnlineDPOLearner(weights, opt_state, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy=None)


def judged(batch: Completed, missing_eos_penalty: float | Float[Array, ""]) -> Judged:
    """The completions of each prompt, the one that scores higher first."""
    score = (batch.score - jnp.where(batch.finished, 0.0, missing_eos_penalty)).reshape(-1, 2)
    first = score[:, 0] >= score[:, 1]
    order = jnp.where(first[:, None], jnp.array([0, 1]), jnp.array([1, 0])) + 2 * jnp.arange(len(first))[:, None]
    rows = TokenRows(batch.tokens, batch.prompt_length, batch.length)
    ref_log_prob = jnp.sum(batch.ref_log_prob, axis=1)
    counts = (score[:, 0] != score[:, 1]) & jnp.all(batch.valid.reshape(-1, 2), axis=1)
    return Judged(*jax.tree.map(lambda x: x[order], (rows, ref_log_prob)), counts)
