"""What the process of every arm does: prepare once, then answer. Standard library only; it runs under any arm's Python.

A question in JSON and the number of a file descriptor on the command line. There it writes one JSON line when prepared;
then, for each number read from stdin, one with what that call gave, the seconds that passed and the CPU seconds of this
process.
"""

import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS")


def serve(prepare: Callable[[dict], Callable[[int], dict]]) -> None:
    """Answer until stdin ends. prepare(question) -> call, and call(number) -> figures, once all its work is done."""
    answers = os.fdopen(int(sys.argv[2]), "w")  # not stdout, where libraries print
    began = time.perf_counter()
    call = prepare(json.loads(sys.argv[1]))
    ready = {"prepare_seconds": time.perf_counter() - began, "about": about()}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        figures = call(int(line))
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({**spent, **figures}), file=answers, flush=True)


def about() -> dict:
    """Versions of every package of this environment, its cores and its threads."""
    threads = {name: os.environ[name] for name in _THREADS if name in os.environ}
    if "torch" in sys.modules:
        threads["torch"] = sys.modules["torch"].get_num_threads()
    packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    packages = dict(sorted(packages.items(), key=lambda item: item[0].lower()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"python": platform.python_version(), "cores": cores, "threads": threads, "packages": packages}
