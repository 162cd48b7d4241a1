"""How a sweep searches: which configurations it tries, and what becomes of them while they learn."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.sweeps.plan import Member
from jaxrl.sweeps.space import Swept, draw, grid
from jaxrl.training.sweeps import exploit_and_explore
from jaxrl.types import InputError, TrainState

Method = Literal["grid", "random", "halving", "pbt", "optuna", "ray"]
METHODS = get_args(Method)
ASKED = ("optuna", "ray")  # for a few at a time, and told how they did
Point = Mapping[str, Any]


class Standing(NamedTuple):
    """Members in the middle of learning: their configs and states, stacked, and the score of each; NaN is the worst."""

    members: tuple[Member, ...]
    configs: Any
    states: TrainState
    scores: np.ndarray


class Search(NamedTuple):
    """ask(told) -> the next points, none when it is over; told: for each point so far the scores of its seeds.
    marks(updates) -> the updates, of so many, after which `act` has its say; it needs scores there.
    act(key, standing) -> those that go on, and with what.
    sizes(members) -> how many are left after each mark. moves: whether `act` changes what the fields are.
    seeds_apart: whether each configuration has a seed of its own, counted on from the one that is given.
    check(configs): raises InputError for so many configurations in each program.
    """

    ask: Callable[[Sequence[Sequence[float]]], list[Point]]
    marks: Callable[[int], list[int]] = lambda updates: []
    act: Callable[[jax.Array, Standing], Standing] | None = None
    sizes: Callable[[int], list[int]] = lambda members: []
    moves: bool = False
    seeds_apart: bool = False
    check: Callable[[Sequence[int]], None] = lambda configs: None


def once(points: list[Point]) -> Callable[[Sequence[Sequence[float]]], list[Point]]:
    """All points at first, and none after."""
    return lambda told: [] if told else points


def search(plan: Any, fields: Sequence[Swept], num_seeds: int) -> Search:
    """The search that a Plan asks for. Raises InputError for what its method cannot do."""
    method, samples = plan.method, plan.samples
    if samples is not None and samples < 1:
        raise InputError(f"samples = {samples} must be at least 1")
    if method == "grid" and samples is not None:
        raise InputError(f"samples = {samples} is of searches that draw; leave it out, or ask for --method random")
    if method in ("random", *ASKED) and samples is None:
        raise InputError(f"method = {method!r} needs a number of configurations to try: --samples 32")
    if method != "grid" and not fields:
        raise InputError(f"method = {method!r} needs something to search: --sweep.learning-rate log:1e-4:1e-2")
    counted = [one for one in fields if one.is_range and one.values]
    if samples is not None and counted:
        field, spec = counted[0].field, counted[0].spec
        raise InputError(
            f"sweep.{field} = {spec}: samples are drawn from the whole range, and no count is read; write "
            f"{spec.rpartition(':')[0]}"
        )
    if method == "optuna":
        from jaxrl.sweeps.asking import optuna_search

        return optuna_search(fields, samples, plan.at_once, plan.search_seed)
    if method == "ray":
        from jaxrl.sweeps.asking import ray_search

        return ray_search(plan.searcher, fields, samples, plan.at_once, plan.search_seed)
    points = draw(fields, samples, plan.search_seed) if samples is not None else grid(fields)
    if method == "halving":
        return _halving(points, num_seeds, plan.eta)
    if method == "pbt":
        return _population(points, fields, num_seeds, plan.intervals)
    return Search(once(points))


def _halving(points: list[Point], num_seeds: int, eta: int) -> Search:
    """Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943): at each rung one configuration in `eta` goes
    on,
    the best by the mean score of its seeds; rungs lie where that makes each about as dear."""
    if eta < 2:
        raise InputError(f"eta = {eta} must be at least 2: one configuration in so many goes on at each rung")
    if len(points) < eta:
        raise InputError(f"{len(points)} configurations cannot be halved by eta = {eta}; try --samples {eta**2}")
    rungs = math.floor(math.log(len(points), eta) + 1e-9)

    def marks(updates: int) -> list[int]:
        found = [round(updates / eta**k) for k in range(rungs, 0, -1)]
        if found[0] < 1 or len(set(found)) < len(found):
            raise InputError(f"{updates} updates are too few for {rungs} rungs; make the run longer, or eta larger")
        return found

    def act(key: jax.Array, standing: Standing) -> Standing:
        """Within the group that learns together: what differs by static fields is not compared before the end."""
        by_config: dict[int, list[int]] = {}
        for row, member in enumerate(standing.members):
            by_config.setdefault(member.index, []).append(row)
        known = np.where(np.isfinite(standing.scores), standing.scores, -np.inf)
        ranked = sorted(by_config.values(), key=lambda rows: -known[rows].mean())
        rows = sorted(row for rows in ranked[: math.ceil(len(ranked) / eta)] for row in rows)
        return kept(standing, rows)

    def sizes(count: int) -> list[int]:
        configs, left = math.ceil(count / num_seeds), []
        for _ in range(rungs):
            configs = math.ceil(configs / eta)
            left.append(configs * num_seeds)
        return left

    def check(configs: Sequence[int]) -> None:
        if max(configs, default=2) < 2:
            raise InputError(
                "method = 'halving' compares configurations within one program, and here each is a program of its own; "
                "sweep a field that is a float too, or ask for --method optuna or random"
            )

    return Search(once(points), marks, act, sizes, check=check)


def kept(standing: Standing, rows: Sequence[int]) -> Standing:
    """Those members alone."""
    index = np.asarray(rows)
    configs, states = jax.tree.map(lambda x: x[index], (standing.configs, standing.states))
    return Standing(tuple(standing.members[row] for row in rows), configs, states, standing.scores[index])


def _population(points: list[Point], fields: Sequence[Swept], num_seeds: int, intervals: int) -> Search:
    for one in fields:
        if not one.is_range or one.whole:
            raise InputError(
                f"sweep.{one.field} = {one.spec}: pbt moves settings along ranges of numbers that are not whole; give "
                "log:LOW:HIGH or lin:LOW:HIGH"
            )
    if num_seeds > 1:
        raise InputError("seeds: members of pbt learn from each other, so each has a seed of its own; give the first")
    if len(points) < 4:
        raise InputError(f"{len(points)} members are too few for pbt, whose worst quarter learns from the best; try 16")
    if intervals < 2:
        raise InputError(f"intervals = {intervals} must be at least 2")

    def marks(updates: int) -> list[int]:
        if updates < intervals:
            raise InputError(f"{updates} updates are fewer than intervals = {intervals}")
        return [round(i * updates / intervals) for i in range(1, intervals)]

    def act(key: jax.Array, standing: Standing) -> Standing:
        bounds = [_as_config(standing.configs, fields, value) for value in ("low", "high", "log")]
        count = len(standing.members)  # what fills the program up is not of the population
        own = jax.tree.map(lambda x: x[:count], (standing.configs, standing.states))
        found = jax.jit(exploit_and_explore)(key, jnp.asarray(standing.scores, jnp.float32), *own, *bounds)
        return standing._replace(configs=found.configs, states=found.states)

    return Search(once(points), marks, act, moves=True, seeds_apart=True)


def _as_config(configs: Any, fields: Sequence[Swept], what: str) -> Any:
    """A config whose every float is that of its field's range; 0 where it is not swept."""

    def value(path: Any, leaf: jax.Array) -> jax.Array:
        own = [float(getattr(one, what)) for one in fields if is_field(path, one.field)]
        return jnp.float32(own[0] if own else 0.0)

    return jax.tree_util.tree_map_with_path(value, configs)


def is_field(path: Any, field: str) -> bool:
    """Whether a leaf of a config lies at that field: by its whole path, or its last name where it is a bare one."""
    names = [key.name for key in path]
    return (".".join(names) if "." in field else names[-1]) == field
