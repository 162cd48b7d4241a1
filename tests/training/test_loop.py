"""The pure driver: what DESIGN calls invariants, on small programs."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import (
    A2C,
    PPO,
    Algorithm,
    EnvConfig,
    Network,
    Reinforce,
    axes,
    evaluate,
    replace,
    rollouts,
    stack,
    train,
    vectorize,
)
from jaxrl.algorithms.ppo import adapted
from jaxrl.ops.distributions import Categorical, DiagGaussian, TanhDiagGaussian
from jaxrl.ops.losses import approx_kl
from jaxrl.spaces import Box, Discrete
from jaxrl.training.programs import program
from jaxrl.types import Step
from tests.helpers.compare import compile_events
from tests.helpers.environments import Counter

CARTPOLE = PPO(env=EnvConfig(num_envs=4), total_steps=4 * 16 * 6, num_steps=16, num_minibatches=2, num_epochs=2)
A2C_CARTPOLE = A2C(env=EnvConfig(num_envs=4), total_steps=4 * 8 * 6, num_steps=8)
REINFORCE_CARTPOLE = Reinforce(env=EnvConfig(num_envs=4, time_limit=20), total_steps=4 * 20 * 4, num_steps=20)
CONFIGS = [CARTPOLE, A2C_CARTPOLE, REINFORCE_CARTPOLE]
NAMES = ["ppo", "a2c", "reinforce"]


def assert_trees_close(a, b, rtol=1e-5, atol=1e-6):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@pytest.mark.device
def test_steps_executed_are_steps_requested(config, key):
    state, metrics = jax.jit(train)(config, key)
    assert state.num_steps == config.total_steps
    updates = config.total_steps // (config.num_steps * config.env.num_envs)
    assert state.learner.num_updates == updates
    assert all(leaf.shape == (updates,) for leaf in jax.tree.leaves(metrics)), "metrics are scalars per update"


def test_a_total_that_does_not_divide_is_refused_with_the_nearest_that_do(key):
    with pytest.raises(
        ValueError, match="total_steps = 100 is not a multiple of the 64 steps of an update; try 64 or 128"
    ):
        train(replace(CARTPOLE, total_steps=100), key)
    with pytest.raises(ValueError, match="not divisible by num_minibatches = 5; try 4"):
        train(replace(CARTPOLE, num_minibatches=5), key)
    with pytest.raises(ValueError, match="gamma = 1.5 is out of range"):
        train(replace(CARTPOLE, gamma=1.5), key)


@pytest.mark.device
def test_learning_rate_is_zero_exactly_after_the_last_update(key):
    p = program(CARTPOLE)
    state, metrics = jax.jit(train)(CARTPOLE, key)
    np.testing.assert_allclose(metrics["learning_rate"].value, 3e-4 * (1 - np.arange(6) / 6), rtol=1e-6)
    after, metrics = jax.jit(p.step)(state)
    assert metrics["learning_rate"].total == 0
    for x, y in zip(jax.tree.leaves(state.learner.params), jax.tree.leaves(after.learner.params), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "config",
    [
        CARTPOLE,
        replace(CARTPOLE, env=EnvConfig("gymnax/Pendulum-v1", num_envs=4), normalize_obs=True, normalize_return=True),
        replace(
            CARTPOLE, env=EnvConfig("probe/target", num_envs=4), normalize_obs=True, head="tanh_normal", init_std=3.0
        ),
    ],
    ids=["categorical", "normal", "tanh_normal"],
)
@pytest.mark.device
def test_first_ratio_is_one_with_any_normaliser(config, key):
    p = program(config)
    state = jax.jit(p.init)(key)
    for _ in range(3):  # statistics move between updates
        before, (state, _) = state, jax.jit(p.step)(state)
    _, batch = jax.jit(p.source.collect)(key, before.learner, before.carry)
    _, distribution = p.algorithm.policy(before.learner, (), batch.obs, batch.first)
    ratio = jnp.exp(distribution.log_prob(batch.action) - batch.log_prob)
    assert jnp.max(jnp.abs(ratio - 1)) < 1e-5
    if isinstance(distribution, TanhDiagGaussian | DiagGaussian):
        assert jnp.max(jnp.abs(batch.action)) > 1, "actions beyond the bounds are stored as sampled"
    one_step = replace(config, num_epochs=1, num_minibatches=1)
    _, metrics = jax.jit(program(one_step).algorithm.update)(key, before.learner, batch)
    assert abs(float(metrics["approx_kl"].value)) < 1e-7


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
@pytest.mark.device
def test_vmap_over_seeds_equals_a_loop(config):
    short = replace(config, total_steps=config.env.num_envs * config.num_steps * 2)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    together = jax.jit(jax.vmap(train, (None, 0)))(short, keys)
    for i in range(3):
        alone = jax.jit(train)(short, keys[i])
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together[0].learner), alone[0].learner, 1e-3, 1e-4)


@pytest.mark.device
def test_vmap_over_a_stacked_config_equals_each_config_alone(key):
    short = replace(CARTPOLE, total_steps=4 * 16 * 2)
    configs = [replace(short, learning_rate=rate) for rate in (1e-4, 1e-3, 1e-2)]
    stacked = stack(configs)
    together = jax.jit(jax.vmap(train, (axes(stacked), None)))(stacked, key)
    for i, config in enumerate(configs):
        alone = jax.jit(train)(config, key)
        assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together[0].learner), alone[0].learner, 1e-3, 1e-4)


def test_eight_seeds_and_eight_learning_rates_are_one_program_each(key):
    tiny = replace(CARTPOLE, total_steps=4 * 16)
    seeds = jax.jit(jax.vmap(train, (None, 0)))(tiny, jax.vmap(jax.random.key)(jnp.arange(8)))
    stacked = stack([replace(tiny, learning_rate=10.0**-i) for i in range(1, 9)])
    rates = jax.jit(jax.vmap(train, (axes(stacked), None)))(stacked, key)
    for state, _ in (seeds, rates):
        kernels = state.learner.params.actor.layers[0].kernel[...]
        assert len({np.asarray(k).tobytes() for k in kernels}) == 8


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_jit_equals_no_jit(config, key):
    # An update of few steps: without jit each operation of each step is compiled by itself.
    few = {"num_envs": 2, "num_steps": 4, "total_steps": 2 * 4, "time_limit": 4, "hidden": (4,)}
    short = replace(config, **few)
    compiled = jax.jit(train)(short, key)
    with jax.disable_jit():
        plain = train(short, key)
    assert_trees_close(compiled[0].learner, plain[0].learner, 1e-4, 1e-5)


@pytest.mark.device
def test_a_new_value_of_any_traced_hyper_parameter_compiles_nothing(key):
    import dataclasses

    program = jax.jit(train)
    fresh = replace(CARTPOLE, total_steps=4 * 16 * 3)
    assert compile_events(lambda: program(fresh, key)) > 0
    leaves = [f.name for f in dataclasses.fields(fresh) if f.type is float]
    assert len(leaves) > 10
    changed = replace(fresh, **{name: getattr(fresh, name) * 0.5 for name in leaves})
    assert compile_events(lambda: program(changed, key)) == 0
    assert compile_events(lambda: program(replace(fresh, ent_coef=1), key)) == 0, "an int is a float here"


@pytest.mark.device
def test_micro_batches_change_nothing(key):
    short = replace(CARTPOLE, total_steps=4 * 16 * 2)
    whole = jax.jit(train)(short, key)
    pieces = jax.jit(train)(replace(short, micro_batch_size=8), key)
    assert_trees_close(whole[0].learner, pieces[0].learner, 1e-3, 1e-5)
    assert_trees_close(whole[1], pieces[1], 1e-3, 1e-4)


def test_target_kl_stops_an_update_early(key):
    fast = replace(CARTPOLE, learning_rate=0.05, num_epochs=10, total_steps=4 * 16)
    free, stopped = (jax.jit(train)(replace(fast, target_kl=limit), key)[1] for limit in (jnp.inf, 0.01))
    steps = free["gradient_steps"].value[0]
    assert steps == 20 and free["approx_kl"].count[0] == 20 * 32
    # the minibatch that trips the limit is not learned from, and stays in the metrics: one more than the steps taken
    steps = stopped["gradient_steps"].value[0]
    assert 0 < steps < 20 and stopped["approx_kl"].count[0] == (steps + 1) * 32


def test_the_minibatch_that_trips_target_kl_is_seen_in_the_metrics(key):
    # two gradient steps at a rate that moves far: the second minibatch trips a tiny limit, and the mean says so
    fast = replace(CARTPOLE, learning_rate=0.05, num_epochs=1, total_steps=4 * 16, target_kl=1e-6)
    state, metrics = jax.jit(train)(fast, key)
    assert metrics["gradient_steps"].value[0] == 1
    assert metrics["approx_kl"].value[0] > 1e-4, "0 would be the first minibatch alone"


@pytest.mark.parametrize(
    ("kl", "factor"), [(0.021, 1 / 1.5), (0.02, 1.0), (0.01, 1.0), (0.005, 1.0), (0.0049, 1.5), (1e-7, 1.0)]
)
def test_an_adaptive_rate_follows_the_kl(kl, factor):
    assert float(adapted(jnp.float32(1e-3), jnp.float32(kl), 0.01)) == pytest.approx(1e-3 * factor)
    assert float(adapted(jnp.float32(9e-3), jnp.float32(0.001), 0.01)) == pytest.approx(1e-2)
    assert float(adapted(jnp.float32(1.1e-5), jnp.float32(1.0), 0.01)) == pytest.approx(1e-5)


def test_an_adaptive_rate_is_carried_on_and_seen_in_the_metrics(key):
    config = replace(CARTPOLE, lr_schedule="adaptive", kl_goal=1e-4, learning_rate=5e-3, total_steps=4 * 16 * 4)
    state, metrics = jax.jit(train)(config, key)
    rates = metrics["learning_rate"].value
    assert float(state.learner.learning_rate) < 5e-3 and rates[-1] < rates[0]
    assert jax.jit(train)(CARTPOLE, key)[0].learner.learning_rate is None


def test_advantages_are_estimated_anew_before_each_epoch(key):
    short = replace(CARTPOLE, total_steps=4 * 16, num_epochs=3)
    state, metrics = jax.jit(train)(replace(short, recompute_advantages=True), key)
    assert metrics["gradient_steps"].value[0] == 3 * short.num_minibatches
    # what does not move is estimated the same: then only the draws of minibatches differ, and those not at all in one
    still = replace(short, learning_rate=0.0, num_minibatches=1)
    once, anew = (jax.jit(train)(replace(still, recompute_advantages=on), key)[1] for on in (False, True))
    assert_trees_close(once["value_loss"].value, anew["value_loss"].value, 1e-5, 1e-6)
    moved = jax.jit(train)(replace(short, num_minibatches=1), key)[0].learner.params
    other = jax.jit(train)(replace(short, num_minibatches=1, recompute_advantages=True), key)[0].learner.params
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kl_goal": 0.02}, "kl_goal = 0.02 is not read by a linear lr_schedule"),
        ({"lr_schedule": "adaptive", "lr_final": 0.5}, "lr_final = 0.5 is not read by an adaptive lr_schedule"),
    ],
)
def test_a_schedule_refuses_what_it_does_not_read(changes, words):
    with pytest.raises(ValueError, match=words):
        program(replace(CARTPOLE, **changes))


@pytest.mark.parametrize("by", ["step", "env"])
def test_minibatches_by_step_and_by_environment_both_train(by, key):
    state, metrics = jax.jit(train)(replace(CARTPOLE, minibatches_by=by), key)
    assert jnp.isfinite(metrics["policy_loss"].value).all()


def test_a_network_of_ones_own_is_two_functions(key):
    def init(key):
        return {"w": 0.01 * jax.random.normal(key, (4, 3))}

    def apply(params, obs):
        out = obs @ params["w"]
        return Categorical(out[..., :2]), out[..., 2]

    state, _ = jax.jit(lambda c, k: train(c, k, network=Network(init, apply)))(CARTPOLE, key)
    assert set(state.learner.params) == {"w"}


@pytest.mark.device
def test_a_broken_environment_does_not_poison_learning(key):
    config = replace(CARTPOLE, total_steps=4 * 16 * 3, normalize_obs=True)
    state, metrics = jax.jit(lambda c, k: train(c, k, env=Counter()))(config, key)
    assert metrics["invalid_steps"].total.sum() > 0
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.learner.params))


def test_reported_kl_is_measured_against_the_policy_that_acted(key):
    p = program(CARTPOLE)
    state = jax.jit(p.init)(key)
    _, batch = p.source.collect(key, state.learner, state.carry)
    moved, _ = p.algorithm.update(key, state.learner, batch)
    _, distribution = p.algorithm.policy(moved, (), batch.obs, batch.first)
    assert jnp.mean(approx_kl(distribution.log_prob(batch.action), batch.log_prob)) > 0


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_gradients_are_clipped_by_their_global_norm_and_adam_has_its_epsilon(config, key):
    # Adam's first step is g/(|g| + ε). Clipped to a norm c far below ε = 1e-5 it is g/ε, of norm c/ε = 1e-4 whatever
    # the number of parameters; clipped elementwise it would be c/ε times the root of that number.
    assert config.adam_eps == 1e-5
    one = {"total_steps": config.env.num_envs * config.num_steps, "learning_rate": 1e3, "max_grad_norm": 1e-9}
    if isinstance(config, PPO):
        one |= {"num_epochs": 1, "num_minibatches": 1}
    config = replace(config, **one)
    before = jax.jit(program(config).init)(key).learner.params
    after = jax.jit(train)(config, key)[0].learner.params
    moved = sum(jnp.sum((x - y) ** 2) for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    np.testing.assert_allclose(jnp.sqrt(moved), 1e3 * 1e-4, rtol=0.02)


def test_no_finished_episode_is_reported_as_nan_not_as_zero(key):
    endless = replace(A2C_CARTPOLE, env=EnvConfig("probe/constant", num_envs=4, time_limit=10))
    _, metrics = jax.jit(train)(endless, key)
    assert jnp.isnan(metrics["episode_return"].value[0]), "eight steps of a ten-step episode"
    assert metrics["episode_return"].value[1] == 10


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Signs:
    """Shows a sign and a number in a dict, pays for the action that matches the sign."""

    pay: jax.Array = field(default_factory=lambda: jnp.ones(()))
    time_limit: int | None = field(default=1, metadata={"static": True})
    observation_space = {"sign": Discrete(2, start=-1), "noise": Box((3,))}  # noqa: RUF012
    action_space = Discrete(2, start=5)

    def reset(self, key):
        sign = jax.random.randint(key, (), -1, 1)
        return sign, {"sign": sign, "noise": 1e3 * jax.random.normal(key, (3,))}

    def step(self, key, state, action):
        reward = jnp.where(action - 5 == state + 1, self.pay, 0.0)
        return state, Step(self.reset(key)[1] | {"sign": state}, reward, state > -9, jnp.zeros((), bool), {})


@pytest.mark.parametrize("name", NAMES)
def test_observations_may_be_dicts_and_integers_may_start_anywhere(name, key):
    config = {
        "ppo": PPO(env=EnvConfig("custom", num_envs=32), total_steps=32 * 8 * 40, num_steps=8, normalize_obs=True),
        "a2c": A2C(env=EnvConfig("custom", num_envs=32), total_steps=32 * 8 * 150, num_steps=8, normalize_obs=True),
        "reinforce": Reinforce(
            env=EnvConfig("custom", num_envs=64), total_steps=64 * 200, num_steps=1, normalize_obs=True
        ),
    }[name]
    config = replace(config, learning_rate=1e-2, hidden=(16,))
    state, metrics = jax.jit(lambda k: train(config, k, env=Signs()))(key)
    assert metrics["episode_return"].value[0] < 0.8 and metrics["episode_return"].value[-1] > 0.95
    played = evaluate(config.env, program(config, env=Signs()).algorithm, state.learner, key, body=Signs())
    assert played.episode_return.mean() > 0.95


def test_rollouts_store_the_memory_at_their_start_and_tell_where_episodes_begin(key):
    def policy(learner, memory, obs, first):
        memory = jnp.where(first, 0, memory) + 1
        return memory, Categorical(jnp.zeros((len(obs), 3)).at[:, 1:].set(-1e9))

    env = vectorize(Counter(), 4, time_limit=5)
    source = rollouts(env, Algorithm(None, None, policy, memory=lambda n: jnp.zeros(n, jnp.int32)), 8)
    carry, first = source.collect(key, None, source.init(key))
    _, second = source.collect(key, None, carry)
    # episodes of five steps: they begin at 0 and 5, and after the first eight steps the third of the next is done
    np.testing.assert_array_equal(first.first[:, 0], [1, 0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(first.memory, 0)
    np.testing.assert_array_equal(second.memory, 3)
    np.testing.assert_array_equal(second.first[:, 0], [0, 0, 1, 0, 0, 0, 0, 1])


def test_the_length_of_a_run_is_checked_once_for_all(key):
    with pytest.raises(ValueError, match="total_steps = 4294967296 overflows the 32-bit counter of steps"):
        train(replace(CARTPOLE, total_steps=2**32), key)


@pytest.mark.parametrize("name", ["ppo", "a2c", "reinforce"])
def test_a_network_that_does_not_fit_is_refused_before_anything_is_compiled(name, key):
    config = dict(zip(NAMES, CONFIGS, strict=True))[name]

    def network(logits, value):
        return Network(lambda key: (), lambda params, obs: (Categorical(logits(obs)), value(obs)))

    fits, column = (lambda obs: obs[..., :2]), (lambda obs: obs[..., :1])
    for wrong, words in (
        (network(fits, column), "value"),
        (network(lambda obs: obs[..., :3], lambda obs: obs[..., 0]), "logits"),
    ):
        with pytest.raises(ValueError, match=words):
            train(config, key, network=wrong)


def test_a_stack_of_configs_is_mapped_over_and_never_broadcast(key):
    discounts = replace(CARTPOLE, gamma=np.array([0.1, 0.5, 0.9, 0.99]))
    with pytest.raises(ValueError, match=r"gamma has shape \(4,\), so this is a stack of configs; map over it"):
        train(discounts, key)


def test_minibatches_of_one_row_cannot_standardise_their_advantage(key):
    config = replace(CARTPOLE, num_minibatches=64)
    with pytest.raises(ValueError, match="num_minibatches = 64 leaves one row each, whose standardised advantage is"):
        train(config, key)
    program(replace(config, normalize_advantage=False))


def test_a_seed_is_no_key():
    with pytest.raises(ValueError, match=r"key is a number, perhaps a seed; give a key, as in .*jax.random.key\(0\)"):
        jax.jit(train)(PPO(), 0)
