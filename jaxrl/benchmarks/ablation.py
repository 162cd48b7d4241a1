"""Was a choice worth it? Each field of `jaxrl.ops.platform.Tuning` against its alternatives, one at a time.

The default, the alternative and the default again take turns, round by round. The ratio is of times within a round,
alternative over default: above 1 the default is the faster. The repeat of the default says how much of that is noise:
a ratio that is no further from 1 than the repeat's is void.
"""

from collections.abc import Sequence
from typing import Any

import jax

from jaxrl.benchmarks import arms
from jaxrl.benchmarks.throughput import DoesNotFit, Plan, about, compiled, endless, fits
from jaxrl.benchmarks.timing import reason, repeats, spread, timed
from jaxrl.ops.platform import tuned, tuning
from jaxrl.types import InputError

# A new field of Tuning that control has needs a line here: what it may be. What is chosen now is left out as it is met.
CHOICES = {
    "shuffle": ("packed", "permutation"),
    "next_values": ("truncated", "all"),
    "micro_batch_rows": (2048, None),
    "agents_in_turns": (True, False),
    "convolution": ("patches", "native"),
}


def ablate(config: Any, agents: int = 1, plan: Plan = Plan(), fields: Sequence[str] = tuple(CHOICES)) -> list[dict]:
    """A row for each alternative of each field: the ratio of training times, its spread, the repeat's, and the verdict.

    Raises InputError for a field that has no choice.
    """
    plan.check()
    wrong = [name for name in fields if name not in CHOICES]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no choice of tuning; those are {', '.join(CHOICES)}")
    config, chosen = endless(config), tuning()
    others = [(name, value) for name in fields for value in CHOICES[name] if value != getattr(chosen, name)]
    return [_against(config, agents, plan, name, value, getattr(chosen, name)) for name, value in others]


def _against(config: Any, agents: int, plan: Plan, name: str, value: Any, default: Any) -> dict:
    row = {**about(config, agents), "field": name, "default": default, "alternative": value}
    try:
        if text(config, agents) == text(config, agents, **{name: value}):
            return {**row, "verdict": "same program"}
        times = _times(config, agents, plan, {name: value})
    except (jax.errors.JaxRuntimeError, MemoryError, DoesNotFit) as error:
        return {**row, "verdict": "left out", "left_out": reason(error)}
    return {**row, **compared(*times)}


def text(config: Any, agents: int, **changes: Any) -> str:
    """The training program under other choices, as it goes to the compiler."""
    with tuned(**changes):
        work, keys = arms.work("training"), jax.random.split(jax.random.key(0), agents)
        carry = jax.eval_shape(work.start, config, keys)
        return work.go_on.lower(config, carry, 1).as_text()


def _times(config: Any, agents: int, plan: Plan, changes: dict) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each round: of the default, the alternative, and the default again."""
    default = compiled("training", config, agents)
    with tuned(**changes):
        other = compiled("training", config, agents)
    fits(default, 0)
    fits(other, 2 * default.held)
    turns = [default, other, default]
    carries = [made.start(jax.random.key(0)) for made in turns]

    def go_on(i: int, updates: int) -> Any:
        carries[i] = turns[i].go_on(carries[i], updates)
        return carries[i]

    count = repeats(lambda n: go_on(0, n), plan.seconds)
    for i in (1, 2):
        timed(lambda i=i: go_on(i, count))  # warm
    seen = [[timed(lambda i=i: go_on(i, count)) for i in range(3)] for _ in range(plan.rounds)]
    first, second, third = zip(*seen, strict=True)
    return list(first), list(second), list(third)


def compared(default: Sequence[float], other: Sequence[float], again: Sequence[float]) -> dict:
    """Of the times of three arms, round by round: both ratios to the first, spread, and which is faster, if any."""
    ratio = spread([b / a for a, b in zip(default, other, strict=True)])
    repeat = spread([b / a for a, b in zip(default, again, strict=True)])
    void = abs(repeat.median - 1) >= abs(ratio.median - 1)
    verdict = "void" if void else "default is faster" if ratio.median > 1 else "alternative is faster"
    return {"ratio": ratio._asdict(), "repeat": repeat._asdict(), "verdict": verdict}
