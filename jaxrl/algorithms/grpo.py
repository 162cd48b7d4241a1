"""Policy gradients of a language model without a critic: several completions of each prompt are each other's baseline.

GRPO (Shao et al. 2024, arXiv 2402.03300), RLOO (Ahmadian et al. 2024, arXiv 2402.14740) and REINFORCE++ (Hu 2025, arXiv
2501.03262) differ in one place, `advantages`: the score is compared with the mean of its group, in units of its
standard deviation; with the mean of the others; or with that of the whole batch. All then take the clipped steps of
PPO, on the same completions as `rlhf.py`.

Which? rloo is unbiased. grpo divides by the spread within a group, which weighs prompts that are nearly solved, or
nearly hopeless, more than the others, and by a completion's length, which favours short right answers and long wrong
ones: it comes to rest at another policy than the one that the penalty means (Liu et al. 2025, arXiv 2503.20783).
by_std = False takes out the one, loss_over = "constant" the other. reinforce++ does with one completion a prompt. A
penalty in the loss is of each token by itself: that a token leads to where the KL is large it does not count, as one in
the reward does.

Is it going well? As in `rlhf.py`; and `spread`, the standard deviation within groups, is not 0: a prompt whose
completions all score alike teaches nothing.
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
from jaxrl.lm.log_probs import TokenRows, completion_stats
from jaxrl.lm.lora import Trained, trained
from jaxrl.lm.settings import LMConfig, ModelParallel, Sampling
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import approx_kl, clipped, clipped_surrogate_loss
from jaxrl.ops.minibatch import accumulate, minibatch_rows, take
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.ops.rlhf import KL_ESTIMATES, group_advantage, kl_estimate, rloo_advantage, token_rewards, whiten
from jaxrl.settings import check_unread, config, leaf, static
from jaxrl.sources.sampled import Completed, of_completion
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


@config
class GRPO:
    """Settings of GRPO, RLOO and REINFORCE++. Floats can be traced and swept; the other fields fix the program."""

    lm: LMConfig = LMConfig()
    """The model to train, by rule one that was fine-tuned on such texts, and what of it is trained. As it is given it
    is the reference."""
    data: DataConfig = DataConfig()
    """The prompts: {prompt}, or rows of any kind, of which the prompts are taken."""
    sampling: Sampling = Sampling()
    """How completions are sampled."""
    loop: Loop = Loop(batch_size=64)
    """How the prompts are gone through; a row is a completion."""
    parallel: ModelParallel = ModelParallel()
    """Over which devices the model and the rows are spread."""

    baseline: str = static("grpo", choices=("grpo", "rloo", "reinforce++"))
    """What a score is compared with: grpo, rloo, or reinforce++."""
    per_prompt: int = static(8, at_least=1)
    """Completions of each prompt in a batch."""
    by_std: bool = static(True)
    """Of grpo: in units of the group's standard deviation."""
    loss_over: str = static("auto", choices=("auto", "completion", "token", "constant"))
    """What the loss is a mean over: of each completion its tokens, then completions; all tokens alike (DAPO, Yu et al.
    2025, arXiv 2503.14476); or all places there are (Dr. GRPO), which is a sum over tokens, without bias. auto: as the
    paper of the baseline has it, completion for grpo, constant for rloo, token for reinforce++."""
    num_epochs: int = static(1, at_least=1)
    """Passes over each batch of completions."""
    num_minibatches: int = static(1, at_least=1)
    """Gradient steps per pass."""

    kl_coef: float = leaf(0.04, 0.0)
    """What a nat of KL to the reference costs, in units of reward."""
    kl_estimate: str = static("k3", choices=KL_ESTIMATES)
    """How the KL of a token is estimated: k3 or k2 in the loss, k1 in the reward."""
    kl_in: str = static("loss", choices=("reward", "loss"))
    """loss: added to the loss, token by token. reward: taken off the score before it is compared, of reinforce++ at the
    token where it arises."""
    clip_eps: float = leaf(0.2, 0.0)
    """ε of the clipped surrogate: how far the ratio may move from 1."""

    missing_eos_penalty: float = leaf(0.0, 0.0)
    """Taken off the score of a completion that did not end."""
    cut: str = static("scored", choices=("scored", "left_out"))
    """left_out: a completion without an end is one of its group, but nothing is learned from it (DAPO's overlong
    filtering)."""
    reward_clip: float = leaf(float("inf"), 0.0, infinite=True)
    """Scores are clipped to ± this; inf is off."""

    eval_prompts: int = static(64, at_least=1)
    """Held-out prompts that are completed at every evaluation, at most."""
    optimizer: AdamW = AdamW(learning_rate=1e-6)
    """AdamW and its schedule, over all gradient steps. Learning rate: about 1e-6 for all parameters, 1e-5 to 7e-4 for
    adapters."""

    def validate(self) -> None:
        """Raises InputError for sizes that do not divide, and for settings that nothing reads or that do nothing."""
        batch = self.loop.batch_size
        for name in ("per_prompt", "num_minibatches"):
            parts = getattr(self, name)
            if batch % parts:
                near = max(d for d in range(1, parts) if batch % d == 0)
                raise InputError(f"batch_size = {batch} is not divisible by {name} = {parts}; try {near}")
        rows, micro = batch // self.num_minibatches, self.loop.micro_batch_size
        if micro and rows % micro:
            near = max(d for d in range(1, micro + 1) if rows % d == 0)
            raise InputError(f"a minibatch of {rows} rows is not divisible by micro_batch_size = {micro}; try {near}")
        if self.per_prompt == 1 and self.baseline != "reinforce++":
            raise InputError(
                f"per_prompt = 1 leaves {self.baseline} nothing to compare a score with; take 4 or more, or reinforce++"
            )
        self.sampling.check_varied(self.per_prompt)
        if self.kl_in == "loss" and self.kl_estimate == "k1":
            raise InputError("kl_estimate = 'k1' has a gradient of 0 on the average in the loss; use k2 or k3 there")
        if self.baseline != "grpo":
            check_unread(self, ("by_std",), f"by baseline = {self.baseline!r}", "use grpo")

    learns_from = "prompts"  # as in jaxrl/data/kinds.py

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
        """GRPO of `params`, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def policy(self, params: Params) -> Trained:
        """What of a model is trained."""
        return trained(self.lm, params)


class Weights(NamedTuple):
    """What is trained. policy: all parameters, or adapters."""

    policy: Params


class GRPOLearner(NamedTuple):
    """All that is carried from update to update."""

    trained: Weights
    opt_state: PyTree
    num_updates: Int[Array, ""]


class Samples(NamedTuple):
    """What the loss needs of each completion: [B, ...] in every array, [B, T] of its tokens."""

    rows: TokenRows
    real: Bool[Array, "B T"]
    log_prob: Float[Array, "B T"]
    ref_log_prob: Float[Array, "B T"]
    advantage: Float[Array, "B T"]


def make(c: GRPO, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of GRPO, RLOO and REINFORCE++."""
    tuned, room = trained(c.lm, params), c.sampling.max_new_tokens
    own = {"grpo": "completion", "rloo": "constant", "reinforce++": "token"}
    over = own[c.baseline] if c.loss_over == "auto" else c.loss_over

    def init(key: Key) -> GRPOLearner:
        weights = Weights(tuned.init(key))
        return GRPOLearner(weights, adamw(c.optimizer).init(weights), jnp.zeros((), jnp.int32))

    def loss(weights: Weights, samples: Samples) -> tuple[m.Mean, Metrics]:
        stats, _ = completion_stats(model, tuned.model(weights.policy), samples.rows, c.lm.logit_chunk)
        log_prob, entropy = (of_completion(x, samples.rows, room) for x in (stats.log_prob, stats.entropy))
        policy_loss = clipped_surrogate_loss(log_prob, samples.log_prob, samples.advantage, c.clip_eps)
        total = policy_loss
        if c.kl_in == "loss":
            total += c.kl_coef * kl_estimate(log_prob, samples.ref_log_prob, c.kl_estimate)
        figures = {
            "policy_loss": policy_loss,
            "entropy": entropy,
            "approx_kl": approx_kl(log_prob, samples.log_prob),
            "clip_fraction": clipped(log_prob, samples.log_prob, c.clip_eps),
            "ratio_error": jnp.abs(jnp.expm1(log_prob - samples.log_prob)),
        }
        loss = mean_over(total, samples.real, over)
        return loss, {"loss": loss} | {n: m.mean(x, samples.real) for n, x in figures.items()}

    def update(key: Key, learner: GRPOLearner, batch: Completed) -> tuple[GRPOLearner, Metrics]:
        advantage, spread = advantages(c, batch)
        rows = TokenRows(batch.tokens, batch.prompt_length, batch.length)
        samples = Samples(rows, learned_from(c, batch), batch.log_prob, batch.ref_log_prob, advantage)
        keys, sizes = jax.random.split(key, c.num_epochs), (len(batch.length), c.num_minibatches)
        steps = c.num_epochs * c.num_minibatches
        minibatches = jax.vmap(lambda k: minibatch_rows(k, *sizes))(keys).reshape(steps, -1)
        numbers = learner.num_updates * steps + jnp.arange(steps)

        def step(carry: PyTree, given: tuple[Array, Array]) -> tuple[PyTree, Metrics]:
            (weights, opt_state), (rows, number) = carry, given
            grads, metrics = accumulate(loss, weights, take(samples, rows), c.loop.micro_batch_size)
            weights, opt_state, more = adamw_step(c.optimizer, weights, opt_state, grads, number, num_updates * steps)
            return (weights, opt_state), metrics | more

        start = (learner.trained, learner.opt_state)
        (weights, opt_state), found = jax.lax.scan(step, start, (minibatches, numbers))
        # Of the first step, before anything has moved: the others are meant to be off.
        metrics = m.total(found) | {"ratio_error": jax.tree.map(lambda x: x[0], found["ratio_error"])}
        metrics |= told(batch) | {"spread": m.mean(spread)}
        return GRPOLearner(weights, opt_state, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy=None)


def learned_from(c: GRPO, batch: Completed) -> Bool[Array, "B T"]:
    """The tokens that the loss is over."""
    rows = batch.valid & (batch.finished | (c.cut == "scored"))
    return batch.real & rows[:, None]


def advantages(c: GRPO, batch: Completed) -> tuple[Float[Array, "B T"], Float[Array, " N"]]:
    """Of every token, what its completion's score is above what it is compared with; and the standard deviation of the
    scores of each prompt. A completion whose score is not finite is taken for the mean of its group.
    """
    score = jnp.clip(batch.score - jnp.where(batch.finished, 0.0, c.missing_eos_penalty), -c.reward_clip, c.reward_clip)
    kl = jnp.where(batch.real, kl_estimate(batch.log_prob, batch.ref_log_prob, c.kl_estimate), 0.0)
    kl_coef = c.kl_coef if c.kl_in == "reward" else 0.0
    groups, valid = score.reshape(-1, c.per_prompt), batch.valid.reshape(-1, c.per_prompt)
    count = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)
    mean = jnp.sum(jnp.where(valid, groups, 0.0), axis=1, keepdims=True) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(valid, (groups - mean) ** 2, 0.0), axis=1) / count[:, 0])
    real = learned_from(c, batch)
    if c.baseline == "reinforce++":
        reward = token_rewards(score, kl, batch.completion_length, kl_coef)
        to_come = jnp.flip(jnp.cumsum(jnp.flip(reward, axis=1), axis=1), axis=1)
        return whiten(to_come, real), spread
    groups -= kl_coef * jnp.sum(kl, axis=1).reshape(groups.shape)
    mean = jnp.sum(jnp.where(valid, groups, 0.0), axis=1, keepdims=True) / count
    groups = jnp.where(valid, groups, mean)
    found = rloo_advantage(groups) if c.baseline == "rloo" else group_advantage(groups, c.by_std)
    return jnp.where(real, found.reshape(-1, 1), 0.0), spread


def mean_over(loss: Float[Array, "B T"], real: Bool[Array, "B T"], what: str) -> m.Mean:
    """The mean of a loss per token, over what `loss_over` says."""
    if what == "token":
        return m.mean(loss, real)
    said = jnp.any(real, axis=1)
    length = jnp.maximum(jnp.sum(real, axis=1), 1) if what == "completion" else loss.shape[1]
    return m.mean(jnp.sum(jnp.where(real, loss, 0.0), axis=1) / length, said)
