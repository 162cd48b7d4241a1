"""Aggregates, intervals and profiles of runs: by hand, against closed forms, against rliable, how often they hold."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import stdtr

from jaxrl.reports.statistics import (
    FEWEST_RUNS,
    failed_as_worst,
    interquartile_mean,
    interval,
    mean,
    median,
    normalized,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    sample_efficiency,
)
from jaxrl.types import InputError

SIMULATIONS = 1_000


# By hand


def test_aggregates_of_one_task_by_hand():
    # ⌊8/4⌋ = 2 are cut off at each end of 0 1 2 3 4 5 6 100: the mean of 2 3 4 5 is 3.5.
    runs = [100.0, 3, 0, 2, 1, 6, 5, 4]
    assert interquartile_mean(runs) == 3.5
    assert mean(runs) == 121 / 8 and median(runs) == 3.5
    # Of 0, 0.5, 2 with γ = 1: (1 + 0.5 + 0) / 3.
    assert optimality_gap([0.0, 0.5, 2.0]) == pytest.approx(0.5)
    assert optimality_gap([0.0, 0.5, 2.0], gamma=2.0) == pytest.approx(3.5 / 3)


def test_tasks_of_unequal_numbers_weigh_alike_but_in_the_pooled_mean():
    scores = {"a": [0.0, 0, 0, 0, 0, 0], "b": [1.0, 3.0], "c": [8.0]}
    assert mean(scores) == 10 / 3  # of 0, 2, 8
    assert median(scores) == 2
    assert interquartile_mean(scores) == 0.2  # ⌊9/4⌋ = 2 off each end of 0 0 0 0 0 0 1 3 8
    assert optimality_gap(scores) == pytest.approx(1 / 3)  # of 1, 0, 0
    assert performance_profile(scores, [0.5, 2.0]).value.tolist() == pytest.approx([2 / 3, 0.5])  # of 0 1 1; 0 ½ 1


def test_a_profile_counts_what_is_above_and_not_what_is_equal():
    assert performance_profile([1.0, 2, 2, 3], [0, 1, 2, 3]).value.tolist() == [1, 0.75, 0.25, 0]


def test_probability_of_improvement_by_hand():
    # 2 beats 1 and ties with 2; 3 beats both: 3½ of 4.
    assert probability_of_improvement([2.0, 3], [1.0, 2]).value == 3.5 / 4
    assert probability_of_improvement([1.0] * 5, [1.0] * 9).value == 0.5
    x = {"a": [2.0, 3], "b": [0.0]}
    assert probability_of_improvement(x, {"b": [1.0, 2, 3], "a": [1.0, 2]}).value == 3.5 / 8  # of 7/8 and 0


def test_a_curve_is_summarised_step_by_step():
    curves = np.array([[0.0, 10], [1, 10], [2, 10], [3, 10], [100, 10]])
    found = sample_efficiency(curves)
    assert found.value.tolist() == [2, 10]
    assert found.low.shape == (2,) and found.low[0] < 2 < found.high[0]
    assert found.low[1] == found.high[1] == 10
    both = sample_efficiency({"a": curves, "b": curves + 1}, mean)
    assert both.value == pytest.approx([21.7, 10.5])


def test_normalized_scores_by_hand():
    assert normalized([20.0, 60], 20, 100).tolist() == [0, 0.5]
    found = normalized({"a": [1.0], "b": [-5.0]}, {"a": 0, "b": -10}, {"a": 2, "b": 0})
    assert {t: s.tolist() for t, s in found.items()} == {"a": [0.5], "b": [0.5]}


# Known distributions: a sample of a million, three standard errors

# Between the quartiles ±z of a normal, 2 ∫ exp(Φ⁻¹(p)) dp = 2 √e (Φ(z - 1) - Φ(-z - 1)).
LOG_NORMAL = 2 * math.sqrt(math.e) * np.diff(stats.norm.cdf(stats.norm.ppf([0.25, 0.75]) - 1)).item()


@pytest.mark.parametrize(
    ("sample", "truth"),
    [
        (stats.uniform(2, 4), 4.0),
        (stats.norm(3, 2), 3.0),
        # Between its quartiles F⁻¹(p) = -ln(1 - p) has the mean 2 ∫ -ln u du over u from ¼ to ¾.
        (stats.expon(), 2 * ((0.75 - 0.75 * math.log(0.75)) - (0.25 - 0.25 * math.log(0.25)))),
        (stats.lognorm(1), LOG_NORMAL),
    ],
    ids=["uniform", "normal", "exponential", "log-normal"],
)
def test_the_interquartile_mean_of_a_known_distribution(sample, truth):
    runs = sample.rvs(1_000_000, random_state=0)
    assert interquartile_mean(runs) == pytest.approx(truth, abs=3 * 1.3 * sample.std() / 1_000)


@pytest.mark.parametrize("delta", [0.0, 0.5, 2.0])
def test_probability_of_improvement_of_two_normals(delta):
    runs = np.random.default_rng(0).standard_normal((2, 20_000))
    found = probability_of_improvement(runs[0] + delta, runs[1], resamples=2).value
    assert found == pytest.approx(stats.norm.cdf(delta / math.sqrt(2)), abs=0.01)


# rliable 1.2.0's numbers, and that of its own tests


def matrix(runs: int, first: int) -> np.ndarray:
    """Scores [runs, 6 tasks] that every machine gets alike."""
    return np.sin(np.arange(first, first + runs * 6) ** 2.0).reshape(runs, 6).round(3)


def by_task(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {f"task {i}": runs for i, runs in enumerate(scores.T)}


X, Y = by_task(matrix(10, 1)), by_task((matrix(7, 1000) + 0.2).round(3))
TAU = [-0.9, -0.5, 0, 0.25, 0.5, 0.9]


def plain(fewest: int, free: int) -> float:
    """The confidence whose expanded percentiles are the plain ones at 95 %, which rliable takes."""
    return 2 * stdtr(free, 1.959964 * math.sqrt((fewest - 1) / fewest)) - 1


def test_aggregates_are_rliables():
    exact = {"rel": 1e-12, "abs": 1e-12}
    numbers = {
        interquartile_mean: (-0.06656666666666668, 0.19986363636363638),
        mean: (-0.03651666666666667, 0.21061904761904762),
        median: (-0.0038499999999999993, 0.2822142857142857),
        optimality_gap: (1.0365166666666668, 0.8186904761904762),
    }
    for statistic, expected in numbers.items():
        assert (statistic(X), statistic(Y)) == pytest.approx(expected, **exact)
    assert optimality_gap(X, 0.5) == pytest.approx(0.6365833333333333, **exact)
    assert probability_of_improvement(X, Y).value == pytest.approx(0.39642857142857135, **exact)
    tied = [{task: s.round() for task, s in scores.items()} for scores in (X, Y)]
    assert probability_of_improvement(*tied).value == pytest.approx(0.4547619047619047, **exact)
    expected = [0.85, 0.6666666666666666, 0.45, 0.38333333333333336, 0.3, 0.16666666666666666]
    assert performance_profile(X, TAU).value == pytest.approx(expected, **exact)


def test_what_rliable_tests_itself_with():
    x, y = (by_task(np.array(s)) for s in ([[1, 2], [2, 2], [1, 1], [2, 1]], [[1, 1], [2, 2], [3, 3]]))
    assert median(x) == mean(x) == interquartile_mean(x) == 1.5
    assert median(y) == mean(y) == interquartile_mean(y) == 2
    assert probability_of_improvement(x, y).value == pytest.approx(1 / 3)


def test_unexpanded_bounds_are_rliables_but_for_the_draw():
    for statistic, expected in ((interquartile_mean, (-0.3221, 0.2028)), (mean, (-0.2049, 0.1307))):
        found = interval(X, statistic, confidence=plain(10, 54), resamples=20_000)
        assert (found.low, found.high) == pytest.approx(expected, abs=0.01)
    found = probability_of_improvement(X, Y, confidence=plain(7, 90))
    assert (found.low, found.high) == pytest.approx((0.2929, 0.5071), abs=0.01)
    found = performance_profile(X, TAU, confidence=plain(10, 54))
    assert found.low == pytest.approx([0.7667, 0.55, 0.3333, 0.2667, 0.1833, 0.0833], abs=1 / 60 + 1e-3)
    assert found.high == pytest.approx([0.9333, 0.7833, 0.5667, 0.5, 0.4167, 0.2667], abs=1 / 60 + 1e-3)


# How often an interval holds the truth


def solve(share: float) -> tuple:
    """A return of about 500 with that probability, else one of about 100; with its interquartile mean."""
    good, bad = stats.norm(500, 10), stats.norm(100, 30)

    def draw(rng, shape):
        solved = rng.uniform(size=shape) < share
        return np.where(solved, good.rvs(shape, random_state=rng), bad.rvs(shape, random_state=rng))

    x = np.linspace(-100, 600, 700_001)
    cdf = share * good.cdf(x) + (1 - share) * bad.cdf(x)
    return draw, np.interp(np.linspace(0.25, 0.75, 100_001), cdf, x).mean()


def frozen(sample, truth: float) -> tuple:
    return lambda rng, shape: sample.rvs(shape, random_state=rng), truth


DISTRIBUTIONS = {
    "normal": frozen(stats.norm(), 0.0),
    "log-normal": frozen(stats.lognorm(1), LOG_NORMAL),
    "nine solve": solve(0.9),
    "seven solve": solve(0.7),
}


def coverage(found, truth: float) -> float:
    return np.mean((found.low <= truth) & (truth <= found.high))


@pytest.mark.parametrize("runs", [10, 30])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_95_percent_interval_holds_the_interquartile_mean_in_92_to_98_percent_of_simulations(name, runs):
    draw, truth = DISTRIBUTIONS[name]
    scores = draw(np.random.default_rng(runs), (SIMULATIONS, runs))
    assert 0.92 <= coverage(interval(scores, resamples=2_000), truth) <= 0.98


@pytest.mark.parametrize("name", ["normal", "log-normal"])
def test_at_five_runs_plain_percentiles_would_hold_it_too_seldom_and_expanded_ones_do_not(name):
    draw, truth = DISTRIBUTIONS[name]
    scores = draw(np.random.default_rng(5), (SIMULATIONS, 5))
    expanded, unexpanded = (interval(scores, confidence=c, resamples=2_000) for c in (0.95, plain(5, 4)))
    assert coverage(unexpanded, truth) < 0.92 <= coverage(expanded, truth) <= 0.98


def test_coverage_over_tasks_of_unequal_numbers_and_spread():
    rng = np.random.default_rng(0)
    scores = {n: scale * rng.standard_normal((SIMULATIONS, n)) + n for n, scale in ((5, 1.0), (10, 2.0), (30, 3.0))}
    assert 0.92 <= coverage(interval(scores, mean, resamples=1_000), 15.0) <= 0.98


@pytest.mark.parametrize("delta", [0.0, 1.0])
def test_coverage_of_a_probability_of_improvement(delta):
    x, y = np.random.default_rng(1).standard_normal((2, SIMULATIONS, 10))
    each = [
        probability_of_improvement(a + delta, b, resamples=300, seed=i)
        for i, (a, b) in enumerate(zip(x, y, strict=True))
    ]
    truth = stats.norm.cdf(delta / math.sqrt(2))
    assert 0.92 <= np.mean([e.low <= truth <= e.high for e in each]) <= 0.98


def test_an_interval_is_wider_for_more_confidence_and_the_same_for_the_same_seed():
    runs = np.random.default_rng(0).standard_normal(10)
    some, more = interval(runs, confidence=0.8), interval(runs)
    assert more.low < some.low < some.value < some.high < more.high
    assert interval(runs) == more and interval(runs, seed=1) != more


def test_tasks_are_drawn_apart():
    # Each task's runs agree: drawn across tasks the mean would move, drawn within them it cannot.
    found = interval({"a": [0.0] * 5, "b": [10.0] * 6}, mean)
    assert found == (5, 5, 5)


# Few runs, failed runs, wrong input


def test_fewer_than_five_runs_of_a_task_are_not_summarised():
    assert FEWEST_RUNS == 5
    assert interval([1.0, 2, 3, 4]) == (2.5, None, None)
    assert interval({"a": np.arange(20), "b": [1, 2, 3, 4]})[1:] == (None, None)
    assert probability_of_improvement(np.arange(20), [1, 2, 3, 4])[1:] == (None, None)
    assert performance_profile([1.0, 2, 3], [0.0]).low is None
    assert sample_efficiency(np.ones((3, 7))).high is None
    assert interval([1.0, 2, 3, 4, 5]).low is not None


def test_a_failed_run_counts_as_the_worst_of_its_task():
    nan = math.nan
    assert failed_as_worst([3.0, nan, 1, -math.inf]).tolist() == [3, 1, 1, 1]
    assert failed_as_worst([3.0, nan], worst=-5).tolist() == [3, -5]
    found = failed_as_worst({"a": [nan, 1.0], "b": [9.0, nan]})
    assert {task: s.tolist() for task, s in found.items()} == {"a": [1, 1], "b": [9, 9]}
    assert failed_as_worst(np.array([[0.0, 5], [1, nan]])).tolist() == [[0, 5], [1, 0]]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: interquartile_mean([1.0, math.nan]), r"a score is nan; .*failed_as_worst"),
        (lambda: mean({"Ant": [math.inf]}), r"a score of Ant is inf"),
        (lambda: interval([1.0, 2, 3, 4, -math.inf]), r"a score is -inf"),
        (lambda: probability_of_improvement([math.nan], [1.0]), "is nan"),
        (lambda: sample_efficiency([[1.0, math.nan]]), "is nan"),
        (lambda: performance_profile([math.nan], [0.0]), "is nan"),
        (lambda: median([]), "at least one run"),
        (lambda: optimality_gap({}), "at least one run"),
        (lambda: interval([1.0] * 9, confidence=95), r"confidence = 95 .*try 0\.95"),
        (lambda: probability_of_improvement({"a": [1.0]}, {"a": [1.0], "b": [1.0]}), "task b has scores on one side"),
        (lambda: probability_of_improvement([1.0], {"b": [1.0]}), "task b has scores on one side"),
        (lambda: normalized([1.0], 5, 5), "5 is not above the random one, 5"),
        (lambda: normalized({"a": [1.0]}, {"a": 0}, {}), "task a has no random and reference return"),
        (lambda: failed_as_worst([math.nan]), "every run diverged"),
        (lambda: failed_as_worst([math.nan, -3], worst=0), "a run scored -3, below worst = 0"),
    ],
)
def test_what_cannot_be_summarised_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
