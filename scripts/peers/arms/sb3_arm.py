"""The arm of Stable-Baselines3, and of SBX, its twin in JAX: PPO on an environment of Gymnasium's, stepped from Python.

SBX does not clip the value loss.
"""

import time
from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, StopTrainingOnRewardThreshold
from stable_baselines3.common.env_util import make_vec_env
from worker import serve


def prepare(question: dict) -> Callable[[int], dict]:
    """See compare.py for what is asked."""
    return {"speed": speed, "on_host": speed, "return": final_return, "solve": solve}[question["measure"]](question)


def model_of(question: dict, seed: int):
    """PPO with the settings that are asked for, in this library's names."""
    settings, num_envs = question["settings"], question["num_envs"]
    rate, clip, clip_final = (settings[name] for name in ("learning_rate", "clip_eps", "clip_final"))
    named = {"gamma": "gamma", "gae_lambda": "gae_lambda", "ent_coef": "ent_coef", "vf_coef": "vf_coef"}
    named |= {"n_steps": "num_steps", "n_epochs": "num_epochs", "max_grad_norm": "max_grad_norm"}
    if question["library"] == "sbx":
        from sbx import PPO
    else:
        from stable_baselines3 import PPO

        if settings.get("value_clip"):
            named["clip_range_vf"] = "value_clip"
    return PPO(
        "MlpPolicy",
        make_vec_env(question.get("task", "CartPole-v1"), num_envs, seed=seed),
        learning_rate=lambda left: rate * left,
        clip_range=lambda left: clip * (clip_final + (1 - clip_final) * left),
        batch_size=num_envs * settings["num_steps"] // settings["num_minibatches"],
        policy_kwargs={"net_arch": settings["hidden"]},  # tanh by default
        seed=seed,
        device="cpu",
        **{theirs: settings[ours] for theirs, ours in named.items()},
    )


def steps_of(question: dict) -> int:
    """Environment steps of a whole run."""
    return question["updates"] * question["num_envs"] * question["settings"]["num_steps"]


def speed(question: dict) -> Callable[[int], dict]:
    """call(seed) trains from scratch; once beforehand, so that what is compiled is compiled."""

    def call(seed: int) -> dict:
        model_of(question, seed).learn(steps_of(question))
        return {"steps": steps_of(question)}

    model_of(question, 0).learn(question["num_envs"] * question["settings"]["num_steps"])
    return call


class Ended(BaseCallback):
    """Returns of the episodes that end after so many steps."""

    def __init__(self, after: int):
        super().__init__()
        self.after, self.returns = after, []

    def _on_step(self) -> bool:
        if self.num_timesteps > self.after:
            self.returns += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True


def final_return(question: dict) -> Callable[[int], dict]:
    """call(seed) trains; the mean return of the episodes that ended in the last tenth of the updates."""

    def call(seed: int) -> dict:
        updates, total = question["updates"], steps_of(question)
        ended = Ended(total // updates * (updates - updates // 10))
        model_of(question, seed).learn(total, callback=ended)
        return {"return": float(sum(ended.returns) / max(len(ended.returns), 1))}

    return call


class Timed(EvalCallback):
    """Evaluation that knows how long it took and what it last found."""

    seconds, last_mean_reward = 0.0, float("-inf")

    def _on_step(self) -> bool:
        began = time.perf_counter()
        going_on = super()._on_step()
        self.seconds += time.perf_counter() - began
        return going_on


def solve(question: dict) -> Callable[[int], dict]:
    """call(seed) trains until an evaluation reaches the threshold, or to the end."""

    def call(seed: int) -> dict:
        stop = StopTrainingOnRewardThreshold(question["threshold"], verbose=0)
        evaluation = Timed(
            make_vec_env("CartPole-v1", question["eval_episodes"], seed=seed + 1000),  # side by side: faster
            callback_on_new_best=stop,
            eval_freq=question["eval_every"] // question["num_envs"],
            n_eval_episodes=question["eval_episodes"],
            verbose=0,
        )
        model = model_of(question, seed)
        began = time.perf_counter()
        model.learn(steps_of(question), callback=evaluation)
        seconds = time.perf_counter() - began - evaluation.seconds
        solved = bool(evaluation.best_mean_reward >= question["threshold"])
        return {"solved": solved, "steps": int(model.num_timesteps), "train_seconds": seconds}

    return call


if __name__ == "__main__":
    serve(prepare)
