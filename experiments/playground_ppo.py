# needs: playground
"""PPO with the settings that MuJoCo Playground was tuned with, on any of its environments.

    scripts/run experiments/playground_ppo.py CartpoleBalance        # sized for one GPU
    scripts/run experiments/playground_ppo.py PendulumSwingup --total-steps 983040
    scripts/run experiments/playground_ppo.py Go1JoystickFlatTerrain --randomize --options impl warp

The settings are read from the package, and told in jaxrl's names; any of them may be changed after the name. What
Playground means for PendulumSwingup, and never applies, for it asks for "PendulumSwingUp", is applied. Critics see
"privileged_state" where an environment has it. --randomize trains each environment with a body of its own, as
Playground draws them; evaluations then play the first of these. configs/ppo/cartpole_balance.yaml and
pendulum_swingup.yaml are for CPU. Not measured: no accelerator has run these sizes yet.
"""

import math
import sys
from typing import Any

import jax

from jaxrl import PPO, EnvConfig, cli, make, replace, run
from jaxrl.types import InputError


def tuned(name: str) -> PPO:
    """Playground's settings for one of its environments, as ours. One update of Brax's is `batch_size` sequences of
    `unroll_length` steps in each of `num_minibatches`; here it is as many steps, in rollouts that are longer.
    """
    own = playground_settings(name)
    networks, steps = own.get("network_factory", {}), own.batch_size * own.num_minibatches * own.unroll_length
    # Brax fills up each of the stretches between evaluations and resets.
    stretches = max(own.num_evals - 1, 1) * max(own.get("num_resets_per_eval", 0), 1)
    updates = stretches * math.ceil(own.num_timesteps / (own.action_repeat * steps * stretches))
    return PPO(
        env=EnvConfig(f"playground/{name}", own.num_envs, action_repeat=own.action_repeat, resets="pool"),
        total_steps=updates * steps,
        num_steps=steps // own.num_envs,
        num_epochs=own.num_updates_per_batch,
        num_minibatches=own.num_minibatches,
        learning_rate=own.learning_rate,
        lr_final=1.0,
        clip_eps=own.get("clipping_epsilon", 0.3),
        ent_coef=own.entropy_cost,
        gamma=own.discounting,
        max_grad_norm=own.get("max_grad_norm") or float("inf"),
        adam_eps=1e-8,
        reward_scale=own.reward_scaling,
        normalize_obs=own.normalize_observations,
        hidden=tuple(networks.get("policy_hidden_layer_sizes", (32,) * 4)),
        critic_hidden=tuple(networks.get("value_hidden_layer_sizes", (256,) * 5)),
        activation="swish",
        head="tanh_normal",
        init_std=0.694,  # Brax's head begins with softplus(0) + 0.001
    )


def playground_settings(name: str) -> Any:
    """What the package has for Brax's PPO. Raises InputError for a name it does not have, or an absent package."""
    make(f"playground/{name}")
    from mujoco_playground.config import dm_control_suite_params, locomotion_params, manipulation_params

    from jaxrl.envs.suites import playground

    for known, params in (
        (playground.dm_control_suite.ALL_ENVS, dm_control_suite_params),
        (playground.locomotion.ALL_ENVS, locomotion_params),
        (playground.manipulation.ALL_ENVS, manipulation_params),
    ):
        if name in known:
            own = params.brax_ppo_config(name)
            if name == "PendulumSwingup":
                own.action_repeat, own.num_updates_per_batch = 4, 4
            return own
    raise InputError(f"Playground has no settings of PPO for {name}")


def main() -> None:
    name, *words = [word for word in sys.argv[1:] if word != "--randomize"] or ["CartpoleBalance"]
    with cli.sentences():
        if name.startswith("-"):
            raise InputError(f"give the name of an environment first, as CartpoleBalance, and not {name!r}")
        config, options = cli.parse(tuned(name), __doc__, words)
        given = {}
        if "--randomize" in sys.argv:
            from jaxrl.envs.suites.playground import randomized

            config = replace(config, env=replace(config.env, env_axis=0))
            bodies = jax.random.key(options["seed"])
            given["env"] = randomized(make(config.env.name, **config.env.options), bodies, config.env.num_envs)
        result = run(config, **options, **given)
    cli.report(result)


if __name__ == "__main__":
    main()
