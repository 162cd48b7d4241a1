"""The environment of one's own that the documentation shows."""

import re
from pathlib import Path

import jax

from jaxrl import PPO, EnvConfig, train
from jaxrl.envs import check_environment

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "own_environment.md"
(CODE,) = re.findall(r"```python\n# line\.py\n(.*?)```", GUIDE.read_text(), re.S)


def test_it_keeps_the_contract_and_is_learned():
    made = {"__name__": "line"}
    exec(CODE, made)
    check_environment(made["Line"]())
    config = PPO(env=EnvConfig("line:Line", num_envs=16), num_steps=32, total_steps=16_384, learning_rate=3e-3)
    _, metrics = jax.jit(lambda key: train(config, key, env=made["Line"]()))(jax.random.key(0))
    assert metrics["episode_return"].value[-1] > 0.99
