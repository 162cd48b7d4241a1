"""Which configurations the best is set apart from, and how often that is wrong."""

import numpy as np

from jaxrl.reports.sweep.ranking import Configuration
from jaxrl.reports.sweep.separation import separated


def configurations(scores):
    """Best first."""
    found = [
        Configuration(i, {}, [], np.asarray(s, float), 1.0, float(np.mean(s)), None, None) for i, s in enumerate(scores)
    ]
    return sorted(found, key=lambda c: -c.iqm)


def test_by_hand():
    # 5 and 5 seeds, all of the best's higher: p = 1 / C(10, 5) = 1 / 252 = 0.004; of three, each must be below 0.05 / 2
    best = [11, 12, 13, 14, 15]
    found = separated(configurations([best, [1, 2, 3, 4, 5], [10, 11.5, 12.5, 13.5, 14.5]]))
    assert [c.index for c in found.apart] == [1] and [c.index for c in found.together] == [2] and found.level == 0.025


def test_scores_that_all_agree_are_not_set_apart():
    found = separated(configurations([[500] * 16] * 3))
    assert not found.apart and len(found.together) == 2


def test_too_few_seeds_set_nothing_apart_and_it_is_said_how_many_would():
    # three seeds: 1 / C(6, 3) = 0.05 is not below 0.05 / 1, though the approximation for ties says 0.023
    found = separated(configurations([[500] * 3, [9] * 3]))
    assert not found.apart and not found.able and found.seeds == 4  # 1 / C(8, 4) = 0.014
    assert separated(configurations([[500] * 4, [9] * 4])).apart
    # of 128 configurations 0.05 / 127 = 0.00039: 1 / C(12, 6) = 0.0011, 1 / C(14, 7) = 0.00029
    assert separated(configurations([[500] * 5] + [[9] * 5] * 127)).seeds == 7


def test_the_truly_best_is_among_those_not_set_apart_in_95_of_100_sweeps():
    rng = np.random.default_rng(0)
    lost, sweeps = 0, 300
    for _ in range(sweeps):
        scores = rng.normal(size=(8, 8))
        scores[0] += 0.01  # truly best, by a hair, so that chance decides which looks best
        lost += any(c.index == 0 for c in separated(configurations(scores)).apart)
    assert lost / sweeps <= 0.05


def test_what_is_far_worse_is_set_apart():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(16, 16)) - 3 * (np.arange(16) > 0)[:, None]
    assert len(separated(configurations(scores)).apart) == 15
