"""The directory of a sweep: what is swept, on what, and whether a resume is of the same sweep."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl.config_file import save_config
from jaxrl.reports.sweep.ranking import SWEEP
from jaxrl.reports.sweep.table import PARTS
from jaxrl.runs.directory import ABOUT, CHECKPOINTS, CONFIG, begun, check_unused, new_directory, write_json
from jaxrl.runs.header import own_version
from jaxrl.sweeps.plan import Batch
from jaxrl.types import InputError

BEST = "best.yaml"  # the config that the report ranks first


def check_sweep_dir(sweep_dir: Path | None, asked: Mapping[str, Any], resume: bool, *, resumable: bool = True) -> None:
    """For a resume, that the directory holds this very sweep; else that it holds nothing of the kind. Nothing is
    written. Raises InputError with every difference.
    """
    if resume and sweep_dir is None:
        raise InputError("resume needs the run_dir of the sweep to go on with")
    if resume:
        then = read_sweep(sweep_dir)["asked"]
        wrong = [told for name, now in asked.items() for told in _differences(name, then.get(name), now)]
        if wrong:
            raise InputError(
                f"{sweep_dir} was begun with {'; '.join(wrong)}; resume with that, or name another run_dir"
            )
        return
    there = [name for name in (SWEEP, ABOUT) if sweep_dir is not None and (sweep_dir / name).exists()]
    if there:
        go_on = "pass resume=True (--resume) to go on with it, or name" if SWEEP in there and resumable else "name"
        raise InputError(f"{sweep_dir} already holds a {'sweep' if SWEEP in there else 'run'}; {go_on} another run_dir")
    if sweep_dir is not None:
        check_unused(sweep_dir, SWEEP, (CHECKPOINTS, PARTS))


def begin_sweep(sweep_dir: Path | None, label: str, config: Any, about: Mapping[str, Any]) -> Path:
    """Make the directory, by default a new one under runs/, and write what is swept, and on what."""
    if sweep_dir is None:
        sweep_dir = new_directory(f"{label}_sweep_{time.strftime('%Y%m%d-%H%M%S')}")
    (sweep_dir / PARTS).mkdir(parents=True, exist_ok=True)
    save_config(config, sweep_dir / CONFIG)
    write_json(sweep_dir / SWEEP, {**about, "jaxrl": own_version(), **begun(), "batches": []})
    return sweep_dir


def read_sweep(sweep_dir: Path) -> dict[str, Any]:
    """sweep.json. Raises InputError where there is none, or it cannot be read."""
    path = sweep_dir / SWEEP
    if not path.is_file():
        raise InputError(f"{sweep_dir} holds no sweep: there is no {SWEEP}")
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise InputError(f"{path} cannot be read: it is damaged; begin the sweep again in another run_dir") from None


def update_sweep(sweep_dir: Path, **more: Any) -> None:
    """Write further entries of sweep.json."""
    write_json(sweep_dir / SWEEP, {**read_sweep(sweep_dir), **more})


def ended(sweep_dir: Path, number: int) -> dict[str, Any] | None:
    """What a batch that has ended has written of itself; None where it has not, or a disk has spoilt that: it is then
    gone on with from its checkpoint, which writes it again."""
    try:
        return json.loads((sweep_dir / PARTS / f"{number:04d}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def end(sweep_dir: Path, number: int, found: Mapping[str, Any]) -> None:
    """Write down that a batch has ended: its last scores, and what it took."""
    write_json(sweep_dir / PARTS / f"{number:04d}.json", found)


def described(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    """Batches as sweep.json has them."""
    return [{"members": [member.number for member in batch.members], "size": batch.size} for batch in batches]


def _differences(name: str, then: Any, now: Any) -> Iterator[str]:
    """Each value that is another, by its path: of two configs that differ by one field, that field."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from _differences(f"{name}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield f"{name} = {_told(then)}, not {_told(now)}"


def _told(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} …"
