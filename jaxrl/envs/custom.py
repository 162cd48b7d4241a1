"""Environments of one's own, by the name of their class: "package.module:Class", or of a function that makes one, also
of Gymnasium's.
"""

import functools
import importlib
import multiprocessing
from collections.abc import Callable
from typing import Any

from jaxrl.envs.check import check_environment, of_gymnasium
from jaxrl.envs.hosted import is_hosted
from jaxrl.envs.options import accepted, construct
from jaxrl.settings import EnvOptions, closest
from jaxrl.types import InputError

_importing: list[str] = []  # modules of environments, the innermost last


def make(name: str, /, **options: Any) -> Any:
    """The environment that Class(**options) of "package.module:Class" constructs, which is kept for the next call.

    Raises InputError if there is no such module or class, or if it refuses the options.
    """
    return _made(name, _find(name), EnvOptions(options))


def checked(name: str, env_axis: int | None, /, **options: Any) -> Any:
    """What `make` gives, held to the protocol as `check_environment` does, once for each class and its options."""
    return _checked(name, _find(name), EnvOptions(options), env_axis)


@functools.cache
def _checked(name: str, cls: Callable, options: EnvOptions, env_axis: int | None) -> Any:
    env = _made(name, cls, options)
    if is_hosted(env):
        return env
    try:
        check_environment(env, env_axis)
    except InputError as error:
        made = f" (it was made with the options {dict(options)})" if options else ""
        raise InputError(f"{error}{made}") from error
    return env


@functools.cache  # two objects may hash differently and would compile everything twice
def _made(name: str, cls: Callable, options: EnvOptions) -> Any:
    theirs = "show_mask" in accepted(cls)[0]
    own = {option: value for option, value in options.items() if theirs or option != "show_mask"}
    made = construct(name, cls, own)
    if not of_gymnasium(made):
        if len(own) < len(options):
            raise InputError(f"{name} is none of Gymnasium's: it shows an 'action_mask' itself; leave show_mask out")
        return made
    from jaxrl.envs.suites.gymnasium import from_function, masked

    made.close()
    show = options.get("show_mask") and not theirs
    return from_function(functools.partial(masked, cls) if show else cls, name, EnvOptions(own))


def imported(module_name: str, name: str) -> Any:
    """The module that the environment `name` is in. Raises InputError where it cannot be imported."""
    _importing.append(module_name)
    try:
        return importlib.import_module(module_name)
    except InputError:  # its own
        raise
    except (ImportError, SyntaxError, ValueError, TypeError) as error:  # the last two of names that are none, as ".a"
        remedy = "put the folder that holds it on the path, as in PYTHONPATH=. jaxrl train ppo/cartpole --name " + name
        remedy = remedy_inside(error, module_name) or remedy
        raise InputError(f"environment {name!r}: cannot import {module_name!r} ({error}); {remedy}") from error
    finally:
        _importing.pop()


def refuse_within_import() -> None:
    """Raises InputError for a run that is begun where a module is imported: by a script that names a class of its own,
    or that a process of its environments imports to find them."""
    process = getattr(multiprocessing.current_process(), "_inheriting", False)  # as multiprocessing asks itself
    if _importing or process:
        by = "a process of its environments" if process else "what looks for an environment"
        who = repr(_importing[-1]) if _importing else "the script"
        raise InputError(
            f'{who} begins a run when {by} imports it; put what begins the run under if __name__ == "__main__":'
        )


def remedy_inside(error: Exception, module_name: str) -> str | None:
    """What to do about an error of importing a module that is there, and fails itself; None for one that is not."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        own = f"{module_name}.".startswith(f"{error.name}.")
        return None if own else f"it imports {error.name!r}: install that, or leave it out"
    return "mend it" if isinstance(error, ImportError | SyntaxError) else None


def _find(name: str) -> Callable:
    module_name, _, class_name = name.partition(":")
    module = imported(module_name, name)
    found = getattr(module, class_name, None)
    if not callable(found):
        classes = [
            n for n, value in vars(module).items() if isinstance(value, type) and value.__module__ == module_name
        ]
        remedy = closest(class_name, classes) or f"; its classes are {', '.join(classes) or 'none'}"
        raise InputError(f"environment {name!r}: {module_name} has no class {class_name!r}{remedy}")
    return found
