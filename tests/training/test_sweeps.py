"""Members of a sweep are what each would be alone, however many learn beside them and on however many devices."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, program, replace, stack
from jaxrl.settings import float32
from jaxrl.training.compiled import eval_key, trace
from jaxrl.training.sweeps import compile_together, exploit_and_explore
from tests.helpers.compare import close, compile_events, same_bytes

ENV = EnvConfig(num_envs=4, eval_episodes=4, time_limit=50)
CONFIGS = {
    "ppo": PPO(env=ENV, num_steps=16, total_steps=640, hidden=(16,), normalize_obs=True, normalize_return=True),
    "a2c": A2C(env=ENV, num_steps=8, total_steps=320, hidden=(16,)),
    "reinforce": Reinforce(env=ENV, num_steps=50, total_steps=2000, hidden=(16,)),
}
RATES, SEEDS = (1e-3, 1e-3, 3e-3, 3e-3), (0, 2**32 - 1, 0, 7)


@pytest.fixture(scope="module", params=CONFIGS)
def learned(request):
    """(config, its program, the compiled members, their configs, and their states and what they were told after ten
    updates)."""
    config = CONFIGS[request.param]
    p = program(config)
    together = compile_together(config, {}, p, 4)
    configs = together.place(stack([float32(replace(config, learning_rate=rate)) for rate in RATES]))
    states = together.init(configs, np.array(SEEDS, np.uint32))
    states, told = together.chunk(configs, states, together.nothing(), 10)
    return config, p, together, configs, states, told


@pytest.mark.parametrize("i", range(4))
def test_a_member_is_what_it_would_be_alone(learned, i):
    config, p, together, configs, states, told = learned
    alone = trace(replace(config, learning_rate=RATES[i]), {}, p)()
    leaves, heard = alone.chunk(jax.tree.leaves(alone.init(jax.random.key(SEEDS[i]))), 10)
    state, member = alone.whole(leaves), jax.tree.map(lambda x: x[i], states)
    close(member.learner, state.learner)
    assert np.array_equal(jax.random.key_data(member.key), jax.random.key_data(state.key))
    means, fine = together.read(told)
    figures, fine_alone = alone.read(heard)
    np.testing.assert_allclose(means[i], [figures[name] for name in together.names], rtol=1e-4, atol=1e-5)
    assert (fine[i] == fine_alone).all()
    shapes = [[(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (together.state, states)]
    assert shapes[0] == shapes[1]


def test_evaluations_are_those_of_a_run(learned):
    config, p, together, configs, states, _ = learned
    found = together.measures[0](configs, np.array(SEEDS, np.uint32), states)
    one = jax.tree.map(lambda x: x[2], states.learner)
    alone = jax.jit(lambda key, learner: p.evaluators[0].measure(key, learner, jnp.int32(0)))(
        eval_key(SEEDS[2], int(states.num_steps[2])), one
    )
    close(jax.tree.map(lambda x: x[2], found), alone)


def test_other_settings_seeds_and_lengths_compile_nothing():
    config = CONFIGS["ppo"]
    together = compile_together(config, {}, program(config), 2)

    def train(rates, seeds, updates):
        configs = together.place(stack([float32(replace(config, learning_rate=rate)) for rate in rates]))
        states = together.init(configs, np.array(seeds, np.uint32))
        return jax.block_until_ready(together.chunk(configs, states, together.nothing(), updates))

    train((1e-3, 2e-3), (0, 1), 2)
    assert compile_events(lambda: train((0.5, 0.0), (3, 4), 5)) == 0


def test_memory_grows_with_the_members():
    config = CONFIGS["ppo"]
    few, many = (compile_together(config, {}, program(config), size).memory for size in (2, 8))
    assert many["copy"] == pytest.approx(4 * few["copy"]) and many["training"] > 2 * few["training"]


EIGHT_DEVICES = """
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from jaxrl import PPO, EnvConfig, program, replace, stack
from jaxrl.settings import float32
from jaxrl.training.sweeps import compile_together
config = PPO(env=EnvConfig(num_envs=4), num_steps=16, total_steps=640, hidden=(16,))
ends = []
for devices in (1, 8):
    together = compile_together(config, {}, program(config), 64, devices)
    configs = together.place(stack([float32(replace(config, learning_rate=1e-4 * (i % 16 + 1))) for i in range(64)]))
    states = together.init(configs, np.arange(64, dtype=np.uint32) // 16)
    states, _ = together.chunk(configs, states, together.nothing(), 5)
    assert len(jax.tree.leaves(states.learner)[0].sharding.device_set) == devices
    ends.append([np.asarray(x) for x in jax.tree.leaves(states.learner)])
print(max(float(np.abs(a - b).max()) for a, b in zip(*ends)))
"""


def test_sixty_four_members_on_eight_devices_are_what_they_are_on_one():
    out = subprocess.run([sys.executable, "-c", EIGHT_DEVICES], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 1e-5


@pytest.fixture(scope="module")
def population():
    config = CONFIGS["ppo"]
    together = compile_together(config, {}, program(config), 8)
    configs = together.place(stack([float32(replace(config, learning_rate=1e-3 * (i + 1))) for i in range(8)]))
    states = together.init(configs, np.arange(8, dtype=np.uint32))
    return configs, together.chunk(configs, states, together.nothing(), 1)[0]


def explored(population, score, seed=0, low=1e-4, high=1e-1, log=1.0):
    configs, states = population
    none = jax.tree.map(lambda x: jnp.float32(0), configs)
    bounds = [replace(none, learning_rate=jnp.float32(x)) for x in (low, high, log)]
    return exploit_and_explore(jax.random.key(seed), jnp.asarray(score), configs, states, *bounds)


def test_the_worst_quarter_goes_on_from_the_best(population):
    configs, states = population
    # The two worst: the one that is no number, and 0. The two best: members 3 and 6.
    score = [5.0, np.nan, 4.0, 9.0, 0.0, 3.0, 8.0, 1.0]
    found = explored(population, score)
    source = np.asarray(found.source)
    assert set(source[[1, 4]]) <= {3, 6} and (np.delete(source, [1, 4]) == [0, 2, 3, 5, 6, 7]).all()
    assert same_bytes(
        found.states.learner, jax.tree.map(lambda x: x[source], states.learner)
    )  # optimiser's state included
    assert same_bytes((found.states.key, found.states.carry), (states.key, states.carry))
    kept = np.delete(np.arange(8), [1, 4])
    assert same_bytes(jax.tree.map(lambda x: x[kept], found.configs), jax.tree.map(lambda x: x[kept], configs))
    changed = jax.tree.map(lambda a, b: a[1] != b[1], found.configs, configs)
    assert changed.learning_rate and sum(jax.tree.leaves(changed)) == 1


def test_settings_move_by_a_factor_or_a_tenth_of_the_range_or_are_drawn_anew(population):
    score = [9.0, *[float(i) for i in range(7)]]  # members 1 and 2 are the worst, 0 and 7 the best
    rates = 1e-3 * (np.arange(8) + 1)
    for log, moved in ((1.0, lambda x: (x * 1.25, x / 1.25)), (0.0, lambda x: (x + 0.00099, x - 0.00099))):
        anew = 0
        for seed in range(60):
            found = explored(population, score, seed, low=1e-4, high=1e-2, log=log)
            for row in (1, 2):
                rate, source = float(found.configs.learning_rate[row]), int(found.source[row])
                assert 0.999e-4 <= rate <= 1.0001e-2
                near = np.clip(moved(rates[source]), 1e-4, 1e-2)
                anew += not np.isclose(rate, near, rtol=1e-4).any()
        assert 15 <= anew <= 45  # one in four of 120
