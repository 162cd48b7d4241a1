"""Environments by name: make("gymnax/CartPole-v1"), make("brax/humanoid", backend="spring")."""

import difflib
import importlib
from typing import Any

from jaxrl.envs.vector import VectorEnv, vectorize
from jaxrl.settings import EnvConfig

SUITES = {"gymnax": "jaxrl.envs.suites.gymnax", "brax": "jaxrl.envs.suites.brax", "probe": "jaxrl.envs.probe"}


def make(name: str, **options: Any) -> Any:
    """The environment "suite/name", unbatched. `options` go to the suite, such as backend="spring" for Brax.

    Only the suite asked for is imported. Raises ValueError naming the nearest for an unknown name.
    """
    suite, _, env_name = name.partition("/")
    if suite not in SUITES or not env_name:
        raise ValueError(f'environment {name!r} is not of the form "suite/name" with a suite of {", ".join(SUITES)}')
    module = importlib.import_module(SUITES[suite])
    known = [*module.names(), *module.UNAVAILABLE]
    if env_name not in known:
        near = difflib.get_close_matches(env_name, known, n=3, cutoff=0.3) or known
        raise ValueError(f"unknown environment {name!r}; the nearest are {', '.join(f'{suite}/{n}' for n in near)}")
    return module.make(env_name, **options)


def names() -> list[str]:
    """Every environment that works, as "suite/name". Imports every suite."""
    modules = {suite: importlib.import_module(path) for suite, path in SUITES.items()}
    return [f"{suite}/{name}" for suite, module in modules.items() for name in module.names()]


def unavailable() -> dict[str, str]:
    """The registered environments that do not work, and why. Imports every suite."""
    modules = {suite: importlib.import_module(path) for suite, path in SUITES.items()}
    return {f"{suite}/{name}": why for suite, module in modules.items() for name, why in module.UNAVAILABLE.items()}


def from_config(config: EnvConfig, env: Any = None) -> VectorEnv:
    """The vectorised environment that a config describes, or `env` vectorised as it says."""
    if env is None:
        env = make(config.name, **({} if config.backend is None else {"backend": config.backend}))
    return vectorize(
        env,
        config.num_envs,
        time_limit=config.time_limit,
        action_repeat=config.action_repeat,
        resets=config.resets,
    )
