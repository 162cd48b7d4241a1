"""Being asked to stop: SIGTERM, as schedulers send it before they take a machine away, and SIGINT, which is Ctrl-C."""

import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.training.processes import agreed

_LOOK = 0.1  # seconds between two looks whether the device has done its work, at most


class Stopped(SystemExit):
    """A run was asked to stop, and did: everything is saved. Left to itself it ends the process with status 0, and with
    its sentence on stderr, which Python would say only with status 1. busy: the device still works on what nobody waits
    for, and Python's own way of ending would.
    """

    def __init__(self, sentence: str, busy: bool = False):
        super().__init__(0)
        self.sentence, self.busy = sentence, busy
        sys.stderr.write(f"{sentence}\n")

    def __str__(self) -> str:
        return self.sentence


class Interrupted(Exception):
    """Something was left where it stood, because the run is asked to stop."""


class Partial(NamedTuple):
    """The row of metrics that a run was stopped in. told: of its updates so far. due: these are all, and its evaluation
    is still to be made.
    """

    told: np.ndarray
    due: bool

    def plain(self) -> dict[str, Any]:
        """For JSON, bit for bit."""
        return {"told": self.told.tobytes().hex(), "dtype": self.told.dtype.name, "due": self.due}

    @classmethod
    def of(cls, kept: dict[str, Any] | None) -> "Partial | None":
        """The inverse of `plain`."""
        return None if kept is None else cls(np.frombuffer(bytes.fromhex(kept["told"]), kept["dtype"]), kept["due"])


class Interrupts:
    """Within a `with`, the first signal is only noted, in `asked`, and the second one acts as it always does.

    Signals reach the main thread alone: elsewhere nothing is noted, and nothing changed.
    """

    def __init__(self):
        self.asked: str | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._heard) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def heed(self) -> None:
        """Raises Interrupted where somebody has asked to stop. One of several processes goes on to where all ask."""
        if self.asked and jax.process_count() == 1:
            raise Interrupted

    def agree(self, piece: int) -> int:
        """Whether any process was asked to stop is known to all then, and the largest piece that any proposes."""
        asked, piece = agreed(bool(self.asked), piece)
        self.asked = self.asked or ("a signal to another process" if asked else None)
        return piece

    def _heard(self, number: int, frame: Any) -> None:
        self.asked = signal.Signals(number).name
        self.__exit__()
        sys.stderr.write(f"{self.asked}: saving, and stopping then; once more stops at once\n")


def awaited(found: Any, pause: Callable[[], None]) -> Any:
    """What the device is at work on, once it is there. pause: called while it is not, and may raise."""
    began = time.perf_counter()
    while not _ready(found):
        pause()
        time.sleep(min(_LOOK, 1e-4 + (time.perf_counter() - began) / 50))  # 2 % of a wait is lost, at most
    return found


def _ready(found: Any) -> bool:
    return all(x.is_ready() for x in jax.tree.leaves(found))
