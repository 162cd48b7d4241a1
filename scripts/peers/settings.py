"""What the arms are asked to train with, in jaxrl's names; each arm puts it into its own."""

# PureJaxRL's CartPole: the learning rate is annealed to 0, and the value loss is clipped.
CARTPOLE = {
    "num_steps": 128,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 2.5e-4,
    "lr_final": 0.0,
    "clip_eps": 0.2,
    "clip_final": 1.0,
    "value_clip": 0.2,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "max_grad_norm": 0.5,
    "hidden": [64, 64],
}
# rl-zoo's tuned CartPole, 8 environments: learning rate and clip range are annealed to 0.
ZOO = {
    **CARTPOLE,
    "num_steps": 32,
    "num_epochs": 20,
    "num_minibatches": 1,
    "learning_rate": 1e-3,
    "clip_final": 0.0,
    "value_clip": None,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "ent_coef": 0.0,
}
ZOO_STEPS = 100_096  # 391 whole updates of 256; rl-zoo asks for 100,000
# Stable-Baselines3's own defaults, but for a learning rate that is annealed, by 2048 steps an update in all.
SB3 = {name: value for name, value in CARTPOLE.items() if name != "value_clip"}
SB3 |= {"num_epochs": 10, "num_minibatches": 32, "learning_rate": 3e-4, "ent_coef": 0.0}
SB3_STEPS = 2048
# Brax's humanoid, as its training notebook has it.
BRAX_HUMANOID = {
    "num_envs": 2048,
    "batch_size": 1024,
    "num_minibatches": 32,
    "num_updates_per_batch": 8,
    "unroll_length": 10,
    "discounting": 0.97,
    "reward_scaling": 0.1,
    "learning_rate": 3e-4,
    "entropy_cost": 1e-3,
    "normalize_observations": True,
}


def options(settings: dict, total_steps: int) -> list[str]:
    """Command-line options of jaxrl's that set these."""
    asked = {name: value for name, value in settings.items() if value is not None and name != "hidden"}
    asked["total_steps"] = total_steps
    return [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", str(value))]
