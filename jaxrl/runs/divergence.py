"""When learning breaks: what is kept of it, and the one way back."""

import contextlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax

from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import DUMP, RESULT, NotSaved, read_about, write_about
from jaxrl.settings import scale
from jaxrl.types import InputError, Program, TrainState

SKIPPED, INVALID = "skipped_updates", "invalid_steps"
_AGAIN = 0x6261636B  # folded into the key of a run that goes back: from the same one it would take the same way


class Diverged(RuntimeError):
    """A learner is not finite any more, or no gradient is.

    why: what is wrong, after `step` steps. good: steps up to which nothing was. dumped: where the state was kept.
    """

    def __init__(self, why: str, step: int, good: int, dumped: Path | None = None):
        super().__init__(why)
        self.why, self.step, self.good, self.dumped = why, step, good, dumped


def dump(p: Program, run_dir: Path, state: TrainState, apart: bool) -> Path | None:
    """Keep a state, and the batch that its next update learns from, in run_dir/diverged; the step is then
    `p.step(state)`, or `p.algorithm.update` of this batch. None, with a warning, where the disk does not take it.
    apart: as for `Checkpoints`.
    """
    folder, tree = run_dir / DUMP, {"state": state, "batch": jax.jit(p.batch)(state)}
    shutil.rmtree(folder, ignore_errors=True)  # of the first time
    try:
        with contextlib.closing(Checkpoints(folder, apart=apart)) as saves:
            saves.save(int(state.num_steps), tree)
            saves.wait()
    except NotSaved as error:
        warnings.warn(f"what diverged was not kept: {error}", stacklevel=2)
        return None
    return folder


def again(state: TrainState) -> TrainState:
    """The state with another key."""
    return state._replace(key=jax.random.fold_in(state.key, _AGAIN))


def slower(config: Any, factor: float) -> Any:
    """The config with its learning rate, or that of its optimizer, multiplied. Raises InputError if it has none."""
    made = scale(config, "learning_rate", factor)
    if factor != 1.0 and made == config:
        kind = type(config).__name__
        raise InputError(f"backoff = {factor}: {kind} has no learning_rate to multiply, or it is 0; leave it out")
    return made


def train_on(session: Any, state: TrainState, config: Any, backoff: float) -> TrainState:
    """`state` after all updates; from the last good checkpoint, once, where it diverges."""
    try:
        return session.train(state)
    except Diverged as error:
        about, saved = read_about(session.run_dir), session.saves.steps()
        session.saves.set_aside([step for step in saved if step > error.good], "diverged-checkpoints")
        if "went_back" in about or not session.saves.steps():
            raise _given_up(session, error) from None
        why = f"{error.why} after {error.step} {session.p.unit.label}"
    template = jax.eval_shape(session.p.init, state.key)
    found = session.saves.newest(template, session.p.places and session.p.places(template))
    warnings.warn(f"{why}: going back, once, to step {found.step}, with another key", stacklevel=3)
    write_about(session.run_dir, {**about, "went_back": {"why": why, "to": found.step, "backoff": backoff}})
    session.go_back(found.step, slower(config, backoff))
    return train_on(session, again(found.tree), config, backoff)


def _given_up(session: Any, error: Diverged) -> Diverged:
    saved = session.saves.steps()
    good = f"the last good checkpoint is of step {saved[-1]}" if saved else "no checkpoint had been saved before"
    kept = f"; jaxrl.load_divergence({str(session.run_dir)!r}) is its state and next batch" if error.dumped else ""
    why = f"training has diverged: {error.why} after {error.step} {session.p.unit.label}"
    sentence = f"{why}; {good}{kept}. Look at the metrics in {session.run_dir}, and try a smaller learning rate"
    (session.run_dir / RESULT).write_text(json.dumps({"diverged": sentence}, indent=1) + "\n")
    return Diverged(sentence, error.step, error.good, error.dumped)


def counts(rows: list[dict[str, Any]], steps_per_update: int) -> dict[str, int]:
    """Of a whole run: environment steps that gave numbers which are not finite, and gradient steps that were skipped
    because the gradient was not, wherever its rows tell of such.
    """
    found, before = {}, 0
    for row in rows:
        steps, before = row["step"] - before, row["step"]
        updates = steps / steps_per_update
        for name, total, each in (
            (INVALID, "invalid_steps_in_training", steps),
            (SKIPPED, "skipped_gradient_steps", updates * (row.get("gradient_steps") or 1)),
        ):
            if row.get(name) is not None:
                found[total] = found.get(total, 0) + row[name] * each
    return {name: round(total) for name, total in found.items()}
