"""Optuna's samplers, asked for a few configurations at a time, which learn together as one batch.

The study lives in memory: a resume asks a new one of the same seed the same questions, and tells it what was found.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl.sweeps.searches import Point, Search
from jaxrl.sweeps.space import Swept, shown
from jaxrl.types import InputError


def optuna_search(fields: Sequence[Swept], samples: int, at_once: int, seed: int) -> Search:
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Akiba et al. 2019), which takes what is still learning
    for bad (constant liar), so that those asked for together lie apart. A configuration's value is the mean score of
    its seeds, and worse than all others where one of them diverged. Raises InputError where Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError("method = 'optuna' needs the package optuna: python -m pip install \"jaxrl[tune]\"") from None
    if at_once < 1:
        raise InputError(f"at_once = {at_once} must be at least 1")

    def ask(told: Sequence[Sequence[float]]) -> list[Point]:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study, asked = optuna.create_study(direction="maximize", sampler=sampler), 0
        while asked < samples:
            trials = [study.ask() for _ in range(min(at_once, samples - asked))]
            points = [_point(trial, fields) for trial in trials]
            if asked == len(told):
                return points
            for trial, scores in zip(trials, told[asked : asked + len(trials)], strict=True):
                # Not as a trial that failed: of those the sampler learns nothing, and asks for more of the kind.
                study.tell(trial, float(np.mean(scores)) if np.isfinite(scores).all() else -math.inf)
            asked += len(trials)
        return []

    return Search(ask)


def _point(trial: Any, fields: Sequence[Swept]) -> Point:
    return {one.field: _suggested(trial, one) for one in fields}


def _suggested(trial: Any, one: Swept) -> Any:
    if one.whole and one.is_range:
        return trial.suggest_int(one.field, round(one.low), round(one.high), log=one.log)
    if one.is_range:
        return float(f"{trial.suggest_float(one.field, one.low, one.high, log=one.log):.6g}")
    # By its text: Optuna's categories are plain values, and a list of widths is none.
    texts = {shown(value): value for value in one.values}
    return texts[trial.suggest_categorical(one.field, list(texts))]
