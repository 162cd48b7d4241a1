"""Proximal Policy Optimization of a language model against a reward, held near its reference by a penalty on the KL
(Ziegler et al. 2019, arXiv 1909.08593; Stiennon et al. 2020, arXiv 2009.01325; Ouyang et al. 2022, arXiv 2203.02155;
details in Huang et al. 2024, arXiv 2403.17031).

One update: prompts, completions that the policy says, their scores; rewards per token; values and advantages along each
completion, by the same `gae` as in control; then a few epochs of clipped steps. A completion that was cut by its length
is worth its score or, with cut = "bootstrapped", the value of what would have followed; never both.

Is it going well? `reward` rises while `kl`, in nats per completion, stays near what is meant. A reward that rises with
a KL without bound is a policy that has found what its reward model gets wrong: raise kl_coef, or hold a target with
kl_controller = "adaptive". `finished` should not fall: see missing_eos_penalty. `ratio_error` is 0 to rounding, or the
policy is not what has spoken.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrl.algorithms.programs import completion_program
from jaxrl.data.arrays import Data
from jaxrl.data.settings import DataConfig, Loop
from jaxrl.lm.heads import Head, init_head, once, token_scores
from jaxrl.lm.log_probs import TokenRows, completion_stats
from jaxrl.lm.lora import Trained, trained
from jaxrl.lm.settings import LMConfig, ModelParallel, Sampling
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import approx_kl, clipped, clipped_surrogate_loss, clipped_value_loss
from jaxrl.ops.minibatch import accumulate, map_parts, minibatch_rows, take
from jaxrl.ops.optimizers import AdamW, adamw, adamw_step
from jaxrl.ops.rlhf import KL_ESTIMATES, adapted, completion_gae, kl_estimate, token_rewards, whiten
from jaxrl.settings import check_unread, config, leaf, static
from jaxrl.sources.sampled import Completed, of_completion
from jaxrl.types import Algorithm, InputError, Key, Metrics, Params, Program, PyTree


@config
class RLHF:
    """Settings of PPO for language models. Floats can be traced and swept; the other fields fix the program."""

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

    num_epochs: int = static(4, at_least=1)
    """Passes over each batch of completions."""
    num_minibatches: int = static(1, at_least=1)
    """Gradient steps per pass."""

    kl_coef: float = leaf(0.05, 0.0)
    """What a nat of KL to the reference costs, in units of reward; of the adaptive controller, at the start."""
    kl_estimate: str = static("k1", choices=KL_ESTIMATES)
    """How the KL of a token is estimated: k1 in the reward, k2 or k3 in the loss."""
    kl_in: str = static("reward", choices=("reward", "loss"))
    """reward: the penalty is a part of each token's reward, held constant. loss: it is added to the loss, with its own
    gradient."""
    kl_controller: str = static("fixed", choices=("fixed", "adaptive"))
    """adaptive: kl_coef is moved so that the KL comes to kl_target (Ziegler et al. 2019)."""
    kl_target: float = leaf(6.0, 1e-6)
    """Nats per completion."""
    kl_horizon: float = leaf(10_000.0, 1.0)
    """Completions in which the adaptive controller moves kl_coef by a fifth, at most."""

    missing_eos_penalty: float = leaf(0.0, 0.0)
    """Taken off the score of a completion that did not end."""
    cut: str = static("scored", choices=("scored", "bootstrapped"))
    """scored: a completion without an end is worth its score, as if it had ended. bootstrapped: it is truncated, and
    worth the value after its last token in place of a score."""
    reward_scale: float = leaf(1.0)
    """Constant that scores are multiplied by; reported ones are not scaled."""
    reward_clip: float = leaf(float("inf"), 0.0, infinite=True)
    """Scaled scores are clipped to ± this; inf is off."""
    whiten_rewards: bool = static(False)
    """Divide rewards, penalty included, by their standard deviation over all tokens of a batch."""
    whiten_advantages: bool = static(True)
    """Standardise advantages over all tokens of a batch."""

    critic: str = static("shared", choices=("shared", "separate"))
    """shared: the values are a head on the policy. separate: a model of their own, which starts as a copy of it."""
    gamma: float = leaf(1.0, 0.0, 1.0)
    """Discount per token."""
    gae_lambda: float = leaf(0.95, 0.0, 1.0)
    """λ of the advantage estimates."""
    clip_eps: float = leaf(0.2, 0.0)
    """ε of the clipped surrogate: how far the ratio may move from 1."""
    vf_coef: float = leaf(0.1, 0.0)
    """Weight of the value loss ½(V - G)²."""
    value_clip: float = leaf(float("inf"), 0.0, infinite=True)
    """How far V may move from its old value per update; inf is off."""

    eval_prompts: int = static(64, at_least=1)
    """Held-out prompts that are completed at every evaluation, at most."""
    optimizer: AdamW = AdamW(learning_rate=1e-6)
    """AdamW and its schedule, over all gradient steps. Learning rate: about 1e-6 for all parameters, 1e-5 to 7e-4 for
    adapters."""

    def validate(self) -> None:
        """Raises InputError for sizes that do not divide, and for settings that nothing reads or that do nothing."""
        batch, parts = self.loop.batch_size, self.num_minibatches
        if batch % parts:
            near = max(d for d in range(1, parts) if batch % d == 0)
            raise InputError(f"batch_size = {batch} is not divisible by num_minibatches = {parts}; try {near}")
        micro = self.loop.micro_batch_size
        if micro and batch // parts % micro:
            near = max(d for d in range(1, micro + 1) if batch // parts % d == 0)
            raise InputError(
                f"a minibatch of {batch // parts} rows is not divisible by micro_batch_size = {micro}; try {near}"
            )
        if self.kl_in == "loss" and self.kl_estimate == "k1":
            raise InputError("kl_estimate = 'k1' has a gradient of 0 on the average in the loss; use k2 or k3 there")
        if self.kl_controller == "fixed":
            check_unread(self, ("kl_target", "kl_horizon"), "with kl_controller = 'fixed'", "use 'adaptive'")

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
        """PPO of `params`, in `num_updates` updates. May run in a trace."""
        return make(self, model, params, num_updates)

    def policy(self, params: Params) -> Trained:
        """What of a model is trained."""
        return trained(self.lm, params)

    per_prompt = 1  # completions


class Weights(NamedTuple):
    """What is trained. policy: all parameters, or adapters. critic: the same of a model of its own, or (). head: of the
    values."""

    policy: Params
    critic: Params
    head: Head


class RLHFLearner(NamedTuple):
    """All that is carried from update to update."""

    trained: Weights
    opt_state: PyTree
    kl_coef: Float[Array, ""]
    num_updates: Int[Array, ""]


class Samples(NamedTuple):
    """What the loss needs of each completion: [B, ...] in every array, [B, T] of its tokens."""

    rows: TokenRows
    real: Bool[Array, "B T"]
    log_prob: Float[Array, "B T"]
    ref_log_prob: Float[Array, "B T"]
    value: Float[Array, "B T"]
    advantage: Float[Array, "B T"]
    target: Float[Array, "B T"]


def make(c: RLHF, model: LanguageModel, params: Params, num_updates: int) -> Algorithm:
    """The functions of PPO for language models."""
    tuned, room = trained(c.lm, params), c.sampling.max_new_tokens

    def init(key: Key) -> RLHFLearner:
        k_policy, k_critic = jax.random.split(key)
        critic = tuned.init(k_critic) if c.critic == "separate" else ()
        weights = Weights(tuned.init(k_policy), critic, init_head(model.config.hidden_size))
        coef = jnp.asarray(c.kl_coef, jnp.float32)
        return RLHFLearner(weights, adamw(c.optimizer).init(weights), coef, jnp.zeros((), jnp.int32))

    def values(weights: Weights, rows: TokenRows, trunk: LanguageModel = model) -> Float[Array, "B T+1"]:
        """Of the prompt, and of the completion up to and with each of its tokens. trunk: the model, or what it has made
        of these rows already."""
        body = tuned.model(weights.critic if c.critic == "separate" else weights.policy)
        # A step of Adam moves each of the D weights alike, V by their sum: scores of 0 to 1 would drown in that (Yang
        # et al. 2022, "Tensor Programs V", arXiv 2203.03466).
        head = weights.head / model.config.hidden_size**0.5
        found = token_scores(trunk, body, head, rows.tokens)
        place = rows.prompt_length[:, None] - 1 + jnp.arange(room + 1)
        return jnp.take_along_axis(found, jnp.minimum(place, found.shape[1] - 1), axis=1)

    def estimate(learner: RLHFLearner, batch: Completed) -> Samples:
        """Rewards, values, advantages and targets, once, under the parameters that spoke."""
        rows, real = TokenRows(batch.tokens, batch.prompt_length, batch.length), batch.real & batch.valid[:, None]
        # A score is of the whole, as is a value: with both, a policy is paid twice for not ending, and learns not to.
        ended = batch.finished | (c.cut == "scored")
        score = jnp.where(ended, batch.score, 0.0) - jnp.where(batch.finished, 0.0, c.missing_eos_penalty)
        score = jnp.clip(c.reward_scale * score, -c.reward_clip, c.reward_clip)
        kl = kl_estimate(batch.log_prob, batch.ref_log_prob, c.kl_estimate)
        reward = token_rewards(score, kl, batch.completion_length, learner.kl_coef if c.kl_in == "reward" else 0.0)
        if c.whiten_rewards:
            reward = whiten(reward, real, centre=False)
        value = map_parts(lambda x: values(learner.trained, x), rows, c.loop.micro_batch_size)
        advantage = completion_gae(reward, value, batch.completion_length, ended, c.gamma, c.gae_lambda)
        value, target = value[:, :-1], advantage + value[:, :-1]
        if c.whiten_advantages:
            advantage = whiten(advantage, real)
        return Samples(rows, real, batch.log_prob, batch.ref_log_prob, value, advantage, target)

    def loss(weights: Weights, batch: tuple[Samples, Float[Array, " B"]]) -> tuple[m.Mean, Metrics]:
        samples, kl_coef = batch
        policy = tuned.model(weights.policy)
        read = once(model, policy, samples.rows.tokens)
        stats, _ = completion_stats(read, policy, samples.rows, c.lm.logit_chunk)
        log_prob, entropy = (of_completion(x, samples.rows, room) for x in (stats.log_prob, stats.entropy))
        policy_loss = clipped_surrogate_loss(log_prob, samples.log_prob, samples.advantage, c.clip_eps)
        value = values(weights, samples.rows, model if c.critic == "separate" else read)[:, :-1]
        value_loss = clipped_value_loss(value, samples.value, samples.target, c.value_clip)
        total = policy_loss + c.vf_coef * value_loss
        if c.kl_in == "loss":
            total += kl_coef[:, None] * kl_estimate(log_prob, samples.ref_log_prob, c.kl_estimate)
        figures = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": approx_kl(log_prob, samples.log_prob),
            "clip_fraction": clipped(log_prob, samples.log_prob, c.clip_eps),
            "ratio_error": jnp.abs(jnp.expm1(log_prob - samples.log_prob)),
        }
        loss = m.mean(total, samples.real)
        return loss, {"loss": loss} | {name: m.mean(x, samples.real) for name, x in figures.items()}

    def update(key: Key, learner: RLHFLearner, batch: Completed) -> tuple[RLHFLearner, Metrics]:
        samples = estimate(learner, batch)
        count = len(batch.length)
        rows = jax.vmap(lambda k: minibatch_rows(k, count, c.num_minibatches))(jax.random.split(key, c.num_epochs))
        steps = c.num_epochs * c.num_minibatches
        first = learner.num_updates * steps

        def step(carry: PyTree, given: tuple[Array, Array]) -> tuple[PyTree, Metrics]:
            (weights, opt_state), (rows, number) = carry, given
            part = take(samples, rows), jnp.full(len(rows), learner.kl_coef)
            grads, metrics = accumulate(loss, weights, part, c.loop.micro_batch_size)
            weights, opt_state, more = adamw_step(
                c.optimizer, weights, opt_state, grads, first + number, num_updates * steps
            )
            return (weights, opt_state), metrics | more

        start = (learner.trained, learner.opt_state)
        (weights, opt_state), found = jax.lax.scan(step, start, (rows.reshape(steps, -1), jnp.arange(steps)))
        # Of the first step, before anything has moved: the others are meant to be off.
        metrics = m.total(found) | {"ratio_error": jax.tree.map(lambda x: x[0], found["ratio_error"])}
        metrics["explained_variance"] = m.explained_variance(samples.value, samples.target, samples.real)
        said, kl_coef = told(batch), learner.kl_coef
        if c.kl_controller == "adaptive":
            kl_coef = adapted(kl_coef, said["kl"].value, c.kl_target, count, c.kl_horizon)
        metrics |= said | {"kl_coef": m.mean(learner.kl_coef)}
        return RLHFLearner(weights, opt_state, kl_coef, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy=None)


def told(batch: Completed) -> Metrics:
    """Of completions, as they were said: score, KL to the reference in nats each (k1 and k3, over all tokens), tokens,
    how many ended, and how many had no finite score, or none in time, and are not learned from."""
    away = {kind: kl_estimate(batch.log_prob, batch.ref_log_prob, kind) for kind in ("k1", "k3")}
    kl, kl_k3 = (jnp.sum(jnp.where(batch.real, x, 0.0), axis=1) for x in away.values())
    return {
        "reward": m.mean(batch.score, batch.valid),
        "kl": m.mean(kl),
        "kl_k3": m.mean(kl_k3),
        "length": m.mean(batch.completion_length),
        "finished": m.mean(batch.finished),
        "invalid_rewards": m.mean(~batch.valid),
        "late_rewards": m.mean(batch.late),
    }
