"""Agents that learn in turns: what vmap gives, and every derivative that there was."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import PPO, EnvConfig, axes, replace, train
from jaxrl.ops import platform
from jaxrl.ops.platform import in_turns, tuned

X = jnp.array([[1.0, 2.0, 3.0], [4.0, -5.0, 6.0]])


def cube(scale, x):
    return {"cubed": scale * x**3, "sign": jnp.sign(x).astype(jnp.int32)}


@pytest.fixture(autouse=True, params=[True, False], ids=["in turns", "together"])
def turns(request):
    with tuned(agents_in_turns=request.param):
        yield request.param


def test_the_value_is_that_of_the_function():
    found = jax.jit(lambda x: in_turns(cube, 2.0, x))(jnp.array(3.0))
    assert found["cubed"] == 54 and found["sign"] == 1


def test_mapped_over_some_arguments_or_over_what_is_closed_over():
    by_column = jax.vmap(lambda x: in_turns(cube, 2.0, x), 1, 1)(X)
    np.testing.assert_array_equal(by_column["cubed"], 2 * X**3)
    assert by_column["sign"].dtype == jnp.int32
    closed_over = jax.vmap(lambda scale: in_turns(lambda x: cube(scale, x)["cubed"], X))(jnp.array([1.0, 10.0]))
    np.testing.assert_array_equal(closed_over, jnp.stack([X**3, 10 * X**3]))


def test_mapped_twice():
    twice = jax.vmap(jax.vmap(lambda x: in_turns(cube, 2.0, x)["cubed"]))(X)
    np.testing.assert_array_equal(twice, 2 * X**3)


def test_keys_and_no_arguments():
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.vmap(lambda key: in_turns(jax.random.normal, key))(keys)
    np.testing.assert_array_equal(drawn, jax.vmap(jax.random.normal)(keys))
    assert in_turns(lambda: jnp.array(7)) == 7


def test_a_cond_takes_one_branch(turns):
    def f(x):
        return in_turns(lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), x)

    text = jax.jit(jax.vmap(f)).lower(jnp.arange(3.0)).as_text()
    assert ("stablehlo.case" in text) == turns


def test_every_derivative():
    def f(x):
        return jnp.sum(in_turns(cube, 2.0, x)["cubed"])

    x = X[1]
    np.testing.assert_allclose(jax.grad(f)(x), 6 * x**2)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(X), 6 * X**2)
    np.testing.assert_allclose(jax.grad(lambda X: jnp.sum(jax.vmap(f)(X)))(X), 6 * X**2)
    np.testing.assert_allclose(jax.jvp(f, (x,), (jnp.ones(3),))[1], jnp.sum(6 * x**2))
    np.testing.assert_allclose(jax.hessian(f)(x), jnp.diag(12 * x))


def test_the_derivative_by_one_argument_asks_for_no_slope_of_another():
    def f(scale, x):
        return scale * jnp.sqrt(x)

    assert jax.grad(lambda scale: in_turns(f, scale, jnp.array(0.0)))(2.0) == 0


CONFIG = PPO(
    env=EnvConfig("gymnax/CartPole-v1", num_envs=4), num_steps=16, num_epochs=2, num_minibatches=2, total_steps=256
)


def test_a_sweep_is_the_runs_one_by_one():
    rates = [1e-4, 1e-3]
    swept = replace(CONFIG, learning_rate=jnp.array(rates))
    states, metrics = jax.jit(jax.vmap(train, (axes(swept), None)))(swept, jax.random.key(1))
    for i, rate in enumerate(rates):
        state, alone = jax.jit(train)(replace(CONFIG, learning_rate=rate), jax.random.key(1))
        for mapped, own in zip(
            jax.tree.leaves(states.learner.params), jax.tree.leaves(state.learner.params), strict=True
        ):
            np.testing.assert_allclose(mapped[i], own, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(metrics["value_loss"].total[i], alone["value_loss"].total, rtol=1e-3)


def test_training_is_differentiable_by_its_settings():
    def entropy(rate):
        _, metrics = train(replace(CONFIG, learning_rate=rate), jax.random.key(1))
        return metrics["entropy"].value[-1]

    slope = jax.jit(jax.grad(entropy))(3e-4)
    assert jnp.isfinite(slope) and slope != 0


def test_an_extra_is_added_in_a_checkout_by_its_own_command_and_elsewhere_by_pip(monkeypatch, tmp_path):
    assert platform.installing("lm") == "NEEDS=lm scripts/run -m jaxrl env"
    monkeypatch.setattr(platform, "__file__", str(tmp_path / "jaxrl" / "ops" / "platform.py"))
    assert platform.installing("lm") == 'python -m pip install "jaxrl[lm]"'
    monkeypatch.undo()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "mine"))  # a checkout in an environment of one's own
    assert platform.installing("lm") == 'python -m pip install "jaxrl[lm]"'
