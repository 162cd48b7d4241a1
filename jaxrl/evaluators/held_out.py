"""The loss on rows that are not trained on, before, along and after."""

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, Int

from jaxrl.data.arrays import Data, in_order
from jaxrl.ops import metrics as m
from jaxrl.types import Algorithm, Evaluator, Key, Learner, Line, Metrics, Panel

_NAMES = {
    # prefix of figures and metrics: how the rows that are measured are called
    "eval_": "held-out rows",
    "first_rows_": "first training rows (none are held out)",
}


def told(measured: Metrics) -> dict[str, float]:
    """Every metric as the number that it is."""
    return {name: float(value) for name, value in m.values(measured).items()}


def held_out_rows(
    algorithm: Algorithm,
    data: Data,
    batch_size: int,
    check_start: Callable[[dict[str, float]], None] | None = None,
    tell: Callable[[Metrics], dict[str, float]] = told,
    keep: Callable[[Metrics], list[dict[str, float]]] | None = None,
) -> Evaluator:
    """`algorithm.measure` over all of `data.held_out`, as eval_*. Where no rows are held out, over the first of the
    training rows, and the figures are called what they are: first_rows_*.

    check_start, keep: as in Evaluator. tell(metrics over all rows) -> figures.
    """
    prefix = "eval_" if data.held_out else "first_rows_"
    few = jax.tree.map(lambda x: x[:batch_size], data.train[:1])
    buckets = in_order(data.held_out or few, batch_size)

    def measure(key: Key, learner: Learner, case: Int[Array, ""]) -> Metrics:
        # The same draw at every evaluation, lest a figure move where the learner did not.
        found = [jax.lax.map(partial(algorithm.measure, jax.random.key(0), learner), bucket) for bucket in buckets]
        return jax.tree.map(lambda *x: sum(x), *map(m.total, found))

    def read(case: str, measured: Metrics) -> dict[str, float]:
        own = "" if data.held_out else prefix
        return {f"{own}{name}": value for name, value in tell(measured).items()}

    def check(figures: dict[str, float]) -> None:
        check_start({name.removeprefix("first_rows_"): value for name, value in figures.items()})

    loss = "loss" if data.held_out else f"{prefix}loss"
    return Evaluator(
        name="held_out",
        measure=measure,
        read=read,
        prefix="eval_" if data.held_out else "",
        at_start=True,
        before=(loss,),
        score=lambda found: -found[loss],
        check_start=check if check_start else None,
        keep=keep,
        panels=_panels(prefix),
        references={f"{_NAMES[prefix]}, before": f"{loss}_before"},
    )


def _panels(prefix: str) -> tuple[Panel, ...]:
    what = _NAMES[prefix]
    rewards = [Line(f"rewards/{side}", side) for side in ("chosen", "rejected")]
    rewards += [Line(f"{prefix}rewards/{side}", f"{side}, {what}") for side in ("chosen", "rejected")]
    return (
        Panel("loss", (Line("loss", "training batches"), Line(f"{prefix}loss", what))),
        Panel("implicit reward", tuple(rewards)),
        Panel("gradient norm", (Line("grad_norm", "before clipping"),)),
    )
