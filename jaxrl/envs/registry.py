"""Environments by name: make("gymnax/CartPole-v1"), make("brax/humanoid", backend="spring"),
make("package.module:Class", size=5)."""

import difflib
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import custom
from jaxrl.envs.bodies import repeated
from jaxrl.envs.vector import VectorEnv, vectorize
from jaxrl.envs.wrappers import ActionRepeat
from jaxrl.settings import EnvConfig
from jaxrl.types import InputError

SUITES = {"gymnax": "jaxrl.envs.suites.gymnax", "brax": "jaxrl.envs.suites.brax", "probe": "jaxrl.envs.probe"}


def make(name: str, /, **options: Any) -> Any:
    """The environment "suite/name", unbatched, or the one that a class of your own makes: "package.module:Class".

    `options` go to its constructor, or to its parameters, such as backend="spring" for Brax or max_torque=8.0 for
    gymnax/Pendulum-v1. Only the suite asked for is imported.
    Raises InputError naming the nearest for an unknown name, and for an option that nothing takes.
    """
    if ":" in name:
        return custom.make(name, **options)
    suite, _, env_name = name.partition("/")
    if suite not in SUITES or not env_name:
        known = {} if suite in SUITES else {one.rpartition("/")[2]: one for one in names()}
        near = [known[one] for one in difflib.get_close_matches(env_name or suite, known, n=1)]
        raise InputError(
            f'environment {name!r} is not of the form "suite/name" with a suite of {", ".join(SUITES)}, '
            'nor "package.module:Class"' + (f"; did you mean {near[0]!r}?" if near else "")
        )
    module = importlib.import_module(SUITES[suite])
    known = [*module.names(), *module.UNAVAILABLE]
    if env_name not in known:
        near = difflib.get_close_matches(env_name, known, n=3, cutoff=0.3) or known
        raise InputError(f"unknown environment {name!r}; the nearest are {', '.join(f'{suite}/{n}' for n in near)}")
    if "backend" in options and not hasattr(module, "BACKENDS"):
        raise InputError(f"backend = {options['backend']!r} means nothing to {name}; leave it out")
    return module.make(env_name, **options)


def name_of(env: Any) -> str:
    """What `make` calls this environment: "suite/name" for ours, else "package.module:Class" of the object.

    Of one of our wrappers, or of many environments as one, it is the name of what they hold.
    """
    if isinstance(env, VectorEnv | ActionRepeat):
        return name_of(env.env)
    kind = type(env)
    suites = [suite for suite, path in SUITES.items() if path == kind.__module__]
    return f"{suites[0]}/{env.name}" if suites and env.name else f"{kind.__module__}:{kind.__qualname__}"


def names() -> list[str]:
    """Every environment that works, as "suite/name". Imports every suite."""
    modules = {suite: importlib.import_module(path) for suite, path in SUITES.items()}
    return [f"{suite}/{name}" for suite, module in modules.items() for name in module.names()]


def unavailable() -> dict[str, str]:
    """The registered environments that do not work, and why. Imports every suite."""
    modules = {suite: importlib.import_module(path) for suite, path in SUITES.items()}
    return {f"{suite}/{name}": why for suite, module in modules.items() for name, why in module.UNAVAILABLE.items()}


def environment(config: EnvConfig) -> Any:
    """The environment that a config names, unbatched. Raises InputError for one of yours that breaks its contract."""
    if ":" in config.name:
        return custom.checked(config.name, config.env_axis, **given_options(config))
    return make(config.name, **given_options(config))


def from_config(config: EnvConfig, env: Any = None) -> VectorEnv:
    """The vectorised environment that a config describes, or `env` vectorised as it says.

    With env_axis = 0 and bodies that are not num_envs in number they are `repeated`, as an evaluation needs;
    `check_bodies` refuses that where it would be a mistake.
    """
    if env is None:
        env = environment(config)
    elif not type(env).__module__.startswith("jaxrl.envs"):
        # A NumPy table cannot be indexed by a traced state.
        env = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, env)
    if config.env_axis == 0:
        env = repeated(env, config.num_envs)
    return vectorize(
        env,
        config.num_envs,
        time_limit=config.time_limit,
        action_repeat=config.action_repeat,
        resets=config.resets,
        env_axis=config.env_axis,
    )


def given_options(config: EnvConfig) -> dict[str, Any]:
    """What `make` is given beside the name: the options, and the backend if there is one."""
    if config.backend is None:
        return dict(config.options)
    if "backend" in config.options:
        raise InputError(f"env.backend = {config.backend!r} and env.options also has a backend; leave one of them out")
    return {"backend": config.backend, **config.options}
