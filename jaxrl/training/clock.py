"""Time, and how often XLA compiled."""

import contextlib
import time
from typing import Any

import jax


class Clock:
    """Seconds and steps of training, over all sessions of a run; seconds of compiling, and how often, in this one.

    To be used in a `with`: it listens to JAX until it is left.
    """

    def __init__(self):
        self.train, self.compile = 0.0, 0.0
        self.before, self.steps, self.compilations = 0, 0, 0
        self._ended = float("-inf")

    def __enter__(self) -> "Clock":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_: Any) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def go_on(self, steps: int, seconds: float) -> None:
        """Count what earlier sessions have trained."""
        self.before, self.train = steps, seconds

    def _heard(self, event: str, *_: Any, **__: Any) -> None:
        self.compilations += event == "/jax/core/compile/backend_compile_duration"

    def chunks(self, began: float, steps: list[int]) -> list[dict[str, float]]:
        """Count stretches of training, of so many steps each, that were started at `began` and have ended by now; what
        to log of each, as if they had been equally fast. Of what was started before the last had ended, no time counts
        twice.
        """
        now = time.perf_counter()
        seconds = now - max(began, self._ended)
        self._ended, rate, told = now, sum(steps) / seconds, []
        self.steps += sum(steps)
        for count in steps:
            self.train += seconds * count / max(1, sum(steps))
            known = {"num_compilations": self.compilations}
            told.append({"train_seconds": self.train, "steps_per_second": rate, **known})
        return told

    @contextlib.contextmanager
    def compiling(self):
        """Time spent within counts as compiling."""
        began = time.perf_counter()
        yield
        self.compile += time.perf_counter() - began

    def figures(self) -> dict[str, float]:
        """Training of the run as a whole, without what a resume did again; compiling of this session."""
        rate = (self.before + self.steps) / self.train if self.train else 0.0
        seconds = {"train_seconds": round(self.train, 2), "compile_seconds": round(self.compile, 2)}
        rate = round(rate, 0 if rate >= 100 else 2)
        return {**seconds, "steps_per_second": rate, "num_compilations": self.compilations}
