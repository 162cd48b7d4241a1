"""`jaxrl check`: one line a check, status 1 where anything is wrong."""

import json

import pytest

from jaxrl.cli import command

MINE = """
import jax, jax.numpy as jnp
from dataclasses import dataclass, field
from jaxrl import PPO, EnvConfig, Step, config
from jaxrl.spaces import Box, Discrete


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Maze:
    size: jax.Array = 5.0
    time_limit: int = field(default=20, metadata={"static": True})
    observation_space = Box((1,), 0.0, 6.0)
    action_space = Discrete(2)

    def reset(self, key):
        x = jax.random.uniform(key, (1,))
        return x, x

    def step(self, key, x, action):
        x = x + action
        return x, Step(x, jnp.float32(1), x[0] > self.size, jnp.zeros((), bool), {})


@config
class Mine(PPO):
    env: EnvConfig = EnvConfig(num_envs=4, eval_episodes=4)
    total_steps: int = 640
    num_steps: int = 16
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a person with an environment and an algorithm of their own."""
    (tmp_path / "trials_mine.py").write_text(MINE.replace("    total_steps: int = 640\n    num_steps: int = 16\n", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        command.main(list(argv))
    *lines, last = capsys.readouterr().out.splitlines()
    return stopped.value.code, lines, json.loads(last)


def test_an_environment_of_ones_own(folder, capsys):
    status, lines, found = said(capsys, "check", "trials_mine:Maze", "--steps", "640")
    assert status == 0 and len(lines) == found["checks"] == 9 and found["wrong"] == []
    assert all(line.startswith("ok     ") for line in lines)
    status, lines, found = said(capsys, "check", "trials_mine:Maze", "--steps", "640", "--options", "size", "9.0")
    assert status == 1 and found["wrong"] == ["observations lie inside their space"]
    assert [
        line for line in lines if line.startswith("wrong  observations lie inside their space: an observation lies")
    ]


def test_an_algorithm_of_ones_own_and_its_fields(folder, capsys):
    small = ["--num-steps", "16", "--total-steps", "640"]
    status, lines, found = said(capsys, "check", "trials_mine:Mine", *small)
    assert (status, found["wrong"], found["checks"]) == (0, [], 8), lines
    assert "(10 updates of 64 environment steps)" in lines[0]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "name what to check first, as in jaxrl check my_mazes:Maze"),
        (["nowhere:Maze"], "cannot import 'nowhere'"),
        (["trials_mine:Mase"], "has no class 'Mase'; did you mean 'Maze'"),
        (["trials_mine:Maze", "--options", "sise", "5"], "has no option 'sise'; did you mean 'size'"),
        (["trials_mine:Mine", "--gamma", "2"], "gamma = 2 is out of range"),
        (["gymnax/CartPol"], "unknown environment"),
    ],
)
def test_what_cannot_be_checked_is_a_sentence(folder, capsys, argv, sentence):
    with pytest.raises(SystemExit) as stopped:
        command.main(["check", *argv])
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
