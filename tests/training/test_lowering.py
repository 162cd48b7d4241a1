"""The whole of training lowers for accelerators from a machine that has none. Lowers: nothing more is claimed."""

from unittest import mock

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from jaxrl import A2C, PPO, EnvConfig, Parallel, Reinforce, make, train
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.lm import layout
from tests.lm.test_layout import CONFIGS, MODEL, PARAMS, given

HUMANOID = PPO(
    env=EnvConfig("brax/humanoid", num_envs=8, backend="spring", resets="pool", time_limit=100),
    total_steps=8 * 4,
    num_steps=4,
    num_minibatches=2,
    num_epochs=1,
    normalize_obs=True,
    normalize_return=True,
    head="tanh_normal",
)


class Talkative(ActionRepeat):
    """Calls back to the host at every step."""

    def step(self, key, state, action):
        state, step = self.env.step(key, state, action)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        reward = jax.pure_callback(lambda reward: reward, shape, step.reward, vmap_method="expand_dims")
        return state, step._replace(reward=reward)


jax.tree_util.register_dataclass(Talkative, data_fields=["env"], meta_fields=["repeat"])


def lower(env):
    def returns(seed):
        return train(HUMANOID, jax.random.key(seed), env=env)[1]["value_loss"].value

    return jax.export.export(jax.jit(returns), platforms=["cuda", "tpu"])(jnp.int32(0))


def test_humanoid_ppo_lowers_for_cuda_and_tpu():
    assert set(lower(make("brax/humanoid", backend="spring")).platforms) == {"cuda", "tpu"}


def test_a_host_callback_is_caught():
    with pytest.raises(NotImplementedError, match="callback"):
        lower(Talkative(make("brax/inverted_pendulum", backend="spring"), 1))


SMALL = {"env": EnvConfig(num_envs=16, time_limit=10), "num_steps": 10, "total_steps": 16 * 10 * 2, "hidden": (8,)}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("learns", [PPO, A2C, Reinforce], ids=lambda cls: cls.__name__)
def test_eight_shards_lower_for_a_mesh_of_eight_devices(learns, platform, key):
    config = learns(**SMALL, parallel=Parallel(data=8))
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        text = jax.jit(train).trace(config, key).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.all_reduce") >= 2
    assert not any(other in text for other in ("all_gather", "all_to_all", "collective_permute"))


def test_shards_that_do_not_go_into_the_mesh_are_refused(key):
    mesh = AbstractMesh((3,), ("data",), axis_types=(AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(ValueError, match="to the 3 devices .*; try 3"):
        jax.eval_shape(train, PPO(**SMALL, parallel=Parallel(data=8)), key)


def test_a_mesh_with_explicit_axes_is_refused(key):
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    with jax.sharding.use_abstract_mesh(mesh), pytest.raises(ValueError, match=r"explicit axes; make it with .*Auto"):
        jax.eval_shape(train, PPO(**SMALL, parallel=Parallel(data=8)), key)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", ["sft", "dpo", "kto", "rlhf", "grpo"])
def test_language_models_and_the_sampler_lower_for_a_mesh_of_eight_devices(name, platform, key):
    mesh = AbstractMesh((2, 2, 2), layout.AXES, axis_types=(AxisType.Auto,) * 3)
    more = given(name)

    def learned(params, key):
        return train(CONFIGS[name], key, network=MODEL, params=params, **more)

    with jax.sharding.use_abstract_mesh(mesh), mock.patch.object(layout, "_SMALL", 16):
        text = jax.jit(learned).trace(PARAMS, key).lower(lowering_platforms=(platform,)).as_text()
    assert 'manual_axes={"data", "fsdp"}' in text and '[{}, {"fsdp"}, {"tensor"}]' in text
