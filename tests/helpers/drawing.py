"""What a sampler should leave in, and whether its draws are likely."""

import numpy as np
from scipy import stats


def sorted_out(logits, top_k=0, top_p=1.0, min_p=0.0):
    """Which tokens stay, by sorting, in float64."""

    def probability(stay):
        p = np.where(stay, np.exp(logits - logits[stay].max(), dtype=np.float64), 0)
        return p / p.sum()

    stay = np.ones(len(logits), bool)
    if 0 < top_k < len(logits):
        stay &= logits >= np.sort(logits)[-top_k]
    if top_p < 1:
        p = probability(stay)
        ordered = np.sort(p)[::-1]
        stay &= p >= ordered[np.searchsorted(np.cumsum(ordered), top_p)]
    if min_p > 0:
        p = probability(stay)
        stay &= p >= min_p * p.max()
    return stay


def frequencies_fit(drawn, p):
    """Whether so many draws of each index are likely: p-value of χ², rare indices taken together."""
    assert drawn.min() >= 0 and drawn.max() < len(p)
    counts, expected = np.bincount(drawn, minlength=len(p)), p * len(drawn)
    assert (counts[p == 0] == 0).all(), "a token of probability 0 was drawn"
    common = expected >= 10
    rare = (counts[~common].sum(), expected[~common].sum())
    observed, wanted = np.append(counts[common], rare[0]), np.append(expected[common], rare[1])
    if rare[1] < 10:  # into the largest bin
        observed, wanted = observed[:-1], wanted[:-1]
        observed[wanted.argmax()] += rare[0]
        wanted[wanted.argmax()] += rare[1]
    return len(observed) == 1 or stats.chisquare(observed, wanted).pvalue > 1e-3


def softmax(logits):
    p = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    return p / p.sum()
