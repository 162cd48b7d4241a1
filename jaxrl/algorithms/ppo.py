"""Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347), with the details that matter in practice
(Engstrom et al. 2020, arXiv 2005.12729; Andrychowicz et al. 2021, arXiv 2006.05990; Huang et al. 2022, "The 37
implementation details").

Read `make` top to bottom: it is the whole update in order, for networks that remember and those that do not. Left out:
KL penalties, reward centring.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from jaxrl.algorithms.programs import control_program
from jaxrl.networks import check_outputs, network_of, remembers, successor_value, with_memory
from jaxrl.networks.heads import HEADS
from jaxrl.networks.recurrent import CORES
from jaxrl.networks.torsos import TORSOS
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import approx_kl, clipped, clipped_surrogate_loss, clipped_value_loss
from jaxrl.ops.minibatch import accumulate, flatten, minibatch_rows, num_rows, rows_at_once, sequences, take
from jaxrl.ops.normalization import (
    ReturnScale,
    RunningStats,
    init_obs_stats,
    init_return_scale,
    normalize,
    scale_reward,
    update_return_scale,
    update_stats,
)
from jaxrl.ops.optimizers import unless
from jaxrl.ops.returns import gae
from jaxrl.ops.schedules import Scalar, linear, remaining
from jaxrl.ops.shards import standardized
from jaxrl.ops.successors import next_values, values
from jaxrl.settings import EnvConfig, Parallel, check_unread, config, leaf, static
from jaxrl.sources import rollouts
from jaxrl.spaces import Spaces
from jaxrl.types import (
    Algorithm,
    InputError,
    Key,
    Memory,
    Metrics,
    Network,
    Params,
    Program,
    PyTree,
    Source,
    Transition,
)


@config
class PPO:
    """Settings of PPO. Floats can be traced and swept; the other fields fix the program."""

    env: EnvConfig = EnvConfig()
    """Which environment, and how many copies."""
    total_steps: int = static(524_288, at_least=1)
    """Environment steps of the whole run, over all copies; with action_repeat, the agent's."""
    num_steps: int = static(128, at_least=1)
    """Steps per environment per update (the rollout's length T)."""
    num_epochs: int = static(4, at_least=1)
    """Passes over each rollout."""
    num_minibatches: int = static(4, at_least=1)
    """Gradient steps per pass."""
    minibatches_by: str = static("auto", choices=("auto", "step", "env"))
    """Shuffle single steps, or whole environments, as what remembers needs; auto decides by that."""
    micro_batch_size: int | None = static(None, at_least=1)
    """Rows whose gradient is taken at once: the same result, and cache-sized ones are faster on CPU. None takes what is
    fastest on the platform: up to 2048 on CPU, where that many divide a minibatch, else all."""

    learning_rate: float = leaf(3e-4, 0.0)
    """Adam's step size at the start."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached linearly: 0 anneals to zero, 1 is constant."""
    lr_schedule: str = static("linear", choices=("linear", "adaptive"))
    """"adaptive" divides the rate by 1.5 where a minibatch's approx_kl is above 2 kl_goal, and multiplies it by 1.5
    where that is below kl_goal / 2, from the step on that minibatch on, between 1e-5 and 1e-2."""
    kl_goal: float = leaf(0.01, 0.0)
    """The approx_kl that an adaptive learning rate aims at."""
    clip_eps: float = leaf(0.2, 0.0)
    """ε of the clipped surrogate: how far the ratio may move from 1."""
    clip_final: float = leaf(1.0, 0.0, 1.0)
    """Share of clip_eps left after the last update."""
    ent_coef: float = leaf(0.0, 0.0)
    """Weight of the entropy bonus."""
    ent_final: float = leaf(1.0, 0.0, 1.0)
    """Share of ent_coef left after the last update."""
    vf_coef: float = leaf(0.5, 0.0)
    """Weight of the value loss ½(V - G)²."""
    value_clip: float = leaf(float("inf"), 0.0)
    """How far V may move from its old value per update; inf is off (no measurable gain is known)."""
    gamma: float = leaf(0.99, 0.0, 1.0)
    """Discount per step."""
    gae_lambda: float = leaf(0.95, 0.0, 1.0)
    """λ of the advantage estimates."""
    max_grad_norm: float = leaf(0.5, 0.0, infinite=True)
    """Global norm that gradients are clipped to; inf is off."""
    adam_eps: float = leaf(1e-5, 0.0)
    """Adam's ε."""
    target_kl: float = leaf(float("inf"), 0.0)
    """Skip an update's remaining gradient steps once approx_kl exceeds this; inf is off."""

    recompute_advantages: bool = static(False)
    """Estimate values and advantages anew before each epoch, by the parameters as they are then."""
    normalize_obs: bool = static(False)
    """Standardise observations by running statistics, clipped to ±10."""
    normalize_return: bool = static(False)
    """Divide rewards by the running standard deviation of the discounted return, and clip them to ±10. Of the first
    rollout nothing is known yet: it is clipped alone."""
    normalize_advantage: bool = static(True)
    """Standardise advantages within each minibatch."""
    reward_scale: float = leaf(1.0)
    """Constant that rewards are multiplied by; reported returns are not scaled."""

    hidden: tuple[int, ...] = static((64, 64), at_least=1)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] | None = static(None, at_least=1)
    """Widths of the critic's hidden layers; None takes the actor's."""
    activation: str = static("tanh")
    """tanh, relu, swish, elu or gelu."""
    head: str = static("auto", choices=HEADS)
    """Continuous policies: "normal" (clipped to the bounds, state-independent std), "state_normal", "tanh_normal"
    (squashed into them) or "beta"; auto is normal."""
    init_std: float = leaf(1.0, 1e-6)
    """Standard deviation of the first policy, in units of half the range where actions are bounded."""
    torso: str = static("auto", choices=TORSOS)
    """What sees pictures: "minatar", "nature" or "impala"; auto by their size; "flat" takes pixels as a vector."""
    core: str = static("none", choices=CORES)
    """What remembers: "gru", "lstm" or "linear", between torso or embedding and the hidden layers; or "none"."""
    core_size: int = static(128, at_least=1)
    """Units of the core."""

    parallel: Parallel = Parallel()
    """Over which devices."""

    def validate(self) -> None:
        """Raises InputError, naming the nearest valid numbers, where the sizes do not divide."""
        if self.core == "none":
            check_unread(self, ("core_size",), "without a core", "set core = 'gru'")
        if self.lr_schedule == "linear":
            check_unread(self, ("kl_goal",), "by a linear lr_schedule", "set lr_schedule = 'adaptive'")
        else:
            check_unread(self, ("lr_final",), "by an adaptive lr_schedule", "set lr_schedule = 'linear'")
        self.check_minibatches(self.core != "none")
        rows = self.env.num_envs * self.num_steps // self.num_minibatches
        if rows < 2 and self.normalize_advantage:
            raise InputError(
                f"num_minibatches = {self.num_minibatches} leaves one row each, whose standardised advantage is always "
                "0: nothing would be learned; use fewer, or set normalize_advantage = False"
            )
        if self.micro_batch_size and rows % self.micro_batch_size:
            near = max(d for d in range(1, min(rows, self.micro_batch_size) + 1) if rows % d == 0)
            raise InputError(
                f"a minibatch of {rows} rows is not divisible by micro_batch_size = {self.micro_batch_size}; try {near}"
            )

    def by_env(self, remembers: bool) -> bool:
        """Whether a minibatch is of whole sequences."""
        return self.minibatches_by == "env" or (self.minibatches_by == "auto" and remembers)

    def check_minibatches(self, remembers: bool) -> None:
        """Raises InputError for minibatches that do not come out even, and for single steps of what remembers."""
        if remembers and self.minibatches_by == "step":
            raise InputError("minibatches_by = 'step' takes sequences apart, and the network remembers; use 'env'")
        size, what = self.env.num_envs * self.num_steps, "num_envs * num_steps"
        if self.by_env(remembers):
            size, what = self.env.num_envs, "num_envs"
        if size % self.num_minibatches:
            near = max(d for d in range(1, self.num_minibatches) if size % d == 0)
            raise InputError(
                f"{what} = {size} is not divisible by num_minibatches = {self.num_minibatches}; try {near}"
            )
        if self.by_env(remembers) and self.micro_batch_size and self.micro_batch_size % self.num_steps:
            raise InputError(
                f"micro_batch_size = {self.micro_batch_size} cuts sequences of num_steps = {self.num_steps} apart; try "
                f"{max(1, self.micro_batch_size // self.num_steps) * self.num_steps}"
            )

    def program(self, env: Any = None, network: Network | None = None) -> Program:
        """What the drivers run. env, network: to use instead of the config's own."""
        return control_program(self, env, network)

    def source(self, env: Any, algorithm: Algorithm) -> Source:
        """Rollouts that carry on where the last one stopped."""
        return rollouts(env, algorithm, self.num_steps)

    def make(self, spaces: Spaces, network: Network | None = None) -> Algorithm:
        """PPO for these spaces. network: as `Network` says, with or without a memory. May run inside a trace."""
        return make(self, spaces, network)


class PPOLearner(NamedTuple):
    """All that PPO carries from update to update. What is switched off is None: statistics, and a rate that adapts."""

    params: Params
    opt_state: PyTree
    obs_stats: RunningStats | None
    return_scale: ReturnScale | None
    num_updates: Int[Array, ""]
    learning_rate: Float[Array, ""] | None = None


class Now(NamedTuple):
    """Where the gradient steps on one rollout have come to. stopped: by target_kl."""

    params: Params
    opt_state: PyTree
    learning_rate: Float[Array, ""]
    stopped: Bool[Array, ""]


class Samples(NamedTuple):
    """What the loss needs of each sample."""

    obs: PyTree
    action: PyTree
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    first: Array


def make(c: PPO, spaces: Spaces, network: Network | None) -> Algorithm:
    """PPO's init, update and policy."""
    if network is None:
        network = network_of(c, spaces, critic_hidden=c.critic_hidden)
    else:
        check_outputs(network, spaces)
        c.check_minibatches(remembers(network))
    by_env, network = c.by_env(remembers(network)), with_memory(network)
    # Global norm, as papers mean it (optax.clip would cut elementwise). Adam's ε is 1e-5, as in OpenAI's code.
    optimizer = optax.flatten(
        optax.chain(optax.clip_by_global_norm(c.max_grad_norm), optax.scale_by_adam(eps=c.adam_eps))
    )

    def init(key: Key) -> PPOLearner:
        params = network.init(key)
        obs_stats = init_obs_stats(spaces.observation, c.normalize_obs)
        return_scale = init_return_scale(c.env.num_envs) if c.normalize_return else None
        rate = jnp.asarray(c.learning_rate, jnp.float32) if c.lr_schedule == "adaptive" else None
        return PPOLearner(params, optimizer.init(params), obs_stats, return_scale, jnp.zeros((), jnp.int32), rate)

    def policy(learner: PPOLearner, memory: Memory, obs: PyTree, first: Bool[Array, " N"]):
        distribution, _, memory = network.apply(learner.params, normalize(learner.obs_stats, obs), first, memory)
        return memory, distribution

    def update(key: Key, learner: PPOLearner, batch: Transition) -> tuple[PPOLearner, Metrics]:
        done = batch.terminated | batch.truncated
        return_scale, reward = learner.return_scale, c.reward_scale * batch.reward
        if return_scale is not None:
            # Unlike the observations' statistics these may move first: no stored log-probability depends on them.
            return_scale = update_return_scale(return_scale, reward, done, c.gamma)
            reward = scale_reward(return_scale, reward)

        def learn(key: Key, now: Now, num_epochs: int) -> tuple[Now, Metrics]:
            samples = estimate(c, spaces, network, learner._replace(params=now.params), batch, reward)
            rows = (sequences(samples), batch.memory) if by_env else (flatten(samples), ())
            now, metrics = fit(c, network, optimizer, key, now, learner.num_updates, num_epochs, *rows)
            return now, metrics | {"explained_variance": m.explained_variance(samples.value, samples.target)}

        rate = linear(c.learning_rate, c.lr_final, remaining(c, learner.num_updates))
        rate = rate if learner.learning_rate is None else learner.learning_rate
        now = Now(learner.params, learner.opt_state, rate, jnp.zeros((), bool))
        if c.recompute_advantages:
            now, metrics = jax.lax.scan(lambda now, key: learn(key, now, 1), now, jax.random.split(key, c.num_epochs))
            metrics = m.total(metrics)
            metrics["gradient_steps"] = m.mean(metrics["gradient_steps"].total)  # of all epochs, not of one
        else:
            now, metrics = learn(key, now, c.num_epochs)

        # Statistics move only now: the ratios above were taken with those that the rollout was acted with.
        obs_stats = learner.obs_stats
        if obs_stats is not None:
            obs_stats = update_stats(obs_stats, batch.obs)
        metrics |= m.episode_metrics(batch)
        rate = None if learner.learning_rate is None else now.learning_rate
        done = learner.num_updates + 1
        return PPOLearner(now.params, now.opt_state, obs_stats, return_scale, done, rate), metrics

    def of_envs(learner: PPOLearner) -> PPOLearner:
        none = jax.tree.map(lambda _: False, learner)
        return none._replace(return_scale=none.return_scale and none.return_scale._replace(running=True))

    return Algorithm(init, update, policy, network.memory, by_env=of_envs)


def estimate(
    c: PPO, spaces: Spaces, network: Network, learner: PPOLearner, batch: Transition, reward: Array
) -> Samples:
    """Values, advantages and targets of a rollout [T, N], once, under the parameters that acted (§5 of the paper)."""

    def value_of(obs: PyTree) -> Array:
        return successor_value(network, learner.params, (obs, ()))

    def next_value_of(rows: tuple[PyTree, Memory]) -> Array:
        next_obs, memory = rows
        return successor_value(network, learner.params, (normalize(learner.obs_stats, next_obs), memory))

    obs, ends = normalize(learner.obs_stats, batch.obs), (batch.terminated, batch.truncated)
    memories = ()
    if jax.tree.leaves(batch.memory):
        _, value, memories = network.apply(learner.params, obs, batch.first, batch.memory)
    else:
        value = values(value_of, obs)
    # Each successor is seen with what was remembered after its own step, which is also right where an episode was cut.
    next_value = next_values(next_value_of, value, (batch.next_obs, memories), *ends, spaces.truncates)
    advantage = gae(reward, value, next_value, *ends, c.gamma, c.gae_lambda)
    return Samples(obs, batch.action, batch.log_prob, value, advantage, advantage + value, batch.first)


def fit(
    c: PPO,
    network: Network,
    optimizer: Any,
    key: Key,
    start: Now,
    num_updates: Int[Array, ""],
    num_epochs: int,
    samples: Samples,
    memory: Memory,
) -> tuple[Now, Metrics]:
    """The epochs of gradient steps on one rollout.

    samples: rows that are steps [T·N], or environments' sequences [N, T], each then with its `memory` [N] at the start.
    """
    by_env = samples.log_prob.ndim == 2
    steps, N = c.num_steps if by_env else 1, num_rows(samples)
    micro_batch_size = (c.micro_batch_size or 0) // steps or rows_at_once(N // c.num_minibatches, steps)
    left = remaining(c, num_updates)
    clip_eps = linear(c.clip_eps, c.clip_final, left)
    ent_coef = linear(c.ent_coef, c.ent_final, left)

    def loss(params: Params, rows: tuple[Samples, Memory], key: Key) -> tuple[m.Mean, Metrics]:
        batch, memory = rows
        batch = sequences(batch) if by_env else batch
        distribution, value, _ = network.apply(params, batch.obs, batch.first, memory)
        log_prob = distribution.log_prob(batch.action)
        policy_loss = clipped_surrogate_loss(log_prob, batch.log_prob, batch.advantage, clip_eps)
        value_loss = clipped_value_loss(value, batch.value, batch.target, c.value_clip)
        entropy = distribution.entropy(key)
        metrics = {
            "policy_loss": m.mean(policy_loss),
            "value_loss": m.mean(value_loss),
            "entropy": m.mean(entropy),
            "approx_kl": m.mean(approx_kl(log_prob, batch.log_prob)),
            "clip_fraction": m.mean(clipped(log_prob, batch.log_prob, clip_eps)),
        }
        return m.mean(policy_loss + c.vf_coef * value_loss - ent_coef * entropy), metrics

    def gradient_step(now: Now, step: tuple[Array, Key]) -> tuple[Now, tuple[m.Packed, Array]]:
        rows, key = step
        batch, remembered = take((samples, memory), rows)
        if c.normalize_advantage:
            # Not in the paper. Per minibatch, as everybody's PPO: the scale of rewards then leaves the step alone.
            batch = batch._replace(advantage=standardized(batch.advantage))
        grads, metrics = accumulate(loss, now.params, (batch, remembered), micro_batch_size, key)
        norm, kl = m.grad_norm(grads), metrics["approx_kl"].value
        bad = ~jnp.isfinite(norm.total)
        rate = adapted(now.learning_rate, kl, c.kl_goal) if c.lr_schedule == "adaptive" else now.learning_rate
        metrics |= {"grad_norm": norm, "learning_rate": m.mean(rate), "skipped_updates": m.mean(bad)}
        # The minibatch that trips target_kl is not learned from, but measured: it is what a person wants to see.
        trips = now.stopped | (kl > c.target_kl)
        updates, opt_state = optimizer.update(grads, now.opt_state)
        # The learning rate is applied here, not by optax, so that it may be traced and swept.
        params = optax.apply_updates(now.params, optax.tree.scale(-rate, updates))
        after = unless(trips | bad, now, Now(params, opt_state, rate, now.stopped))
        metrics = jax.tree.map(lambda x: jnp.where(now.stopped, 0.0, x), m.pack(metrics))
        return after._replace(stopped=trips), (metrics, ~trips)

    # All epochs are shuffled at once: one batched sort instead of num_epochs small ones between gradient steps.
    keys = jax.random.split(key, num_epochs * (1 + c.num_minibatches))
    k_shuffle, k_entropy = keys[:num_epochs], keys[num_epochs:]
    rows = jax.vmap(lambda key: minibatch_rows(key, N, c.num_minibatches))(k_shuffle)
    end, (metrics, taken) = jax.lax.scan(gradient_step, start, (rows.reshape(len(k_entropy), -1), k_entropy))
    return end, {**m.unpack(m.total(metrics)), "gradient_steps": m.mean(jnp.sum(taken))}


def adapted(rate: Float[Array, ""], kl: Float[Array, ""], goal: Scalar) -> Float[Array, ""]:
    """The learning rate after a minibatch with this KL, as in Rudin et al. 2021 (arXiv 2109.11978). One of about 0, as
    the first of every rollout has it, says nothing."""
    factor = jnp.where(kl > 2 * goal, 1 / 1.5, jnp.where((kl < goal / 2) & (kl > 1e-6), 1.5, 1.0))
    return jnp.clip(rate * factor, 1e-5, 1e-2)
