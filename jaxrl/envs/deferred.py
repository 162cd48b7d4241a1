"""Packages whose own code waits until something is asked of them, so that one module of theirs is imported without all
of its siblings: `import gymnax` imports every game, and a plotting library for one of them.
"""

import importlib.util
import sys
import types
from typing import Any


def defer(*packages: str) -> None:
    """Put packages, outermost first, in `sys.modules` with their own code not yet run.

    It runs when something is first looked up in them that is not there, in the very module that lies there, so that
    whoever imports the package afterwards has it whole. Packages that are imported already are left alone.
    """
    for name in packages:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        package = importlib.util.module_from_spec(spec)
        package.__class__ = _Deferred
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


class _Deferred(types.ModuleType):
    """A package that has not run. What the import system reads of it (`__path__`, `__spec__`) is there already."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # looked for in every module, by warnings and by inspect
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = types.ModuleType  # as its own code, which may look itself up, expects
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            sys.modules.pop(self.__name__, None)  # as of any import that fails
            raise
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        self.__getattr__("__all__")
        return dir(self)
