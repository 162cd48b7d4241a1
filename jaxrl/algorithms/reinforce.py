"""REINFORCE (Williams 1992), with an optional learned baseline: the whole of it on one page.

Every update plays one complete episode per environment from a fresh start and follows -log π(a_t|s_t)·(G_t - b(s_t)),
with G_t the discounted return to the episode's end. Steps after the end are masked.

Truncation: REINFORCE has no critic to say what would have come after the clock ran out, so a truncated episode counts
as complete: it maximises return within the time limit, which the policy cannot see. (A learned baseline only lowers
the variance; it never bootstraps.) Use A2C or PPO where the limit is an artefact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int

from jaxrl.algorithms.programs import control_program
from jaxrl.networks import check_outputs, network_of, with_memory
from jaxrl.networks.heads import HEADS
from jaxrl.networks.recurrent import CORES
from jaxrl.networks.torsos import TORSOS
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import policy_gradient_loss, value_loss
from jaxrl.ops.minibatch import accumulate
from jaxrl.ops.normalization import RunningStats, init_obs_stats, normalize, update_stats
from jaxrl.ops.optimizers import unless
from jaxrl.ops.returns import discounted_returns
from jaxrl.ops.schedules import linear, remaining
from jaxrl.ops.shards import standardized
from jaxrl.settings import EnvConfig, Parallel, check_unread, config, leaf, static
from jaxrl.sources import episodes
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
class Reinforce:
    """Settings of REINFORCE. Floats can be traced and swept; the other fields fix the program."""

    env: EnvConfig = EnvConfig(num_envs=16)
    """Which environment, and how many copies: the episodes per update."""
    total_steps: int = static(1_600_000, at_least=1)
    """Environment steps of the whole run, over all copies, masked ones included; with action_repeat, the agent's."""
    num_steps: int = static(500, at_least=1)
    """Steps per environment per update: at least the time limit, so that every episode is complete."""

    learning_rate: float = leaf(3e-3, 0.0)
    """Adam's step size at the start."""
    lr_final: float = leaf(0.0, 0.0, 1.0)
    """Share of the learning rate left after the last update, reached linearly."""
    gamma: float = leaf(0.99, 0.0, 1.0)
    """Discount per step."""
    ent_coef: float = leaf(0.0, 0.0)
    """Weight of the entropy bonus."""
    baseline_coef: float = leaf(0.5, 0.0)
    """Weight of the baseline's loss ½(b - G)²."""
    max_grad_norm: float = leaf(0.5, 0.0, infinite=True)
    """Global norm that gradients are clipped to; inf is off."""
    adam_eps: float = leaf(1e-5, 0.0)
    """Adam's ε."""

    baseline: bool = static(True)
    """Subtract a learned state value from the returns."""
    normalize_obs: bool = static(False)
    """Standardise observations by running statistics, clipped to ±10."""
    normalize_advantage: bool = static(True)
    """Standardise G - b over the batch."""
    reward_scale: float = leaf(1.0)
    """Constant that rewards are multiplied by; reported returns are not scaled."""

    hidden: tuple[int, ...] = static((64, 64), at_least=1)
    """Widths of the hidden layers of actor and baseline."""
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
        if not self.baseline:
            check_unread(self, ("baseline_coef",), "without a baseline", "set baseline = True")
        if self.core == "none":
            check_unread(self, ("core_size",), "without a core", "set core = 'gru'")

    def program(self, env: Any = None, network: Network | None = None) -> Program:
        """What the drivers run. env, network: to use instead of the config's own."""
        return control_program(self, env, network)

    def source(self, env: Any, algorithm: Algorithm) -> Source:
        """One whole episode per environment. Raises InputError where episodes might not end within num_steps."""
        if env.time_limit is None or self.num_steps < env.time_limit:
            need = (
                "a time limit (set env.time_limit: --time-limit)"
                if env.time_limit is None
                else f"at least {env.time_limit}"
            )
            raise InputError(f"num_steps = {self.num_steps}: REINFORCE needs complete episodes, hence {need}")
        return episodes(env, algorithm, self.num_steps)

    def make(self, spaces: Spaces, network: Network | None = None) -> Algorithm:
        """REINFORCE for these spaces. network: as `Network` says, with or without a memory. May run in a trace."""
        return make(self, spaces, network)


class ReinforceLearner(NamedTuple):
    """All that REINFORCE carries from update to update."""

    params: Params
    opt_state: PyTree
    obs_stats: RunningStats | None
    num_updates: Int[Array, ""]


def make(c: Reinforce, spaces: Spaces, network: Network | None) -> Algorithm:
    """The three functions of REINFORCE."""
    if network is None:
        network = network_of(c, spaces)
    else:
        check_outputs(network, spaces)
    network = with_memory(network)
    optimizer = optax.chain(optax.clip_by_global_norm(c.max_grad_norm), optax.scale_by_adam(eps=c.adam_eps))

    def init(key: Key) -> ReinforceLearner:
        params = network.init(key)
        obs_stats = init_obs_stats(spaces.observation, c.normalize_obs)
        return ReinforceLearner(params, optimizer.init(params), obs_stats, jnp.zeros((), jnp.int32))

    def policy(learner: ReinforceLearner, memory: Memory, obs: PyTree, first: Bool[Array, " N"]):
        distribution, _, memory = network.apply(learner.params, normalize(learner.obs_stats, obs), first, memory)
        return memory, distribution

    def update(key: Key, learner: ReinforceLearner, batch: Transition) -> tuple[ReinforceLearner, Metrics]:
        playing = batch.info["playing"]
        obs = normalize(learner.obs_stats, batch.obs)
        no_value = jnp.zeros_like(batch.reward)  # nothing is bootstrapped: see above on truncation
        reward = c.reward_scale * batch.reward
        returns = discounted_returns(reward, no_value, batch.terminated, batch.truncated, c.gamma)

        def loss(params: Params, batch: Transition) -> tuple[m.Mean, Metrics]:
            distribution, baseline, _ = network.apply(params, obs, batch.first, batch.memory)
            advantage = returns - jax.lax.stop_gradient(baseline) if c.baseline else returns
            # Not in the paper: the step's size then depends on neither the scale nor the sign of returns. Over the
            # steps that were played only: those after the end are padding.
            if c.normalize_advantage:
                advantage = standardized(advantage, playing)
            policy_losses = policy_gradient_loss(distribution.log_prob(batch.action), advantage)
            value_losses = value_loss(baseline, returns)
            entropy = distribution.entropy(key)
            total = policy_losses - c.ent_coef * entropy
            metrics = {"policy_loss": m.mean(policy_losses, playing), "entropy": m.mean(entropy, playing)}
            if c.baseline:
                total = total + c.baseline_coef * value_losses
                metrics["value_loss"] = m.mean(value_losses, playing)
            return m.mean(total, playing), metrics

        grads, metrics = accumulate(loss, learner.params, batch, micro_batch_size=None)
        learning_rate = linear(c.learning_rate, c.lr_final, remaining(c, learner.num_updates))
        updates, opt_state = optimizer.update(grads, learner.opt_state)
        params = optax.apply_updates(learner.params, optax.tree.scale(-learning_rate, updates))
        norm = m.grad_norm(grads)
        skipped = ~jnp.isfinite(norm.total)
        params, opt_state = unless(skipped, (learner.params, learner.opt_state), (params, opt_state))
        # Last, lest what acted and what is learned from be normalised by different numbers.
        obs_stats = learner.obs_stats
        if obs_stats is not None:
            obs_stats = update_stats(obs_stats, batch.obs, playing)
        metrics |= {"grad_norm": norm, "learning_rate": m.mean(learning_rate), "skipped_updates": m.mean(skipped)}
        metrics |= m.episode_metrics(batch, playing)
        return ReinforceLearner(params, opt_state, obs_stats, learner.num_updates + 1), metrics

    return Algorithm(init, update, policy, network.memory)
