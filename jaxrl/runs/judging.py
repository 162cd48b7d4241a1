"""Asking a program's evaluators: before training, along the way, and at the end."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxrl.runs.logs import Logger
from jaxrl.runs.preemption import Interrupts, awaited
from jaxrl.training.clock import Clock
from jaxrl.training.compiled import Asked, eval_key
from jaxrl.types import Evaluator, Key, TrainState


class Judged(NamedTuple):
    """row: figures by their names in the rows of metrics. score: of the learner, higher is better; None if no evaluator
    gives one.
    """

    row: dict[str, float]
    score: float | None


@dataclasses.dataclass
class Judge:
    """Evaluates the states of one run. All raise Interrupted as soon as the run is asked to stop."""

    evaluators: Sequence[Asked]
    seed: int
    clock: Clock
    logger: Logger
    interrupts: Interrupts
    probe: Callable[[TrainState, Key], dict[str, float]] | None
    found: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)  # of the last evaluation, by evaluator

    def before(self, state: TrainState) -> dict[str, float]:
        """The row before the first update. Raises InputError where what is found then cannot be."""
        judged = self._ask([a for a in self.evaluators if a.evaluator.at_start], state)
        for e, figures in judged:
            if e.check_start is not None:
                e.check_start(figures)
        return _row(judged)

    def along(self, state: TrainState) -> Judged:
        """Figures of a state, and its score."""
        judged = self._ask(self.evaluators, state)
        self.found = {e.name: figures for e, figures in judged}
        more = {}
        if self.probe is not None:
            key = eval_key(self.seed, int(state.num_steps))
            more = {f"eval_{name}": float(value) for name, value in self.probe(state, key).items()}
        scores = [e.score(figures) for e, figures in judged if e.score is not None]
        return Judged(_row(judged) | more, scores[0] if scores and math.isfinite(scores[0]) else None)

    def final(self, state: TrainState, first: dict[str, float]) -> dict[str, Any]:
        """The figures of a run that has ended; `first`: its first row."""
        found = {}
        for asked in self.evaluators:
            e = asked.evaluator
            found |= self.found.get(e.name) or self._figures(asked, state, 0)
            for case in range(1, len(e.cases)):
                found |= self._figures(asked, state, case)
            found |= {f"{name}_before": first.get(f"{e.prefix}{name}") for name in e.before}
        return found

    def _ask(self, evaluators: Sequence[Asked], state: TrainState) -> list[tuple[Evaluator, dict[str, float]]]:
        measured = [(asked.evaluator, self._measured(asked, state, 0)) for asked in evaluators]
        for e, found in measured:  # kept only once all have been asked: who is interrupted asks again
            if e.keep is not None:
                self.logger.keep(e.name, int(state.num_steps), e.keep(found))
        return [(e, e.read(e.cases[0], found)) for e, found in measured]

    def _figures(self, asked: Asked, state: TrainState, case: int) -> dict[str, float]:
        return asked.evaluator.read(asked.evaluator.cases[case], self._measured(asked, state, case))

    def _measured(self, asked: Asked, state: TrainState, case: int) -> Any:
        with self.clock.compiling():
            ask = asked.compiled()
        return awaited(ask(eval_key(self.seed, int(state.num_steps)), state.learner, case), self.interrupts.heed)


def _row(judged: list[tuple[Evaluator, dict[str, float]]]) -> dict[str, float]:
    return {f"{e.prefix}{name}": value for e, figures in judged for name, value in figures.items()}
