"""Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347), with the details that matter in practice
(Engstrom et al. 2020, arXiv 2005.12729; Andrychowicz et al. 2021, arXiv 2006.05990; Huang et al. 2022, "The 37
implementation details").

Read `make` top to bottom: it is the whole update in order. Left out: recurrence, KL penalties, reward centring.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from jaxrl.networks import actor_critic
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import approx_kl, clipped, clipped_surrogate_loss, clipped_value_loss
from jaxrl.ops.minibatch import flatten, minibatch_rows, take
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
from jaxrl.ops.returns import gae
from jaxrl.ops.schedules import check_steps, linear, remaining
from jaxrl.settings import EnvConfig, config, leaf, static
from jaxrl.sources.rollout import rollouts
from jaxrl.spaces import Spaces
from jaxrl.types import Algorithm, Key, Memory, Metrics, Network, Params, PyTree, Source, Transition


@config
class PPO:
    """Settings of PPO. Floats can be traced and swept; the other fields fix the program."""

    env: EnvConfig = EnvConfig()
    """Which environment, and how many copies."""
    total_steps: int = static(524_288, at_least=1)
    """Environment steps of the whole run, over all copies."""
    num_steps: int = static(128, at_least=1)
    """Steps per environment per update (the rollout's length T)."""
    num_epochs: int = static(4, at_least=1)
    """Passes over each rollout."""
    num_minibatches: int = static(4, at_least=1)
    """Gradient steps per pass."""
    minibatches_by: str = static("step", choices=("step", "env"))
    """Shuffle single steps, or keep each environment's steps together."""
    micro_batch: int = static(0, at_least=0)
    """Rows per gradient piece, accumulated over the minibatch: cache-sized pieces are faster on CPU. 0: all at once."""

    learning_rate: float = leaf(3e-4, 0.0)
    """Adam's step size at the start."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached linearly: 0 anneals to zero, 1 is constant."""
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
    max_grad_norm: float = leaf(0.5, 0.0)
    """Global norm that gradients are clipped to; inf is off."""
    adam_eps: float = leaf(1e-5, 0.0)
    """Adam's ε."""
    target_kl: float = leaf(float("inf"), 0.0)
    """Skip an update's remaining gradient steps once approx_kl exceeds this; inf is off."""

    normalize_obs: bool = static(False)
    """Standardise observations by running statistics, clipped to ±10."""
    normalize_return: bool = static(False)
    """Divide rewards by the running standard deviation of the discounted return."""
    normalize_advantage: bool = static(True)
    """Standardise advantages within each minibatch."""
    reward_scale: float = leaf(1.0)
    """Constant that rewards are multiplied by; reported returns are not scaled."""

    hidden: tuple[int, ...] = static((64, 64))
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] | None = static(None)
    """Widths of the critic's hidden layers; None takes the actor's."""
    activation: str = static("tanh")
    """tanh, relu, swish, elu or gelu."""
    head: str = static("auto")
    """Continuous policies: "normal" (clipped, state-independent std) or "tanh_normal" (squashed); auto is normal."""
    init_std: float = leaf(1.0, 1e-6)
    """Standard deviation of the first policy."""

    def validate(self) -> None:
        """Raises ValueError, naming the nearest valid numbers, where the sizes do not divide."""
        check_steps(self)
        size, what = self.env.num_envs * self.num_steps, "num_envs * num_steps"
        if self.minibatches_by == "env":
            size, what = self.env.num_envs, "num_envs"
        if size % self.num_minibatches:
            near = max(d for d in range(1, self.num_minibatches) if size % d == 0)
            raise ValueError(
                f"{what} = {size} is not divisible by num_minibatches = {self.num_minibatches}; try {near}"
            )
        rows = self.env.num_envs * self.num_steps // self.num_minibatches
        if self.micro_batch and rows % self.micro_batch:
            raise ValueError(f"a minibatch of {rows} rows is not divisible by micro_batch = {self.micro_batch}; try 0")

    def source(self, env: Any, algorithm: Algorithm) -> Source:
        """Rollouts that carry on where the last one stopped."""
        return rollouts(env, algorithm.policy, self.num_steps)

    def make(self, spaces: Spaces, network: Network | None = None) -> Algorithm:
        """PPO for these spaces. `network.apply(params, obs)` gives (distribution, value). May run inside a trace."""
        return make(self, spaces, network)


class PPOLearner(NamedTuple):
    """All that PPO carries from update to update. Statistics that are switched off are None."""

    params: Params
    opt_state: PyTree
    obs_stats: RunningStats | None
    return_scale: ReturnScale | None
    num_updates: Int[Array, ""]


class Samples(NamedTuple):
    """What the loss needs of each sample."""

    obs: PyTree
    action: PyTree
    log_prob: Array
    value: Array
    advantage: Array
    target: Array


def make(c: PPO, spaces: Spaces, network: Network | None) -> Algorithm:
    """The three functions of PPO."""
    if network is None:
        network = actor_critic(
            spaces,
            hidden=c.hidden,
            critic_hidden=c.critic_hidden,
            activation=c.activation,
            head=c.head,
            init_std=c.init_std,
        )
    optimizer = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), optax.scale_by_adam(eps=c.adam_eps))

    def init(key: Key) -> PPOLearner:
        params = network.init(key)
        obs_stats = init_obs_stats(spaces.observation, c.normalize_obs)
        return_scale = init_return_scale(c.env.num_envs) if c.normalize_return else None
        return PPOLearner(params, optimizer.init(params), obs_stats, return_scale, jnp.zeros((), jnp.int32))

    def policy(learner: PPOLearner, memory: Memory, obs: PyTree):
        return memory, network.apply(learner.params, normalize(learner.obs_stats, obs))[0]

    def update(key: Key, learner: PPOLearner, batch: Transition) -> tuple[PPOLearner, Metrics]:
        done = batch.terminated | batch.truncated
        return_scale, reward = learner.return_scale, c.reward_scale * batch.reward
        if return_scale is not None:
            return_scale = update_return_scale(return_scale, reward, done, c.gamma)
            reward = scale_reward(return_scale, reward)

        rows = prepare(c, spaces, network, learner, batch, reward)
        params, opt_state, metrics = fit(c, network, optimizer, key, learner, flatten(rows))

        # Statistics move only now: the ratios above were taken with those that the rollout was acted with.
        obs_stats = learner.obs_stats
        if obs_stats is not None:
            obs_stats = update_stats(obs_stats, batch.obs)
        metrics |= m.episode_metrics(batch)
        metrics["explained_variance"] = m.explained_variance(rows.value, rows.target)
        return PPOLearner(params, opt_state, obs_stats, return_scale, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy)


def prepare(c: PPO, spaces: Spaces, network: Network, learner: PPOLearner, batch: Transition, reward: Array) -> Samples:
    """Values, advantages and targets of a rollout [T, N]."""
    obs = normalize(learner.obs_stats, batch.obs)
    value = network.apply(learner.params, obs)[1]
    if spaces.truncates:
        next_value = network.apply(learner.params, normalize(learner.obs_stats, batch.next_obs))[1]
    else:
        last_obs = jax.tree.map(lambda x: x[-1], batch.next_obs)
        last_value = network.apply(learner.params, normalize(learner.obs_stats, last_obs))[1]
        next_value = jnp.concatenate([value[1:], last_value[None]])
    advantage = gae(reward, value, next_value, batch.terminated, batch.truncated, c.gamma, c.gae_lambda)
    return Samples(obs, batch.action, batch.log_prob, value, advantage, advantage + value)


def fit(c: PPO, network: Network, optimizer: Any, key: Key, learner: PPOLearner, rows: Samples):
    """The epochs of gradient steps on one rollout. Returns (params, optimiser state, metrics)."""
    left = remaining(c, learner.num_updates)
    learning_rate = linear(c.learning_rate, c.lr_final, left)
    clip_eps = linear(c.clip_eps, c.clip_final, left)
    ent_coef = linear(c.ent_coef, c.ent_final, left)

    def loss(params: Params, batch: Samples, key: Key):
        distribution, value = network.apply(params, batch.obs)
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
        return jnp.mean(policy_loss + c.vf_coef * value_loss - ent_coef * entropy), metrics

    def gradient_step(carry, step):
        (params, opt_state, stopped), (indices, key) = carry, step
        batch = take(rows, indices)
        if c.normalize_advantage:
            advantage = batch.advantage
            batch = batch._replace(advantage=(advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8))
        grads, metrics = accumulate(jax.grad(loss, has_aux=True), params, batch, key, c.micro_batch)
        stopped = stopped | (metrics["approx_kl"].value > c.target_kl)
        updates, next_opt_state = optimizer.update(grads, opt_state)
        next_params = optax.apply_updates(params, optax.tree.scale(-learning_rate, updates))
        after = jax.tree.map(
            lambda old, new: jnp.where(stopped, old, new), (params, opt_state), (next_params, next_opt_state)
        )
        metrics |= {"grad_norm": m.mean(optax.tree.norm(grads)), "learning_rate": m.mean(learning_rate)}
        return (*after, stopped), jax.tree.map(lambda x: jnp.where(stopped, 0.0, x), metrics)

    k_shuffle, k_entropy = jax.random.split(key)
    sizes = (c.num_steps, c.env.num_envs, c.num_minibatches, c.minibatches_by)
    indices = jax.vmap(lambda key: minibatch_rows(key, *sizes))(jax.random.split(k_shuffle, c.num_epochs))
    indices = indices.reshape(c.num_epochs * c.num_minibatches, -1)
    steps = (indices, jax.random.split(k_entropy, len(indices)))
    start = (learner.params, learner.opt_state, jnp.zeros((), bool))
    (params, opt_state, _), metrics = jax.lax.scan(gradient_step, start, steps)
    return params, opt_state, m.total(metrics)


def accumulate(grad: Any, params: Params, batch: Samples, key: Key, micro_batch: int) -> tuple[Params, Metrics]:
    """Mean gradient and summed metrics over pieces of `micro_batch` rows: the same numbers, smaller working set."""
    size = batch.advantage.shape[0]
    if micro_batch in (0, size):
        return grad(params, batch, key)
    pieces = jax.tree.map(lambda x: x.reshape(size // micro_batch, micro_batch, *x.shape[1:]), batch)
    keys = jax.random.split(key, size // micro_batch)

    def add(total, piece):
        return jax.tree.map(jnp.add, total, grad(params, *piece)), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(grad, params, batch, key))
    (grads, metrics), _ = jax.lax.scan(add, zeros, (pieces, keys))
    return optax.tree.scale(micro_batch / size, grads), metrics
