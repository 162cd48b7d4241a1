"""Whether the evidence sets the best configuration apart from the others."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from jaxrl.reports.sweep.ranking import Configuration

LEVEL = 0.05


class Separation(NamedTuple):
    """apart: those that the best is set apart from. level: what each p has to be below. seeds: how many of each would
    do, if all of the best's scored higher. able: whether there are so many."""

    apart: list[Configuration]
    together: list[Configuration]
    level: float
    seeds: int
    able: bool


def separated(compared: Sequence[Configuration]) -> Separation:
    """Compare the best, which is the first, with each of the others.

    Another one is set apart where a one-sided Mann-Whitney U test of the seeds' last scores gives p < 0.05 / (k - 1),
    k configurations being compared. The one that is truly best, whichever it is, would be set apart only if some other
    beat it by that much, which by Bonferroni's bound over those k - 1 happens in at most 5 % of sweeps: so with 95 %
    confidence it is among the best and those not set apart, although the best was chosen by the same scores (the
    confidence set of multiple comparisons with the best, Hsu 1996; by ranks, and more cautious). Holm's steps would
    gain power only by giving that up: their later ones test at up to 0.05 what was chosen as the largest of k.
    """
    best, *others = compared
    level = LEVEL / max(1, len(others))
    p = [_p(best.scores, other.scores) for other in others]
    apart = [other for other, value in zip(others, p, strict=True) if value < level]
    together = [other for other, value in zip(others, p, strict=True) if value >= level]
    seeds = next(n for n in range(2, 99) if 1 / math.comb(2 * n, n) < level)
    return Separation(apart, together, level, seeds, min(len(c.scores) for c in compared) >= seeds)


def _p(x: np.ndarray, y: np.ndarray) -> float:
    """That x is not above y; no less than the share of all ways to deal the scores that sets them apart entirely, which
    the approximation for ties can fall short of."""
    least = 1 / math.comb(len(x) + len(y), len(x))
    return max(least, float(scipy.stats.mannwhitneyu(x, y, alternative="greater").pvalue))
