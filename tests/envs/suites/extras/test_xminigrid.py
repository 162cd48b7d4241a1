"""XLand-MiniGrid's environments, where the extra is installed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, make, train
from jaxrl.envs.registry import from_config, name_of
from jaxrl.types import InputError
from tests.helpers.suites import assert_steady, played

pytestmark = pytest.mark.extra("xminigrid")


def test_the_smallest_of_each_kind_is_traced_with_strong_and_steady_types(key):
    from xminigrid import registration

    from jaxrl.envs.suites.extras import xminigrid as adapter

    assert adapter.names() == list(registration.registered_environments())
    for name in {registration._REGISTRY[name].entry_point: name for name in reversed(adapter.names())}.values():
        env = make(f"xminigrid/{name}")
        assert_steady(env, key)
        assert name_of(env) == f"xminigrid/{name}" and env.time_limit == env.params.max_steps


@pytest.mark.parametrize("name", ["MiniGrid-EmptyRandom-5x5", "MiniGrid-MemoryS8", "MiniGrid-DoorKey-5x5"])
def test_steps_are_its_own_and_end_with_the_true_successor(name, key):
    import xminigrid

    env, (raw, params) = make(f"xminigrid/{name}"), xminigrid.make(name)
    theirs, ends = jax.jit(lambda state, action: raw.step(params, state, action)), 0
    for _, state, action, _, said in played(env, key, 100):
        own = theirs(jax.tree.map(lambda x: x[0], state), action[0])
        tile, color = np.split(np.asarray(said.next_obs[0]), [13], axis=-1)
        assert (tile.sum(-1) == 1).all() and (color.sum(-1) == 1).all()
        np.testing.assert_array_equal(np.stack([tile.argmax(-1), color.argmax(-1)], -1), own.observation)
        assert float(said.reward[0]) == pytest.approx(float(own.reward))
        assert bool(said.terminated[0]) == bool(own.last() & (own.discount == 0)) and not said.truncated[0]
        ends += int(said.terminated[0])
    assert ends > 0 or "DoorKey" in name


def test_the_clock_truncates_and_is_no_termination(key):
    env = from_config(EnvConfig("xminigrid/MiniGrid-Empty-8x8", num_envs=2, options={"max_steps": 3}))
    state, obs = env.reset(key)
    step = jax.jit(env.step)
    for t in range(3):
        state, shown, said = step(key, state, jnp.ones(2, jnp.int32))
        assert said.truncated.tolist() == [t == 2] * 2 and not said.terminated.any()
    assert (shown == obs).all() and not (said.next_obs == obs).all()


def test_rulesets_are_data(key):
    from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
    from xminigrid.core.goals import AgentHoldGoal
    from xminigrid.types import RuleSet

    env = make("xminigrid/XLand-MiniGrid-R1-9x9")
    ball = TILES_REGISTRY[Tiles.BALL, Colors.RED]
    rules = env.params.ruleset.rules
    ruleset = RuleSet(goal=AgentHoldGoal(tile=ball).encode(), rules=rules, init_tiles=ball[None])
    given = dataclasses.replace(env, params=env.params.replace(ruleset=ruleset))
    ends = sum(int(said.terminated.sum()) for *_, said in played(given, key, 200, num_envs=8))
    assert ends > 0
    assert not any(said.terminated.any() for *_, said in played(env, key, 50)), "without a ruleset there is no goal"


def test_it_is_learned(key):
    config = PPO(
        env=EnvConfig("xminigrid/MiniGrid-Empty-5x5", num_envs=16),
        num_steps=64,
        total_steps=51_200,
        learning_rate=1e-3,
        ent_coef=0.01,
        torso="flat",
    )
    _, metrics = jax.jit(lambda key: train(config, key))(key)
    assert metrics["episode_return"].value[-1] > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"view_sise": 5}, "has no option 'view_sise'; did you mean 'view_size'"),
        ({"view_size": 4}, "view_size = 4 must be odd and 3 or more"),
        ({"max_steps": 0}, "max_steps = 0 must be a whole number from 1 on"),
    ],
)
def test_what_cannot_be_is_said(options, words):
    with pytest.raises(InputError, match=words):
        make("xminigrid/MiniGrid-Empty-5x5", **options)
