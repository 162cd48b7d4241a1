"""Environments by name: make("gymnax/CartPole-v1"), make("brax/humanoid", backend="spring"),
make("package.module:Class", size=5)."""

import contextlib
import difflib
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import custom
from jaxrl.envs.bodies import repeated
from jaxrl.envs.check import check_environment
from jaxrl.envs.hosted import HostVectorEnv, is_hosted
from jaxrl.envs.vector import VectorEnv, vectorize
from jaxrl.envs.wrappers import Wrapper, wrapped
from jaxrl.ops.platform import installing
from jaxrl.settings import EnvConfig
from jaxrl.types import InputError

_SUITES = ("gymnax", "brax", "gymnasium", "playground", "probe")
_EXTRA_SUITES = ("jumanji", "craftax", "xminigrid", "pgx", "envpool")
SUITES = {suite: f"jaxrl.envs.suites.{suite}" for suite in _SUITES} | {
    suite: f"jaxrl.envs.suites.extras.{suite}" for suite in _EXTRA_SUITES
}
# Suites whose package is none of jaxrl's own -> the extra that installs it.
EXTRAS = {suite: suite for suite in ("gymnasium", "playground", *_EXTRA_SUITES)}
# Suites that one may look for -> why there is no adapter to them.
WITHOUT_ADAPTER = {
    "navix": "has no adapter: it needs rlax, and with it nightly builds of TensorFlow Probability; xminigrid has "
    "MiniGrid's tasks too",
}


def names_class(name: str) -> bool:
    """Whether it is "package.module:Class", and not a robot's "mjcf:path" nor Gymnasium's "module:Name-v0"."""
    return ":" in name and not name.startswith(("mjcf:", "gymnasium/"))


def make(name: str, /, **options: Any) -> Any:
    """The environment "suite/name", unbatched; or the one that a class of your own makes, "package.module:Class"; or a
    robot of your own on MJX, "mjcf:path/to/robot.xml", with task="package.module:Task" (`suites.mjcf`). Gymnasium's
    may name the module that registers them, "gymnasium/package.module:Name-v0".

    `options` go to its constructor, or to its parameters, such as backend="spring" for Brax or max_torque=8.0 for
    gymnax/Pendulum-v1. Only the suite asked for is imported.
    Raises InputError naming the nearest for an unknown name, and for an option that nothing takes.
    """
    if names_class(name):
        return custom.make(name, **options)
    if name.startswith("mjcf:"):
        return importlib.import_module("jaxrl.envs.suites.mjcf").make(name.removeprefix("mjcf:"), **options)
    suite, _, env_name = name.partition("/")
    if suite in WITHOUT_ADAPTER:
        raise InputError(f"{name} is not available: {suite} {WITHOUT_ADAPTER[suite]}")
    if suite not in SUITES or not env_name:
        known = {} if suite in SUITES else {one.rpartition("/")[2]: one for one in reversed(names())}
        near = [known[one] for one in difflib.get_close_matches(env_name or suite, known, n=1)]
        raise InputError(
            f'environment {name!r} is not of the form "suite/name" with a suite of {", ".join(SUITES)}, '
            'nor "package.module:Class"' + (f"; did you mean {near[0]!r}?" if near else "")
        )
    module, (registers, _, registered) = _module(suite), env_name.rpartition(":")
    if registers:
        custom.imported(registers, name)
    known = [*module.names(), *module.UNAVAILABLE]
    if registered not in known:
        near = difflib.get_close_matches(env_name, known, n=3, cutoff=0.3) or known
        raise InputError(f"unknown environment {name!r}; the nearest are {', '.join(f'{suite}/{n}' for n in near)}")
    if "backend" in options and not hasattr(module, "BACKENDS"):
        raise InputError(f"backend = {options['backend']!r} means nothing to {name}; leave it out")
    return module.make(env_name, **options)


def _module(suite: str) -> Any:
    try:
        return importlib.import_module(SUITES[suite])
    except ModuleNotFoundError as error:
        if suite not in EXTRAS:
            raise
        raise InputError(
            f"the environments of {suite} need a package that is not installed ({error}); "
            f"{installing(EXTRAS[suite])} adds it"
        ) from error


def _modules() -> dict[str, Any]:
    """Those whose packages are installed."""
    found = {}
    for suite in SUITES:
        with contextlib.suppress(InputError):
            found[suite] = _module(suite)
    return found


def name_of(env: Any) -> str:
    """What `make` calls this environment: "suite/name" for ours, else "package.module:Class" of the object.

    Of one of our wrappers, or of many environments as one, it is the name of what they hold; a wrapper of somebody
    else's makes another task.
    """
    ours = isinstance(env, Wrapper) and type(env).__module__ == Wrapper.__module__
    if ours or isinstance(env, VectorEnv | HostVectorEnv):
        return name_of(env.env)
    if is_hosted(env):
        return env.name
    if type(env).__module__ == "jaxrl.envs.suites.mjcf":
        return f"mjcf:{env.path}"
    kind = type(env)
    suites = [suite for suite, path in SUITES.items() if path == kind.__module__]
    return f"{suites[0]}/{env.name}" if suites and env.name else f"{kind.__module__}:{kind.__qualname__}"


def names() -> list[str]:
    """Every environment that works, as "suite/name". Imports every suite."""
    return [f"{suite}/{name}" for suite, module in _modules().items() for name in module.names()]


def unavailable() -> dict[str, str]:
    """The registered environments that do not work, and why; also whole suites, by their name alone. Imports every
    suite."""
    found, modules = dict(WITHOUT_ADAPTER), _modules()
    for suite in set(SUITES) - set(modules):
        found[suite] = f"needs an extra that is not installed: {installing(EXTRAS[suite])}"
    return found | {
        f"{suite}/{name}": why for suite, module in modules.items() for name, why in module.UNAVAILABLE.items()
    }


def to_gymnasium(env: Any, *, render_mode: str | None = None, **options: Any) -> Any:
    """One of our environments as a gymnasium.Env, for code that speaks Gymnasium.

    env: a name, as for `make`, which `options` go to; or an Environment. Its time limit truncates. What an observation
    forbids, in its entry "action_mask", is also info["action_mask"]. render_mode: "rgb_array", for what has `render`.
    Raises InputError as `make` does, for a render_mode that the environment does not have, and without Gymnasium.
    """
    return _exporting().Single(_ours(env, options), render_mode)


def to_gymnasium_vector(env: Any, num_envs: int, *, autoreset_mode: Any = "SAME_STEP", **options: Any) -> Any:
    """So many of an environment, stepped as one compiled program, as a gymnasium VectorEnv. env, options: as for
    `to_gymnasium`.

    autoreset_mode: of Gymnasium's. "SAME_STEP": where an episode ended the observation is a fresh start, and
    infos["final_obs"] has what ended it. "NEXT_STEP", its own vector environments' default and some of its wrappers'
    wish: what ended is shown, and the next step begins anew, whatever the action, with reward 0.
    Raises InputError for another, and as `to_gymnasium`.
    """
    mode = getattr(autoreset_mode, "name", autoreset_mode)
    kinds = {"SAME_STEP": _exporting().Vector, "NEXT_STEP": _exporting().Waiting}
    if mode not in kinds:
        raise InputError(f"autoreset_mode = {mode!r} is not one of {', '.join(kinds)}")
    return kinds[mode](_ours(env, options), num_envs)


def _exporting() -> Any:
    _module("gymnasium")
    return importlib.import_module("jaxrl.envs.suites.gymnasium.exported")


def _ours(env: Any, options: dict[str, Any]) -> Any:
    if isinstance(env, str):
        env = make(env, **options)
    elif options:
        raise InputError(f"options {sorted(options)} are for an environment by its name; make it with them")
    if is_hosted(env):
        raise InputError(f"{env.name} is Gymnasium's own already; call gymnasium.make")
    check_environment(env)
    return env


def on_host(config: EnvConfig, env: Any = None) -> bool:
    """Whether what `from_config` makes of these lives on the host."""
    return is_hosted(environment(config) if env is None else env)


def environment(config: EnvConfig) -> Any:
    """The environment that a config names, unbatched. Raises InputError for one of yours that breaks its contract."""
    if names_class(config.name):
        return custom.checked(config.name, config.env_axis, **given_options(config))
    return make(config.name, **given_options(config))


def from_config(config: EnvConfig, env: Any = None) -> VectorEnv | HostVectorEnv:
    """The vectorised environment that a config describes, or `env` vectorised as it says; a HostVectorEnv of one that
    lives on the host.

    With env_axis = 0 and bodies that are not num_envs in number they are `repeated`, as an evaluation needs;
    `check_bodies` refuses that where it would be a mistake.
    """
    if env is None:
        env = environment(config)
    elif not type(env).__module__.startswith("jaxrl.envs"):
        # A NumPy table cannot be indexed by a traced state.
        env = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, env)
    if is_hosted(env):
        _check_hosted(config, env)
        return HostVectorEnv(env, config.num_envs, config.time_limit, config.processes)
    if config.processes:
        raise InputError("env.processes = True is for environments on the host, as those of Gymnasium; leave it out")
    if config.env_axis == 0:
        env = repeated(env, config.num_envs)
    return vectorize(
        wrapped(env, config),
        config.num_envs,
        time_limit=config.time_limit,
        resets=config.resets,
        env_axis=config.env_axis,
    )


def _check_hosted(config: EnvConfig, env: Any) -> None:
    for name, off in (
        ("action_repeat", 1),
        ("sticky_actions", None),
        ("hide", ()),
        ("frame_stack", 1),
        ("env_axis", None),
    ):
        if getattr(config, name) != off:
            raise InputError(
                f"env.{name} = {getattr(config, name)} is for environments that are compiled, and {env.name} lives on "
                'the host; wrap it in a function of yours, and name that: "package.module:function"'
            )


def given_options(config: EnvConfig) -> dict[str, Any]:
    """What `make` is given beside the name: the options, and the backend if there is one."""
    if config.backend is None:
        return dict(config.options)
    if "backend" in config.options:
        raise InputError(f"env.backend = {config.backend!r} and env.options also has a backend; leave one of them out")
    return {"backend": config.backend, **config.options}
