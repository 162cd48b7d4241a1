"""What the figures of a comparison mean: ratios of rounds, when they say nothing, and intervals of means."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t


class Ratio(NamedTuple):
    """How many times as fast as another arm, over rounds.

    median, low, high: of the rounds' ratios. repeat: median of how far our two runs of a round are apart, as a factor
    of at least 1. void: rounds that say nothing, since ours differ by more among themselves than from the other's.
    """

    median: float
    low: float
    high: float
    repeat: float
    void: int
    rounds: int

    @property
    def says(self) -> str:
        """faster, slower, or void: no difference beyond what a repeat shows, over all rounds or in half of them."""
        if factor(self.median) <= self.repeat or 2 * self.void >= self.rounds:
            return "void"
        return "faster" if self.median > 1 else "slower"


def factor(ratio: float) -> float:
    """How far from 1, whichever way: 0.5 and 2 are both a factor of 2."""
    return max(ratio, 1 / ratio)


def paired(ours: Sequence[tuple[float, float]], theirs: Sequence[float]) -> Ratio:
    """Ratio of rates. Each round has ours twice, before and after the others, and theirs once between.

    Ours of a round is their geometric mean, so that a machine that slows down steadily favours nobody.
    """
    repeats = [factor(after / before) for before, after in ours]
    ratios = [math.sqrt(before * after) / other for (before, after), other in zip(ours, theirs, strict=True)]
    void = sum(factor(ratio) <= repeat for ratio, repeat in zip(ratios, repeats, strict=True))
    return Ratio(float(np.median(ratios)), min(ratios), max(ratios), float(np.median(repeats)), void, len(ratios))


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        return self.low <= other.high and other.low <= self.high


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of independent runs. One run alone bounds nothing."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = float(t.ppf((1 + level) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def median_or_unsolved(seconds: Sequence[float | None]) -> float | None:
    """The median where a run that was not solved (None) counts as longer than all; None if the median is such."""
    middle = float(np.median([math.inf if x is None else x for x in seconds]))
    return middle if math.isfinite(middle) else None
