"""The directory of a run: what was run, on what, and whether a resume is of the same run."""

import atexit
import contextlib
import dataclasses
import errno
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

try:
    import fcntl
except ImportError as error:
    raise ImportError("jaxrl runs on Linux and macOS; on Windows, install and run it within WSL") from error

from jaxrl.config_file import load_config, name_of, save_config
from jaxrl.reports.rows import METRICS
from jaxrl.runs.header import git_revision, machine
from jaxrl.settings import only_places, parallel_of
from jaxrl.training.processes import agreed, from_first, is_first
from jaxrl.types import InputError

ABOUT, CONFIG, RESULT, LOCK = "run.json", "config.yaml", "result.json", ".lock"
CHECKPOINTS, DUMP = "checkpoints", "diverged"


class NotSaved(RuntimeError):
    """The disk does not take what is to be written."""


_FULL, _REFUSED = {errno.ENOSPC, errno.EDQUOT}, {errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG}  # as /proc says
_BEGUN = (ABOUT, "sweep.json")


@contextlib.contextmanager
def on_disk(run_dir: Path | None) -> Iterator[None]:
    """Turns what a full disk says within, or one that refuses the run's own files, into one sentence: NotSaved; or
    InputError where a directory is refused in which nothing has begun.
    """
    where = (run_dir or Path("runs")).resolve()
    try:
        yield
    except OSError as error:
        what = Path(str(error.filename or where)).resolve()
        own = where in (what, *what.parents) or what in where.parents
        places = [place for place in (where, *what.parents) if place.is_relative_to(where)]
        begun = any(os.path.exists(place / name) for place in places for name in _BEGUN)
        full = error.errno in _FULL
        if not full and not (own and error.errno in (_REFUSED if begun else _REFUSED | _NO_PLACE)):
            raise
        said = f"{what} could not be written ({os.strerror(error.errno)})"
        remedy = "make room there" if full else "make it writable"
        if not begun:
            kind = NotSaved if full else InputError
            raise kind(f"{said}, and nothing has begun; {remedy}, or name another run_dir (--run-dir)") from error
        raise NotSaved(
            f"{said}; all up to the last checkpoint is kept: {remedy}, and go on with --run-dir and --resume "
            "(resume=True), or name another run_dir"
        ) from error


_HELD, _NO_LOCKS = {errno.EWOULDBLOCK, errno.EACCES}, {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}


@contextlib.contextmanager
def alone(run_dir: Path) -> Iterator[None]:
    """Within, this process alone writes to a directory. The lock belongs to an open file, so that it goes with the
    process however that ends; where the file system knows no locks, there is none.

    Raises InputError where another process, or another run of this one, holds it.
    """
    with (run_dir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _HELD | _NO_LOCKS:
                raise
            if error.errno in _HELD:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise InputError(f"{run_dir} is being written by {who}; wait for its end, or stop it first") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def as_path(run_dir: str | Path) -> Path:
    """The path that was given, "~" being the user's home. Raises InputError for none."""
    if not str(run_dir):
        raise InputError("run_dir = '' is no directory; name one, or leave it out for a new one under runs/")
    return Path(run_dir).expanduser()


def own_directory(run_dir: Path | None, resume: bool) -> Path | None:
    """Where this process writes what people read: the first of several in `run_dir`; each of the others in a directory
    that is gone when it ends, begun with the files of the run that is resumed.
    """
    own = run_dir
    if not is_first():
        temporary = Path(tempfile.mkdtemp(prefix="jaxrl-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        own = temporary / "run"
        if resume and run_dir is not None and run_dir.is_dir():
            own.mkdir()
            for file in run_dir.iterdir():
                if file.is_file():
                    shutil.copy(file, own)
            _link(own, run_dir)
    agreed(0)  # the others have copied before the first goes on
    return own


def shared(run_dir: Path) -> bool:
    """Whether all processes see the directory of the first, in which it holds the lock; then what the others keep of
    their devices' is put there too."""
    if jax.process_count() == 1:
        return True
    path, held = json.loads(from_first(json.dumps([str(run_dir.resolve()), (run_dir / LOCK).read_text()])))
    seen = _appears(Path(path) / LOCK, held)
    (unseen,) = agreed(not seen)
    if unseen:
        if is_first():
            warnings.warn(
                f"not every process sees {run_dir}: this one saves everything, for which it needs the room, and a "
                "resume needs a run_dir on a disk that all share",
                stacklevel=3,
            )
        return False
    _link(run_dir, Path(path))
    return True


def _appears(file: Path, text: str) -> bool:
    """Whether a file has this text, once a network's disk shows it."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            if file.read_text() == text:
                return True
        time.sleep(0.1)
    return False


def _link(own: Path, run_dir: Path) -> None:
    for name in () if is_first() else (CHECKPOINTS, DUMP):
        if not (own / name).is_symlink():
            (own / name).symlink_to(run_dir.resolve() / name, target_is_directory=True)


def as_run(config: Any, overrides: Mapping[str, Any]) -> Any:
    """The config with the settings that something given stood in for: paths such as "env.name" -> values."""
    for path, value in overrides.items():
        config = _set(config, path.split("."), value)
    return config


def check_run_dir(
    run_dir: Path | None, seed: int, config: Any, given: dict[str, Any], resume: bool, accept_changes: bool
) -> list[str]:
    """For a resume, that the directory holds this very run; else that it can be made. Nothing is written.

    Raises InputError for a directory that already holds a run, or a resume with anything else than it was begun with;
    with accept_changes returns a phrase for each thing that is different.
    """
    if resume and run_dir is None:
        raise InputError("resume needs the run_dir to go on in")
    if accept_changes and not resume:
        raise InputError("accept_changes = True is about a resume; pass resume=True (--resume) too, or leave it out")
    if run_dir is None:
        return []
    file = next((path for path in (run_dir, *run_dir.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise InputError(f"run_dir = {run_dir}: {file} is a file; name a directory")
    if resume:
        return _same_run(run_dir, seed, config, given, accept_changes)
    if (run_dir / ABOUT).exists():
        raise InputError(
            f"{run_dir} already holds a run; pass resume=True (--resume) to go on with it, or another run_dir"
        )
    check_unused(run_dir, ABOUT, (CHECKPOINTS, METRICS))
    return []


def check_unused(directory: Path, about: str, names: Sequence[str]) -> None:
    """Raises InputError where these were left by something whose own file is gone: they would be taken for new ones."""
    left = [name for name in names if (directory / name).is_file() or any((directory / name).glob("*"))]
    if left:
        raise InputError(
            f"{directory} has {left[0]} of something that was begun there before, and its {about} is gone; empty the "
            "directory, or name another run_dir"
        )


def adopt(
    run_dir: Path, seed: int, config: Any, given: dict[str, Any], changes: list[str], more: Mapping[str, Any]
) -> None:
    """Write down that a run goes on as something else; what it was is kept as config-N.yaml, and in run.json. more: as
    for `begin_run`."""
    about = read_about(run_dir)
    was = {"seed": about["seed"], "given": about["given"]} | {name: about[name] for name in more if name in about}
    earlier = [*about.get("changes", []), {"changes": changes, **was, "command": [sys.executable, *sys.argv]}]
    (run_dir / CONFIG).rename(run_dir / f"config-{len(earlier)}.yaml")
    save_config(config, run_dir / CONFIG)
    write_about(run_dir, {**about, **more, "seed": seed, "given": given, "changes": earlier})


def shards_of(run_dir: Path, config: Any) -> int | None:
    """The number of shards that a run was begun with, whatever devices there were; None where `config` says it, or
    nothing does."""
    if parallel_of(config).data is not None:
        return None
    with contextlib.suppress(OSError, InputError):  # which is told where the whole file is compared
        return load_config(run_dir / CONFIG, _named(config)).parallel.data
    return None


def keepsakes(run_dir: Path) -> dict[str, str]:
    """The texts of config.yaml and run.json, as checkpoints keep them."""
    return {name: (run_dir / name).read_text() for name in (ABOUT, CONFIG)}


def _named(config: Any) -> dict[str, type]:
    return {name: type(config) for name in (name_of(type(config)), type(config).__name__.lower())}  # by older runs


def write_about(run_dir: Path, about: dict[str, Any]) -> None:
    """Put run.json in the place of the one that is there."""
    write_json(run_dir / ABOUT, about)


def write_json(path: Path, value: Any) -> None:
    """Put a file in the place of the one that is there, whole or not at all."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(draft, path)


def mend(run_dir: Path, config: Any, kept: dict[str, str] | None) -> list[str]:
    """Write config.yaml and run.json again where they cannot be read, from what a checkpoint has kept of them.

    Returns a sentence for each. What no checkpoint has kept is left as it is.
    """
    told = []
    for name, read in ((ABOUT, read_about), (CONFIG, lambda path: load_config(path / CONFIG, _named(config)))):
        try:
            read(run_dir)
        except (OSError, InputError):
            if kept and name in kept:
                (run_dir / name).write_text(kept[name])
                told.append(f"{run_dir / name} could not be read; it is written again, as the newest checkpoint has it")
    return told


def begin_run(
    run_dir: Path | None, label: str, seed: int, config: Any, given: dict[str, Any], more: Mapping[str, Any]
) -> Path:
    """Make the directory, by default a new one under runs/, and write what is run, and on what. more: further entries
    of run.json, which a resume does not compare.
    """
    run_dir = new_directory(f"{label}_s{seed}_{time.strftime('%Y%m%d-%H%M%S')}") if run_dir is None else run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    save_config(config, run_dir / CONFIG)
    about = {"seed": seed, "given": given, **more, **begun()}
    try:
        with (run_dir / ABOUT).open("x") as file:
            file.write(json.dumps(about, indent=1) + "\n")
    except FileExistsError:  # somebody else began a run here since it was looked at
        raise InputError(f"{run_dir} already holds a run; pass another run_dir") from None
    return run_dir


def begun() -> dict[str, Any]:
    """When, by which command and where, of which revision and on what machine something is begun."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    command = {"command": [sys.executable, *sys.argv], "folder": os.getcwd()}
    return {"begun": when, **command, "git": git_revision(), **machine()}


def new_directory(name: str) -> Path:
    for number in range(1, 1000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:  # another run began in the same second
            continue
        return path
    raise InputError(f"runs/ holds a thousand runs called {name}; name a run_dir")


def _same_run(run_dir: Path, seed: int, config: Any, given: dict[str, Any], accept_changes: bool) -> list[str]:
    if not (run_dir / ABOUT).exists():
        raise InputError(f"{run_dir} holds no run to resume; leave resume out to start one there")
    saved, then = load_config(run_dir / CONFIG, _named(config)), read_about(run_dir)
    changes = [(f"{name} = {old}", str(new), "its own config.yaml") for name, old, new in _differences(saved, config)]
    if then["seed"] != seed:
        changes.append((f"seed = {then['seed']}", str(seed), "that seed"))
    changes += _other_given(then, given)
    told = [f"{was}, not {now}" for was, now, _ in changes]
    if told and not accept_changes:
        listed, remedies = ";\n  ".join(told), " and ".join(dict.fromkeys(remedy for *_, remedy in changes))
        raise InputError(
            f"{run_dir} was run with {listed}; resume with {remedies}, or go on with what is different by "
            "accept_changes=True (--accept-changes)"
        )
    changed = [f"{name} was {then.get(name)}, is {now}" for name, now in machine().items() if then.get(name) != now]
    if changed:
        warnings.warn(f"resuming where {'; '.join(changed)}: it goes on, but not bit for bit", stacklevel=5)
    return told


def read_about(run_dir: Path) -> dict[str, Any]:
    """run.json. Raises InputError for one that cannot be read."""
    try:
        about = json.loads((run_dir / ABOUT).read_text())
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise InputError(f"{run_dir / ABOUT} cannot be read: it is empty or damaged; start again in another run_dir")
    return about


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """The final figures; None where the run has not ended, or a disk has spoilt them: a resume writes them again."""
    try:
        found = json.loads((run_dir / RESULT).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_given(run_dir: Path, then: dict[str, Any], given: dict[str, Any]) -> None:
    """Raises InputError unless what is given, as `describe` tells, is what run.json (`then`) says."""
    for was, now, remedy in _other_given(then, given):
        raise InputError(f"{run_dir} was run with {was}, not {now}; give {remedy}")


def _other_given(then: dict[str, Any], given: dict[str, Any]) -> list[tuple[str, str, str]]:
    names = [name for name in sorted({*then["given"], *given}) if then["given"].get(name) != given.get(name)]
    return [(_called(name, then["given"].get(name)), _called(name, given.get(name)), "that") for name in names]


def _called(name: str, what: dict[str, str] | None) -> str:
    return f"no {name} of its own" if what is None else f"the {name} {what['is']} ({what['sha256'][:8]})"


def _differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    for f in dataclasses.fields(new):
        was, now = getattr(old, f.name), getattr(new, f.name)
        if only_places(now):
            continue
        if dataclasses.is_dataclass(now):
            yield from ((f"{f.name}.{name}", *values) for name, *values in _differences(was, now))
        elif np.any(was != now) if f.type is float else was != now:
            yield f.name, was, now


def _set(settings: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    value = _set(getattr(settings, name), rest, value) if rest else value
    return dataclasses.replace(settings, **{name: value})
