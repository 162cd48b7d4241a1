"""Write your own algorithm: RLOO for control, from scratch, on jaxrl's vocabulary.

    scripts/run experiments/new_algorithm.py
    scripts/run experiments/new_algorithm.py --seed 1 --learning-rate 3e-3

REINFORCE Leave-One-Out (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740) needs no critic: the baseline of an
episode is the mean return of the *other* episodes in the batch. So:

1. A `@config`: floats are leaves that can be swept, `static()` fields fix the program.
2. `program`: what the drivers ask for. `control_program` makes it for all that learn by acting, from three fields,
   `env`, `total_steps` and `num_steps`, and the two methods below.
3. `source`: where batches come from. Here one whole episode per environment.
4. `make`: an `Algorithm(init, update, policy)` of pure functions. That is all: `train` and `run` take it from there,
   with vmapped seeds and sweeps, checkpoints, exact resume, evaluation and the command line.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import Algorithm, EnvConfig, Program, Source, Transition, cli, config, control_program, episodes, static
from jaxrl.networks import actor_critic
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import policy_gradient_loss
from jaxrl.types import InputError


@config
class RLOO:
    """REINFORCE with a leave-one-out baseline."""

    env: EnvConfig = EnvConfig("gymnax/CartPole-v1", num_envs=32)
    """Which environment, and how many copies: the episodes that are each other's baseline."""
    total_steps: int = static(3_200_000)
    """Environment steps of the whole run, masked ones included."""
    num_steps: int = static(500)
    """Steps per environment per update: at least the time limit."""
    hidden: tuple[int, ...] = static((64, 64))
    """Widths of the hidden layers."""
    learning_rate: float = 5e-3
    """Adam's step size at the start; it falls linearly to zero."""

    def validate(self) -> None:
        """One episode has no others for its baseline."""
        if self.env.num_envs < 2:
            raise InputError(
                f"env.num_envs = {self.env.num_envs} leaves no other episode to compare with; use 2 or more"
            )

    def program(self, env=None, network=None) -> Program:
        """What every driver runs."""
        return control_program(self, env, network)

    def source(self, env: Any, algorithm: Algorithm) -> Source:
        return episodes(env, algorithm, self.num_steps)

    def make(self, spaces, network=None) -> Algorithm:
        network = network or actor_critic(spaces, hidden=self.hidden)
        optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.scale_by_adam())
        num_updates = self.total_steps // (self.env.num_envs * self.num_steps)

        def init(key) -> Learner:
            params = network.init(key)
            return Learner(params, optimizer.init(params), jnp.zeros((), jnp.int32))

        def policy(learner: Learner, memory, obs, first):
            return memory, network.apply(learner.params, obs)[0]

        def update(key, learner: Learner, batch: Transition):
            playing = batch.info["playing"]  # [T, N]: up to and including the first end
            returns = jnp.sum(jnp.where(playing, batch.reward, 0.0), axis=0)  # [N]
            advantage = jnp.broadcast_to(leave_one_out(returns), batch.reward.shape)  # of every step of its episode

            def loss(params):
                distribution, _ = network.apply(params, batch.obs)
                losses = policy_gradient_loss(distribution.log_prob(batch.action), advantage)
                return m.mean(losses, playing).value

            policy_loss, grads = jax.value_and_grad(loss)(learner.params)
            steps, opt_state = optimizer.update(grads, learner.opt_state)
            learning_rate = self.learning_rate * (num_updates - learner.updates) / num_updates
            params = optax.apply_updates(learner.params, optax.tree.scale(-learning_rate, steps))
            metrics = {"policy_loss": m.mean(policy_loss), **m.episode_metrics(batch, playing)}
            return Learner(params, opt_state, learner.updates + 1), metrics

        return Algorithm(init, update, policy)


class Learner(NamedTuple):
    """All that RLOO carries from update to update."""

    params: Any
    opt_state: Any
    updates: jax.Array


def leave_one_out(returns: jax.Array) -> jax.Array:
    """R_i - mean of R_j over j ≠ i, divided by the standard deviation of R."""
    baseline = (jnp.sum(returns) - returns) / (len(returns) - 1)
    return (returns - baseline) / (jnp.std(returns) + 1e-8)


def main() -> None:
    cli.launch(RLOO(), __doc__)


if __name__ == "__main__":
    main()
