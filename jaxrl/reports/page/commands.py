"""The command that makes a run again, as a person would type it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

_OURS = ("experiments", "scripts", "configs")


def typed(about: Mapping[str, Any], *, whole: bool = False) -> str | None:
    """What began a run or a sweep, without the directory, so that it writes to one of its own; None where that is not
    known. about: its run.json or sweep.json. whole: with its directory, as what went on with it.

    A Python that ran one of our scripts is `scripts/run`, one that ran the command line is `jaxrl`.
    """
    command = about.get("command")
    if not isinstance(command, list) or len(command) < 2:
        return None
    python, script, *rest = map(str, command)
    arguments = [_short(word) for word in (rest if whole else _without_run_dir(rest))]
    place = PurePosixPath(script)
    if place.name == "jaxrl" or place.parts[-2:] == ("jaxrl", "__main__.py"):
        return shlex.join(["jaxrl", *arguments])
    name = _short(script)
    if name.startswith(_OURS):
        return shlex.join(["scripts/run", name, *arguments])
    return shlex.join([PurePosixPath(python).name, script, *rest])


def resumed(run_dir: Path) -> str:
    """What goes on with it."""
    return shlex.join(["jaxrl", "resume", str(run_dir)])


def _short(word: str) -> str:
    """A path into the checkout, relative to it."""
    parts = PurePosixPath(word).parts
    inside = next((i for i, part in enumerate(parts) if part in _OURS), None) if word.startswith("/") else None
    return word if inside is None else str(PurePosixPath(*parts[inside:]))


def _without_run_dir(words: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word not in ("--run-dir", "--run_dir", "--resume") and not word.startswith(("--run-dir=",)):
            kept.append(word)
        skip = not skip and word in ("--run-dir", "--run_dir")
    return kept
