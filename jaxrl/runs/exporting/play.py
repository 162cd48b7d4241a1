"""Plays a policy that `jaxrl export` wrote, with NumPy alone. In its folder:

    python play.py [ENVIRONMENT [EPISODES [SEED]]]

plays Gymnasium's environment, where gymnasium is installed. In Python:

    from play import Policy
    policy = Policy("folder")
    action = policy(obs)                             # the likeliest, of one observation or a batch
    action = policy(obs, np.random.default_rng(0))   # sampled, as in training

policy.json says what the arrays of policy.npz are for.
"""

import argparse
import functools
import json
import operator
from pathlib import Path

import numpy as np

ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "swish": lambda x: x * (1 + np.tanh(x / 2)) / 2,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}


class Policy:
    """(obs, rng=None) -> action. obs: as the environment gives it, or a batch with leading axes."""

    def __init__(self, folder=Path(__file__).parent):
        self.about = json.loads((Path(folder) / "policy.json").read_text())
        if self.about["format"] != 1:
            raise ValueError(f"{folder} has format {self.about['format']}, not 1; use the play.py that is in it")
        with np.load(Path(folder) / "policy.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)

    def features(self, i, part, obs):
        """Part i of an observation as floats in the last axis: one-hot, or normalised and flattened."""
        x, shape = np.asarray(functools.reduce(operator.getitem, part["path"], obs)), tuple(part["shape"])
        lead = x.shape[: x.ndim - len(shape)]
        if x.shape != lead + shape:
            raise ValueError(f"obs{part['path'] or ''} has shape {x.shape}; it must be {shape}, after any leading axes")
        if part["kind"] == "discrete":
            return (np.arange(part["n"]) == x[..., None] - part["start"]).astype(np.float32)
        x = x.astype(np.float32)
        if part["normalized"]:
            clip = self.about["normalizer"]["clip"]
            x = np.clip((x - self.arrays[f"obs_mean_{i}"]) / self.arrays[f"obs_std_{i}"], -clip, clip)
        return x.reshape((*lead, -1))

    def outputs(self, obs):
        """What the network's last layer says."""
        parts, layers = self.about["observation"], len(self.about["network"]["layers"]) - 1
        x = np.concatenate([self.features(i, part, obs) for i, part in enumerate(parts)], axis=-1)
        for i in range(layers):
            x = ACTIVATIONS[self.about["network"]["activation"]](x) if i else x
            x = x @ self.arrays[f"kernel_{i}"] + self.arrays[f"bias_{i}"]
        return x

    def __call__(self, obs, rng=None):
        """The likeliest action; with a NumPy Generator a sampled one."""
        out, head, space, a = self.outputs(obs), self.about["network"]["head"], self.about["action"], self.arrays
        if head == "categorical":  # the largest after Gumbel noise is a sample
            logits = out if rng is None else out + rng.gumbel(size=out.shape)
            each = np.split(logits, np.cumsum(space["sizes"])[:-1], axis=-1)
            action = np.asarray(space["start"]) + np.stack([part.argmax(axis=-1) for part in each], axis=-1)
        elif head == "normal":
            u = noisy(a["middle"] + a["half"] * out, a["std"], rng)
            action = np.clip(u, a["low"], a["high"])
        else:
            mean, raw = np.split(out, 2, axis=-1)
            u = noisy(mean, np.logaddexp(0, raw) + self.about["network"]["min_std"], rng)
            action = a["low"] + (a["high"] - a["low"]) * (np.tanh(u) + 1) / 2
        return action.astype(space["dtype"]).reshape((*out.shape[:-1], *space["shape"]))


def noisy(mean, std, rng):
    """The mean itself, or a sample around it."""
    return mean if rng is None else mean + std * rng.standard_normal(mean.shape)


def environment(policy, name):
    """Gymnasium's environment of that name. Raises ValueError, with a sentence, where the policy cannot play it."""
    if name is None:
        raise ValueError(
            f"{policy.about['env']['name']} is not in Gymnasium; name one of Gymnasium's that is like it, or play it "
            "in Python with Policy"
        )
    try:
        import gymnasium
    except ImportError:
        raise ValueError("playing needs Gymnasium: python -m pip install gymnasium") from None
    try:
        env = gymnasium.make(name)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(f"Gymnasium cannot make {name}: {error}") from error
    try:
        policy(env.observation_space.sample())
        own, theirs = policy.about["action"].get("n"), getattr(env.action_space, "n", None)
        if own != theirs:
            raise ValueError(f"it has {theirs or 'no'} discrete actions, and must have {own or 'none'}")
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"the policy learned {policy.about['env']['name']}, which {name} is not: {error}") from error
    return env


def main(argv=None):
    """Play whole episodes and print their mean return."""
    policy = Policy()
    parser = argparse.ArgumentParser(description="Plays the policy of this folder in Gymnasium.")
    parser.add_argument(
        "environment", nargs="?", default=policy.about["env"]["gymnasium"], help="Gymnasium's name: %(default)s"
    )
    parser.add_argument("episodes", nargs="?", type=int, default=10, help="how many: %(default)s")
    parser.add_argument("seed", nargs="?", type=int, default=0, help="of the first episode: %(default)s")
    asked = parser.parse_args(argv)
    if asked.episodes < 1:
        parser.error(f"episodes = {asked.episodes}; play at least 1")
    try:
        env, returns = environment(policy, asked.environment), []
    except ValueError as error:
        parser.error(str(error))
    for episode in range(asked.episodes):
        (obs, _), total, done = env.reset(seed=asked.seed + episode), 0.0, False
        while not done:
            action = policy(obs)
            for _ in range(policy.about["env"]["action_repeat"]):
                obs, reward, terminated, truncated, _ = env.step(action)
                total, done = total + float(reward), terminated or truncated
                if done:
                    break
        returns.append(total)
    told = {"return": np.mean(returns), "return_std": np.std(returns)}
    print(json.dumps({"env": asked.environment, "episodes": len(returns), **told}))


if __name__ == "__main__":
    main()
