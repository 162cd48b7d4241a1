"""Advantage Actor-Critic: the synchronous form of A3C (Mnih et al. 2016, arXiv 1602.01783, algorithm S3).

One gradient step per rollout on -log π·A + vf_coef·½(V - G)² - ent_coef·H. With gae_lambda = 1 the targets are the
paper's n-step returns. Departs from the paper in using Adam, which needs no shared statistics to be stable.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from jaxrl.algorithms.programs import control_program
from jaxrl.networks import check_outputs, network_of, successor_values, with_memory
from jaxrl.networks.heads import HEADS
from jaxrl.networks.recurrent import CORES
from jaxrl.networks.torsos import TORSOS
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import policy_gradient_loss, value_loss
from jaxrl.ops.minibatch import accumulate
from jaxrl.ops.normalization import RunningStats, init_obs_stats, normalize, update_stats
from jaxrl.ops.optimizers import unless
from jaxrl.ops.returns import gae
from jaxrl.ops.schedules import linear, remaining
from jaxrl.ops.shards import standardized
from jaxrl.settings import EnvConfig, Parallel, check_unread, config, leaf, static
from jaxrl.sources import rollouts
from jaxrl.spaces import Spaces
from jaxrl.types import Algorithm, Key, Memory, Metrics, Network, Params, Program, PyTree, Source, Transition


@config
class A2C:
    """Settings of A2C. Floats can be traced and swept; the other fields fix the program."""

    env: EnvConfig = EnvConfig(num_envs=16)
    """Which environment, and how many copies."""
    total_steps: int = static(499_968, at_least=1)
    """Environment steps of the whole run, over all copies; with action_repeat, the agent's."""
    num_steps: int = static(8, at_least=1)
    """Steps per environment per update (the n of n-step returns)."""

    learning_rate: float = leaf(7e-4, 0.0)
    """Adam's step size at the start."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached linearly."""
    ent_coef: float = leaf(0.01, 0.0)
    """Weight of the entropy bonus."""
    vf_coef: float = leaf(0.5, 0.0)
    """Weight of the value loss ½(V - G)²."""
    gamma: float = leaf(0.99, 0.0, 1.0)
    """Discount per step."""
    gae_lambda: float = leaf(1.0, 0.0, 1.0)
    """λ of the advantage estimates; 1 gives n-step returns."""
    max_grad_norm: float = leaf(0.5, 0.0, infinite=True)
    """Global norm that gradients are clipped to; inf is off."""
    adam_eps: float = leaf(1e-5, 0.0)
    """Adam's ε."""

    normalize_obs: bool = static(False)
    """Standardise observations by running statistics, clipped to ±10."""
    normalize_advantage: bool = static(False)
    """Standardise advantages within each batch."""
    reward_scale: float = leaf(1.0)
    """Constant that rewards are multiplied by; reported returns are not scaled."""

    hidden: tuple[int, ...] = static((64, 64), at_least=1)
    """Widths of the hidden layers of actor and critic."""
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
        """Raises InputError for a setting that is not read."""
        if self.core == "none":
            check_unread(self, ("core_size",), "without a core", "set core = 'gru'")

    def program(self, env: Any = None, network: Network | None = None) -> Program:
        """What the drivers run. env, network: to use instead of the config's own."""
        return control_program(self, env, network)

    def source(self, env: Any, algorithm: Algorithm) -> Source:
        """Rollouts that carry on where the last one stopped."""
        return rollouts(env, algorithm, self.num_steps)

    def make(self, spaces: Spaces, network: Network | None = None) -> Algorithm:
        """A2C for these spaces. network: as `Network` says, with or without a memory. May run inside a trace."""
        return make(self, spaces, network)


class A2CLearner(NamedTuple):
    """All that A2C carries from update to update."""

    params: Params
    opt_state: PyTree
    obs_stats: RunningStats | None
    num_updates: Int[Array, ""]


def make(c: A2C, spaces: Spaces, network: Network | None) -> Algorithm:
    """The three functions of A2C."""
    if network is None:
        network = network_of(c, spaces)
    else:
        check_outputs(network, spaces)
    network = with_memory(network)
    optimizer = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), optax.scale_by_adam(eps=c.adam_eps))

    def init(key: Key) -> A2CLearner:
        params = network.init(key)
        obs_stats = init_obs_stats(spaces.observation, c.normalize_obs)
        return A2CLearner(params, optimizer.init(params), obs_stats, jnp.zeros((), jnp.int32))

    def policy(learner: A2CLearner, memory: Memory, obs: PyTree, first: Bool[Array, " N"]):
        distribution, _, memory = network.apply(learner.params, normalize(learner.obs_stats, obs), first, memory)
        return memory, distribution

    def update(key: Key, learner: A2CLearner, batch: Transition) -> tuple[A2CLearner, Metrics]:
        # One gradient step per rollout: the policy that acted is the one that is improved, so no ratio is needed.
        obs = normalize(learner.obs_stats, batch.obs)
        # Outside the loss: targets are held constant, and no gradient flows into V(next_obs).
        memories = network.apply(learner.params, obs, batch.first, batch.memory)[2]
        next_obs = normalize(learner.obs_stats, batch.next_obs)
        next_value = successor_values(network, learner.params, next_obs, memories)

        def loss(params: Params, batch: Transition) -> tuple[m.Mean, Metrics]:
            distribution, value, _ = network.apply(params, obs, batch.first, batch.memory)
            advantage = gae(
                c.reward_scale * batch.reward,
                jax.lax.stop_gradient(value),
                next_value,
                batch.terminated,
                batch.truncated,
                c.gamma,
                c.gae_lambda,
            )
            target = advantage + jax.lax.stop_gradient(value)
            if c.normalize_advantage:  # not in the paper
                advantage = standardized(advantage)
            policy_losses = policy_gradient_loss(distribution.log_prob(batch.action), advantage)
            value_losses = value_loss(value, target)
            entropy = distribution.entropy(key)
            metrics = {
                "policy_loss": m.mean(policy_losses),
                "value_loss": m.mean(value_losses),
                "entropy": m.mean(entropy),
                "explained_variance": m.explained_variance(value, target),
            }
            return m.mean(policy_losses + c.vf_coef * value_losses - c.ent_coef * entropy), metrics

        grads, metrics = accumulate(loss, learner.params, batch, micro_batch_size=None)
        left = remaining(c, learner.num_updates)
        learning_rate = linear(c.learning_rate, c.lr_final, left)
        updates, opt_state = optimizer.update(grads, learner.opt_state)
        params = optax.apply_updates(learner.params, optax.tree.scale(-learning_rate, updates))
        norm = m.grad_norm(grads)
        skipped = ~jnp.isfinite(norm.total)
        params, opt_state = unless(skipped, (learner.params, learner.opt_state), (params, opt_state))
        # Last, lest what acted and what is learned from be normalised by different numbers.
        obs_stats = learner.obs_stats
        if obs_stats is not None:
            obs_stats = update_stats(obs_stats, batch.obs)
        metrics |= {"grad_norm": norm, "learning_rate": m.mean(learning_rate), "skipped_updates": m.mean(skipped)}
        metrics |= m.episode_metrics(batch)
        return A2CLearner(params, opt_state, obs_stats, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy, network.memory)
