"""Being asked to stop: SIGTERM, as schedulers send it before they take a machine away, and SIGINT, which is Ctrl-C."""

import signal
import sys
import threading
from typing import Any


class Stopped(SystemExit):
    """A run was asked to stop, and did: everything is saved. Left to itself it ends the process with status 0, and with
    its sentence on stderr, which Python would say only with status 1.
    """

    def __init__(self, sentence: str):
        super().__init__(0)
        self.sentence = sentence
        sys.stderr.write(f"{sentence}\n")

    def __str__(self) -> str:
        return self.sentence


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

    def _heard(self, number: int, frame: Any) -> None:
        self.asked = signal.Signals(number).name
        self.__exit__()
        sys.stderr.write(f"{self.asked}: saving, and stopping then; once more stops at once\n")
