"""Searches that are asked for a few configurations at a time, which learn together as one batch, and told how they did:
Optuna's samplers, and the search algorithms of Ray Tune.

What they know lives in memory: a resume asks a new one of the same seed the same questions, and tells it what was
found.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrl.ops.platform import installing
from jaxrl.sweeps.searches import Point, Search
from jaxrl.sweeps.space import Swept, shown
from jaxrl.types import InputError


class _Asked(NamedTuple):
    """ask() -> (what names a trial, its values by field); None where no more are asked for before some are told.
    tell(what names it, its value)."""

    ask: Callable[[], tuple[Any, dict[str, Any]] | None]
    tell: Callable[[Any, float], None]


def optuna_search(fields: Sequence[Swept], samples: int, at_once: int, seed: int) -> Search:
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Akiba et al. 2019), which takes what is still learning
    for bad (constant liar), so that those asked for together lie apart. A configuration's value is the mean score of
    its seeds, and worse than all others where one of them diverged. Raises InputError where Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise InputError(f"method = 'optuna' needs the package optuna; {installing('tune')} adds it") from None

    def suggested(trial: Any, one: Swept) -> Any:
        if one.whole and one.is_range:
            return trial.suggest_int(one.field, round(one.low), round(one.high), log=one.log)
        if one.is_range:
            return trial.suggest_float(one.field, one.low, one.high, log=one.log)
        return trial.suggest_categorical(one.field, list(_texts(one)))

    def begin() -> _Asked:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)

        def ask() -> tuple[Any, dict[str, Any]]:
            trial = study.ask()
            return trial, {one.field: suggested(trial, one) for one in fields}

        return _Asked(ask, study.tell)

    return _search(begin, fields, samples, at_once)


def ray_search(name: str, fields: Sequence[Swept], samples: int, at_once: int, seed: int) -> Search:
    """The search algorithm of Ray Tune that has this name there (`ray.tune.search.create_searcher`; Liaw et al. 2018,
    arXiv 1807.05118), valued as in `optuna_search`. Raises InputError where Ray Tune, or what the algorithm needs, is
    not installed."""
    try:
        from ray import tune
        from ray.tune.search import SEARCH_ALG_IMPORT, Searcher, create_searcher
    except ImportError:
        raise InputError(f"method = 'ray' needs Ray Tune; {installing('ray')} adds it") from None
    # Those that draw ask for nothing to be told, and that of BOHB works by its own scheduler alone.
    known = sorted(set(SEARCH_ALG_IMPORT) - {"random", "variant_generator", "bohb"})
    if name not in known:
        raise InputError(f"searcher = {name!r} is not one of Ray Tune's: {', '.join(known)}")

    def domain(one: Swept) -> Any:
        if one.whole and one.is_range:
            return (tune.lograndint if one.log else tune.randint)(round(one.low), round(one.high) + 1)
        if one.is_range:
            return (tune.loguniform if one.log else tune.uniform)(one.low, one.high)
        return tune.choice(list(_texts(one)))

    def begin() -> _Asked:
        own = {"seed": seed, "random_state_seed": seed, "random_seed": seed}  # whichever of them it takes
        space = {one.field: domain(one) for one in fields}
        try:
            made, numbers = create_searcher(name, **own), itertools.count()
            made.set_search_properties("score", "max", space)
        except (ImportError, AssertionError) as error:  # which Ray raises where a package is missing
            raise InputError(f"searcher = {name!r} cannot be used: {' '.join(str(error).split())}") from None

        def ask() -> tuple[str, dict[str, Any]] | None:
            trial = f"{next(numbers):05d}"
            found = made.suggest(trial)
            return (trial, found) if found and found != Searcher.FINISHED else None

        def tell(trial: str, value: float) -> None:
            made.on_trial_complete(trial, {"score": value, "training_iteration": 1})

        return _Asked(ask, tell)

    begin()  # what cannot be is said now
    return _search(begin, fields, samples, at_once)


def _search(begin: Callable[[], _Asked], fields: Sequence[Swept], samples: int, at_once: int) -> Search:
    if at_once < 1:
        raise InputError(f"at_once = {at_once} must be at least 1")

    def ask(told: Sequence[Sequence[float]]) -> list[Point]:
        searcher, asked = begin(), 0
        while asked < samples:
            answers = [searcher.ask() for _ in range(min(at_once, samples - asked))]
            trials = [answer for answer in answers if answer is not None]
            if asked == len(told) or not trials:
                return [_point(found, fields) for _, found in trials]
            for (trial, _), scores in zip(trials, told[asked : asked + len(trials)], strict=True):
                # Not as a trial that failed: of those the sampler learns nothing, and asks for more of the kind.
                searcher.tell(trial, float(np.mean(scores)) if np.isfinite(scores).all() else -math.inf)
            asked += len(trials)
        return []

    return Search(ask)


def _point(found: dict[str, Any], fields: Sequence[Swept]) -> Point:
    return {one.field: _value(one, found[one.field]) for one in fields}


def _value(one: Swept, found: Any) -> Any:
    if not one.is_range:
        return _texts(one)[found]
    return int(found) if one.whole else float(f"{found:.6g}")


def _texts(one: Swept) -> dict[str, Any]:
    """Its values by their texts: categories are plain values, and a list of widths is none."""
    return {shown(value): value for value in one.values}
