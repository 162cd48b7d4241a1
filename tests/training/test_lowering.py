"""The whole of training lowers for accelerators from a machine that has none. Lowers: nothing more is claimed."""

import jax
import jax.numpy as jnp
import pytest

from jaxrl import PPO, EnvConfig, make, train
from jaxrl.envs.wrappers import ActionRepeat

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
        lower(Talkative(make("brax/humanoid", backend="spring"), 1))
