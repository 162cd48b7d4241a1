"""Gymnasium environments of our own, at the top of a module so that another process finds them."""

import os

import gymnasium
import numpy as np
from gymnasium import spaces

from jaxrl.envs.suites.gymnasium.mask import ShowMask


class Script(gymnasium.Env):
    """Counts its steps from a seeded start; ends by terminated after `ends` steps, or truncated after `cut`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, ends=5, cut=None, fails=None, dies=None, nan=None, render_mode=None):
        self.render_mode = render_mode
        self.ends, self.cut, self.fails, self.dies, self.nan = ends, cut, fails, dies, nan
        self.observation_space, self.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float64), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.start = 0, self.np_random.uniform(100, 200)
        return self.obs(), {}

    def obs(self):
        return np.array([self.start, self.t])

    def render(self):
        return np.full((8, 12, 3), self.t, np.uint8)

    def step(self, action):
        self.t += 1
        if self.t == self.fails:
            raise KeyError("a wheel")
        if self.t == self.dies:
            os._exit(3)
        obs = np.full(2, np.nan) if self.t == self.nan else self.obs()
        return obs, float(self.t), self.t == self.ends, self.t == self.cut, {}


class Everything(gymnasium.Env):
    """An observation of every kind; pays for the action that its parts name."""

    observation_space = spaces.Dict(
        {
            "name": spaces.Discrete(3, start=2),
            "names": spaces.MultiDiscrete([2, 3]),
            "flags": spaces.MultiBinary(2),
            "pair": spaces.Tuple((spaces.Box(0, 1, (1,)), spaces.Discrete(2))),
        }
    )
    action_space = spaces.MultiDiscrete([2, 2], start=[5, 7])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.names = self.np_random.integers(0, 2, 2)
        return self.obs(), {}

    def obs(self):
        return {
            "name": np.int64(4),
            "names": self.names,
            "flags": np.array([0, 1], np.int8),
            "pair": (np.ones(1, np.float32), np.int64(1)),
        }

    def step(self, action):
        assert self.action_space.contains(action), action
        return self.obs(), float((action - [5, 7] == self.names).mean()), True, False, {}


class Old(Script):
    """Begins as environments of `gym` did."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class Unseeded(Script):
    """Begins as environments of an older `gym` did."""

    def reset(self):
        return super().reset()[0]


class OldStep(Script):
    """Steps as environments of `gym` did."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated or truncated, info


class Shapeless(Script):
    """Shows `first` numbers at first and `later` afterwards, of two that it promises."""

    def __init__(self, first=3, later=3, rewards=None, **options):
        super().__init__(**options)
        self.first, self.later, self.reward = first, later, 0.0 if rewards is None else np.zeros(rewards)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.first), {}

    def step(self, action):
        return np.zeros(self.later), self.reward, False, False, {}


class Constant(gymnasium.Env):
    """Pays 1 for ever, and shows always the same."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


class Told(Constant):
    """Keeps the last action that it was told."""

    def __init__(self, space):
        self.action_space = space

    def step(self, action):
        self.told = action
        return super().step(action)


def wide():
    return Told(spaces.Box(-1, 1, (2, 2)))


def whole():
    return Told(spaces.Box(-3, 4, (2, 2), np.int64))


def constant():
    return gymnasium.wrappers.TimeLimit(Constant(), 10)


def script(**options):
    return Script(**options)


def blank(render_mode=None):
    made = Script()
    made.render = lambda: None
    return made


def dark(render_mode=None):
    made = Script()
    made.render = lambda: 1 / 0
    return made


def many(num_envs=1, autoreset_mode="DISABLED", **options):
    mode = gymnasium.vector.AutoresetMode[autoreset_mode]
    return gymnasium.vector.SyncVectorEnv([lambda: Script(**options)] * num_envs, autoreset_mode=mode)


class Masked(gymnasium.Env):
    """Pays for the only action of three that info allows."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.allowed = int(self.np_random.integers(3))
        return np.zeros(1, np.float32), {"action_mask": np.eye(3, dtype=np.int8)[self.allowed]}

    def step(self, action):
        paid = float(action == self.allowed)
        return np.zeros(1, np.float32), paid, True, False, {"action_mask": np.ones(3, np.int8)}


def limited(**options):
    return gymnasium.wrappers.TimeLimit(Script(ends=10**9, **options), 3)


def masked():
    return ShowMask(Masked())


def everything():
    return Everything()


gymnasium.register("Told/Script-v0", entry_point="tests.helpers.hosted:Script", max_episode_steps=4)
