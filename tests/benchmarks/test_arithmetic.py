"""The arithmetic of measurements, by hand; what is timed is looked at in test_throughput."""

import pytest

from jaxrl.algorithms import PPO, SFT
from jaxrl.benchmarks.ablation import CHOICES, ablate, compared
from jaxrl.benchmarks.ceilings import Ceilings, Sizes, floors, matmul_rate, measure_ceilings
from jaxrl.benchmarks.throughput import Compiled, DoesNotFit, Plan, fits, measure, rates, sizes_of, with_floors
from jaxrl.benchmarks.timing import repeats, spread
from jaxrl.ops.platform import Tuning, tuned
from jaxrl.settings import EnvConfig, replace
from jaxrl.types import InputError

# 200 Gop/s, 10 GB/s, 1 µs: acting by 4000 operations costs 4000 / 200e9 = 20 ns a step, two epochs of learning 1000
# parameters 12,000 / 200e9 = 60 ns, and 50 stored bytes, written and read, 100 / 10e9 = 10 ns.
CEILINGS = Ceilings(200e9, 10e9, 1e-6)
SIZES = Sizes(agents=2, num_envs=5, rows=8, width=(4, 4), acting=4000, parameters=1000, epochs=2, stored=50)


def test_floors_by_hand():
    found = floors(SIZES, CEILINGS, physics=200e-9)
    assert found == pytest.approx({"acting": 220e-9, "rollout": 230e-9, "training": 280e-9})


def test_the_share_of_a_floor_is_of_speeds(monkeypatch):
    monkeypatch.setattr("jaxrl.benchmarks.throughput.measure_ceilings", lambda sizes: CEILINGS)
    rows = [{"arm": "physics", "median": 5e6}, {"arm": "training", "median": 1e6}, {"arm": "acting", "left_out": "x"}]
    physics, training, acting = with_floors(rows, SIZES)
    assert training["floor"] == pytest.approx(1 / 280e-9) and training["of_floor"] == pytest.approx(0.28)
    assert "floor" not in acting and "floor" not in physics
    assert "floor" not in with_floors([{"arm": "training", "median": 1e6}], SIZES)[0]  # it is a floor above physics


def test_rates_are_of_steps_and_the_median_is_of_rates():
    assert rates(100, [1.0, 2.0, 4.0]) == {"median": 50.0, "min": 25.0, "max": 100.0}


@pytest.mark.parametrize(
    ("other", "again", "verdict"),
    [
        ([2.0, 2.2, 2.4], [1.0, 1.1, 1.0], "default is faster"),
        ([0.5, 0.5, 0.6], [1.0, 1.1, 1.0], "alternative is faster"),
        ([1.05, 1.05, 1.05], [1.0, 0.93, 0.94], "void"),
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], "void"),
    ],
)
def test_a_ratio_counts_only_beyond_its_repeats(other, again, verdict):
    assert compared([1.0, 1.0, 1.0], other, again)["verdict"] == verdict


def test_ratios_are_taken_within_a_round():
    # a machine that slows down threefold from round to round leaves the ratio of a round alone
    found = compared([1.0, 3.0, 9.0], [2.0, 6.0, 18.0], [1.1, 3.3, 9.9])
    assert found["ratio"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert found["repeat"]["median"] == pytest.approx(1.1)


def test_every_choice_of_the_platform_has_its_alternatives():
    # Of language models (benchmark_dpo.py and benchmark_sampling.py have arms without), and of how long `run` compiles.
    elsewhere = {"remat", "halve_above", "plain_above"}
    expected = set(Tuning._fields) - elsewhere
    assert set(CHOICES) == expected, "give the new field of Tuning a line in benchmarks/ablation.py: CHOICES"
    assert all(len(set(values)) > 1 for values in CHOICES.values())


def test_repeats_fill_the_time_they_are_given(monkeypatch):
    monkeypatch.setattr("jaxrl.benchmarks.timing.timed", lambda call: call())
    assert repeats(lambda n: 0.001 * n, 0.5) == 500
    assert repeats(lambda n: 7.0, 0.5) == 1
    assert spread([3, 1, 2]) == (2.0, 1.0, 3.0)


def test_what_does_not_fit_says_how_much_is_missing(monkeypatch):
    monkeypatch.setattr("jaxrl.benchmarks.throughput.free_memory", lambda: 10 * 2**30)
    made = Compiled(None, None, 0.0, held=2 * 2**30, working=6 * 2**30)
    fits(made, held=2**30)
    with pytest.raises(DoesNotFit, match=r"needs 10\.0 GiB, of which 9\.0 are free"):
        fits(made, held=2 * 2**30)


def test_sizes_are_read_off_the_program():
    # CartPole: 4 → 64 → 64 → 2 and → 1, with biases: 320 + 4160 + 130 and 320 + 4160 + 65
    config = PPO(env=EnvConfig(num_envs=8), num_steps=16, num_minibatches=4, num_epochs=3, micro_batch_size=16)
    sizes = sizes_of(config, agents=2)
    assert (sizes.rows, sizes.width, sizes.parameters, sizes.epochs) == (16, (64, 64), 9155, 3)
    # The policy alone: 2 · (4·64 + 64·64 + 64·2) for the products, and some for biases, tanh and the sample.
    assert 8960 < sizes.acting < 1.05 * 8960
    # a step stores obs and next_obs of 4 floats, action, log-prob, reward, two ends and a beginning
    assert sizes.stored == 16 + 16 + 4 + 4 + 4 + 3
    with tuned(micro_batch_rows=None):
        assert sizes_of(replace(config, micro_batch_size=None), 1).rows == 32


def test_a_matmul_takes_longer_than_no_time():
    assert 1e6 < matmul_rate(64, 32, 16, seconds=0.001) < 1e16


def test_few_rows_have_the_ceiling_of_many():
    few, many = (measure_ceilings(SIZES._replace(rows=rows), seconds=0.001) for rows in (1, 512))
    assert few == many


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: measure(SFT()), "SFT learns from data"),
        (lambda: measure(PPO(), agents=0), "agents = 0"),
        (lambda: measure(PPO(), plan=Plan(rounds=0)), "rounds = 0"),
        (lambda: measure(PPO(), plan=Plan(names=("learning",))), "arms = learning: choose from physics"),
        (lambda: ablate(PPO(), fields=("shuffles",)), "'shuffles' is no choice"),
    ],
)
def test_mistakes_are_sentences(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
