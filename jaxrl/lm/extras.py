"""Packages that come with an extra of jaxrl, such as jaxrl[lm], and are imported when they are first needed."""

import importlib
from typing import Any

from jaxrl.ops.platform import installing
from jaxrl.types import InputError


def package(name: str, what: str, extra: str = "lm") -> Any:
    """The module `name`. Raises InputError, as "`what` need the package …", with the command that installs it."""
    top = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or top).partition(".")[0] != top:  # it is there, and something of its own is not
            raise
        raise InputError(
            f"{what} need the package {top}, which is not installed; {installing(extra)} adds it"
        ) from error
