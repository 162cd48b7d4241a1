"""jaxrl check: an environment or an algorithm of one's own, held to the library's invariants."""

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Iterable
from typing import Any

import tyro

from jaxrl.cli.experiment import paragraphs, parse, truths
from jaxrl.envs import make
from jaxrl.envs.custom import remedy_inside
from jaxrl.envs.registry import names_class
from jaxrl.envs.trial import try_environment
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.training.trial import try_algorithm
from jaxrl.types import Finding, InputError


@dataclasses.dataclass(frozen=True)
class Environment:
    """How an environment is tried."""

    options: dict[str, int | float | bool | str] = dataclasses.field(default_factory=dict)
    """Given to its constructor, as in --options size 5."""
    steps: int = 10_000
    """Steps with random actions."""
    seed: int = 0
    """Of starts and actions."""


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """How an algorithm is tried."""

    seed: int = 0
    """Of the first of the two seeds that are trained."""


def check(argv: list[str]) -> None:
    """Hold an environment or an algorithm of your own to what the library relies on; each check is one line.

        jaxrl check my_mazes:Maze
        jaxrl check my_mazes:Maze --options size 5 --steps 100000
        jaxrl check mjcf:my_robot.xml --options task my_tasks:Walk backend spring
        jaxrl check my_algorithms:RLOO
        jaxrl check my_algorithms:RLOO --num-envs 4 --num-steps 100

    The first argument is "module:Class" in this folder or on PYTHONPATH, or an environment of ours. An algorithm is a
    config class that has `program`; its fields are options. An environment is played with random actions: spaces,
    dtypes and structure, starts, true successors, flags, finite numbers, one program. An algorithm takes three updates:
    first ratio 1, exact steps, metrics, structure, vmap as a loop, evaluation without effect. Ends with status 1 where
    anything is wrong.
    """
    if {"-h", "--help"} & set(argv[:1]):
        print(inspect.cleandoc(check.__doc__))
        sys.exit(0)
    if not argv or argv[0].startswith("-"):
        raise InputError("name what to check first, as in jaxrl check my_mazes:Maze")
    name, rest = argv[0], argv[1:]
    found = _class(name) if names_class(name) else None
    if callable(getattr(found, "program", None)):
        config, options = parse(found(), check.__doc__, rest, Algorithm())
        wrong = _told(name, try_algorithm(config, **options))
    else:
        enable_compilation_cache()
        rest, description = truths(rest), paragraphs(check.__doc__)
        asked = tyro.cli(Environment, prog=f"jaxrl check {name}", description=description, args=rest)
        wrong = _told(name, try_environment(make(name, **asked.options), num_steps=asked.steps, seed=asked.seed))
    sys.exit(1 if wrong else 0)


def _class(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute, None)
    except (ImportError, SyntaxError, ValueError, TypeError) as error:  # the last two of names that are none, as ".a"
        remedy = remedy_inside(error, module) or "run jaxrl in the folder that holds it"
        raise InputError(f"cannot import {module!r} ({error}); {remedy}") from error


def _told(name: str, findings: Iterable[Finding]) -> list[str]:
    """Print each finding as it comes, then all as JSON; the names of what is wrong."""
    found = []
    for finding in findings:
        note = f" ({finding.note})" if finding.note else ""
        print(
            f"wrong  {finding.check}: {finding.wrong}" if finding.wrong else f"ok     {finding.check}{note}", flush=True
        )
        found.append(finding)
    wrong = [finding.check for finding in found if finding.wrong]
    print(json.dumps({"checked": name, "checks": len(found), "wrong": wrong}))
    return wrong
