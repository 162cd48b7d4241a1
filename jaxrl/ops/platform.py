"""Choices that change how fast a program runs and not what it computes, by platform: all of them, in one place.

`tuned` takes one of them back, to measure what it is worth on another machine.
"""

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl.types import PyTree


class Tuning(NamedTuple):
    """What was chosen."""

    shuffle: str = "packed"
    """How minibatches are drawn: "packed" sorts random bits and row number in one 32-bit word, "permutation" is
    `jax.random.permutation`."""
    next_values: str = "truncated"
    """Where V(next_obs) is computed that V(obs) does not give: of the "truncated" steps, or of "all"."""
    micro_batch_rows: int | None = None
    """Rows of control whose gradient is taken at once where the config leaves it open; None takes a minibatch whole."""
    agents_in_turns: bool = False
    """Whether agents under `vmap` learn one after the other, each with a core's cache to itself."""
    convolution: str = "native"
    """How pictures are convolved: by XLA's "native" convolution, or as "patches" of them times a matrix."""
    remat: bool = False
    """Whether a language model's layers are recomputed in the backward pass where the config leaves it open."""
    halve_above: int | None = None
    """Batches of completions of more rows go on with half of them once the others have ended, and again with a quarter;
    None never halves."""
    plain_above: int | None = None
    """Lines of StableHLO beyond which `run` has a program compiled plainly; None leaves compiling to XLA."""


_CHOSEN = {
    # Activations of 2048 rows of two 64-wide layers stay in a core's cache; those of a language model's layers pass
    # through memory at a few GB/s, which takes about as long as computing them again.
    # Reading the weights of a small language model takes as long as multiplying them by some 16 rows.
    # XLA's convolution is slow inside a loop on CPU, and there all learning is (`jaxrl bench --ablate`, BENCHMARKS.md).
    "cpu": Tuning(
        micro_batch_rows=2048,
        agents_in_turns=True,
        convolution="patches",
        remat=True,
        halve_above=16,
        plain_above=12_000,
    ),
    # One large matmul is what accelerators are made for.
    "gpu": Tuning(),
    "tpu": Tuning(),
}
_changed: list[dict] = []

# XLA's newer emitter of loops makes small networks learn 1.4 to 1.8 times as fast, and neither physics nor language
# models, for up to two fifths of the time that compiling takes. LLVM's higher levels of optimisation, for a fifth of
# it, gain nothing that can be measured on any of these; without that emitter they do.
_PLAIN = {"xla_cpu_use_fusion_emitters": False}
_LIGHT = {"xla_backend_optimization_level": 1}


def tuning() -> Tuning:
    """What is chosen on the platform that JAX runs on by default."""
    chosen = _CHOSEN.get(jax.default_backend(), Tuning())
    for changes in _changed:
        chosen = chosen._replace(**changes)
    return chosen


def compiler_options(lines: int, brief: bool) -> dict[str, bool | int] | None:
    """How `run` has XLA compile a program of so many lines of StableHLO; None leaves it to XLA.

    Large programs, of physics or a language model, are compiled plainly: they run as fast (humanoid 0.95, hopper 0.96,
    a DPO step 1.01 of the time), after two thirds of the wait. `brief` programs, such as an evaluation, run for less
    time than it takes to compile them: plainly and lightly, in half of the time. All others lightly, in four fifths.
    Other options may give other last bits: `jax.jit(train, compiler_options=compiler_options(lines, False))` ends in
    those of `run`. Who asks JAX for fewest optimizations (JAX_DISABLE_MOST_OPTIMIZATIONS) gets what JAX makes of it.
    """
    most = tuning().plain_above
    if most is None or jax.config.read("jax_disable_most_optimizations"):
        return None
    return (_PLAIN if brief or lines > most else {}) | (_LIGHT if brief or lines <= most else {})


def compile_lowered(lowered: Any, brief: bool) -> Any:
    """A lowered program compiled with `compiler_options`, as `run` compiles."""
    options = compiler_options(lowered.as_text().count("\n"), brief)
    try:
        return lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:  # another version of XLA may not have them
        if options is None or "compile option" not in str(error):
            raise
        return lowered.compile()


@contextlib.contextmanager
def tuned(**changes: str | int | None) -> Iterator[None]:
    """Within it other choices hold for whatever is traced: for measurements and tests."""
    _changed.append(changes)
    try:
        yield
    finally:
        _changed.pop()


@contextlib.contextmanager
def computed_now() -> Iterator[None]:
    """Within it arrays are computed at once, on one device, also in the midst of somebody's trace over many: what is
    kept must not belong to that."""
    with jax.ensure_compile_time_eval(), jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        yield


def installing(extra: str) -> str:
    """The command that adds an extra of jaxrl to the environment that this runs in: that of a checkout is made by
    scripts/run, with pinned versions; any other is its user's."""
    checkout = Path(__file__).parents[2]
    if Path(sys.prefix).parent == checkout and (checkout / "scripts" / "run").is_file():
        return f"NEEDS={extra} scripts/run -m jaxrl env"
    return f'python -m pip install "jaxrl[{extra}]"'


def cores() -> int:
    """How many this process may use."""
    # A process pinned to one core computes other bits than one on two: XLA splits its sums by the threads it has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_left() -> float:
    """MiB that are free where programs run: on the device, or on this machine, within its control group."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return jax.local_device_count() * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)) / 2**20
    left = [_number_in("/proc/meminfo", "MemAvailable:") / 2**10]
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = Path("/sys/fs/cgroup")
        left.append((_number_in(folder / most) - _number_in(folder / used)) / 2**20)
    return min((x for x in left if x == x), default=float("inf"))


def _number_in(path: str | Path, after: str = "") -> float:
    """The number in a file, or the one after a word of it; NaN where there is none, as where it says "max"."""
    try:
        text = Path(path).read_text()
        return float(text.split(after, 1)[1].split()[0] if after else text)
    except (OSError, ValueError, IndexError):
        return float("nan")


def processor() -> dict[str, str]:
    """Model and a hash of the instruction sets, where Linux tells them: XLA compiles for both."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {"model": platform.processor()}
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    flags = told.get("flags", told.get("Features", ""))
    return {"model": told.get("model name", platform.processor()), "flags": sha256(flags.encode()).hexdigest()[:12]}


def in_turns(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """function(*args); under `vmap`, one mapped case after the other where the platform likes that better.

    The same numbers either way. Differentiable in both modes; a derivative is taken of all cases at once.
    """
    if not tuning().agents_in_turns:
        return function(*args)
    flat, structure = jax.tree.flatten(args)
    # What is closed over, such as a learning rate of a stacked config, may be mapped as well: it becomes an argument.
    closed, shape = jax.make_jaxpr(jax.jit(lambda *x: function(*jax.tree.unflatten(structure, x))), return_shape=True)(
        *flat
    )

    def whole(*leaves: Any) -> list:
        return jax.core.eval_jaxpr(closed.jaxpr, leaves[: len(closed.consts)], *leaves[len(closed.consts) :])

    # Reverse mode knows no function of its own batching, so a derivative goes past it.
    alone = jax.custom_jvp(jax.custom_batching.sequential_vmap(whole))
    alone.defjvp(lambda values, tangents: _derivative(whole, values, tangents), symbolic_zeros=True)
    return jax.tree.unflatten(jax.tree.structure(shape), alone(*closed.consts, *flat))


def _derivative(function: Callable, values: tuple, tangents: tuple) -> tuple[list, list]:
    # Of a value that stands still not even a zero goes in: 0 times the slope of √ at 0 is not a number.
    moves = [not isinstance(tangent, jax.custom_derivatives.SymbolicZero) for tangent in tangents]

    def of_moving(*moving: Any) -> list:
        rest = iter(moving)
        return function(*(next(rest) if m else value for m, value in zip(moves, values, strict=True)))

    return jax.jvp(
        of_moving,
        [value for m, value in zip(moves, values, strict=True) if m],
        [tangent for m, tangent in zip(moves, tangents, strict=True) if m],
    )
