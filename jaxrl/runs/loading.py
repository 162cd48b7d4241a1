"""A run read back: its config, what it was begun with, and what it has learned."""

import contextlib
import importlib.util
import math
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.algorithms import ALGORITHMS
from jaxrl.config_file import load_config
from jaxrl.envs.hosted import HostVectorEnv
from jaxrl.envs.registry import from_config
from jaxrl.envs.vector import VectorEnv
from jaxrl.reports.sweep.ranking import SWEEP
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import ABOUT, CHECKPOINTS, CONFIG, DUMP, as_path, check_given, read_about
from jaxrl.spaces import Discrete, Space
from jaxrl.training import program, takes
from jaxrl.training.given import describe
from jaxrl.types import Batch, InputError, Key, Memory, Program, PyTree, TrainState

EXPORTED = "policy.json"


class NotHere(InputError):
    """The module of a run's environment cannot be imported here."""


class SavedRun(NamedTuple):
    """The config and run.json of a run (`about`: its seed, what it was given, schedule, command, git revision, machine
    and versions). `control`: whether it learned by acting, and not from rows.
    """

    run_dir: Path
    config: Any
    about: dict[str, Any]

    @property
    def control(self) -> bool:
        """Whether it acts in an environment."""
        return "env" in takes(self.config)


class LoadedRun(NamedTuple):
    """A run with the state of one of its checkpoints. notes: a sentence for each newer one that is damaged."""

    saved: SavedRun
    program: Program
    state: TrainState
    notes: list[str]


def about_run(run_dir: str | Path) -> dict[str, Any]:
    """run.json of a directory. Raises InputError where it holds no run."""
    run_dir = as_path(run_dir)
    if (run_dir / EXPORTED).is_file() and not (run_dir / ABOUT).is_file():
        raise InputError(f"{run_dir} holds a policy as `jaxrl export` wrote it, and no run; name the run that it is of")
    if (run_dir / SWEEP).is_file():
        raise InputError(f"{run_dir} holds a sweep; take a member of it, by `--member N` or jaxrl.sweeps.load_member")
    if not (run_dir / ABOUT).is_file():
        raise InputError(f"{run_dir} holds no run; name the directory that `run` or `jaxrl train` wrote to")
    return read_about(run_dir)


def saved_run(run_dir: str | Path) -> SavedRun:
    """What a directory says of its run. Raises InputError where it holds none."""
    about = about_run(run_dir)
    run_dir = as_path(run_dir)
    saved = SavedRun(run_dir, load_config(run_dir / CONFIG, ALGORITHMS), about)
    if saved.control and "env" not in about["given"]:
        _check_there(saved)
    return saved


def _check_there(saved: SavedRun) -> None:
    """Raises NotHere for an environment of one's own whose module is not here, with where it was."""
    module, colon, _ = saved.config.env.name.partition(":")
    if module == "mjcf":  # then the task is what is imported
        module, colon, _ = str(saved.config.env.options.get("task", "")).partition(":")
    package = module.partition(".")[0]
    if colon and package and package not in sys.modules and importlib.util.find_spec(package) is None:
        folder = saved.about.get("folder", f"FOLDER_THAT_HOLDS_{package}")
        raise NotHere(
            f"{saved.run_dir} learned in {saved.config.env.name}, and there is no module {package!r} here; say where "
            f"it is, before the same command: PYTHONPATH={shlex.quote(folder)}"
        )


def load_run(run_dir: str | Path, *, checkpoint: str = "newest", **given: Any) -> LoadedRun:
    """A run that learned by acting, with the state of its newest checkpoint that is whole. Nothing is written.

    checkpoint: "best" instead takes the one that was evaluated best. given: what it was given beside its config, as
    for `run`: env and network. Raises InputError for something else than it was given, and where no checkpoint can be
    read.
    """
    if checkpoint not in ("newest", "best"):
        raise InputError(f"checkpoint = {checkpoint!r} is not one of 'newest', 'best'")
    saved = saved_run(run_dir)
    if not saved.control:
        model = str(saved.run_dir / "model")
        raise InputError(f"{run_dir} learned from rows: load its model by name, jaxrl.lm.load_model({model!r})")
    check_given(saved.run_dir, saved.about, describe(given))
    p = program(saved.config, **given)
    template = jax.eval_shape(p.init, jax.random.key(0))
    with contextlib.closing(Checkpoints(saved.run_dir / CHECKPOINTS, read_only=True)) as checkpoints:
        if checkpoint == "newest":
            found = checkpoints.newest(template)
            return LoadedRun(saved, p, found.tree, found.notes)
        step = checkpoints.best()
        if step is None:
            raise InputError(f"{run_dir} holds no checkpoint that was evaluated; take checkpoint = 'newest'")
        return LoadedRun(saved, p, checkpoints.restore(template, step), [])


class Divergence(NamedTuple):
    """What a run that diverged has kept: its state then, and the batch that the next update would have learned from.
    `program.step(state)` is that update, collecting included.
    """

    program: Program
    state: TrainState
    batch: Batch


def load_divergence(run_dir: str | Path, **given: Any) -> Divergence:
    """Read back what a run that diverged has kept in run_dir/diverged. given: all that it was given beside its config,
    as for `run`. Raises InputError for something else, and where nothing was kept.
    """
    saved = saved_run(run_dir)
    check_given(saved.run_dir, saved.about, describe(given))
    p = program(saved.config, **given)
    state = jax.eval_shape(p.init, jax.random.key(0))
    with contextlib.closing(Checkpoints(saved.run_dir / DUMP, read_only=True)) as kept:
        tree = kept.restore({"state": state, "batch": jax.eval_shape(p.batch, state)})
    return Divergence(p, tree["state"], tree["batch"])


def load_policy(
    run_dir: str | Path, *, behaviour: str = "mode", checkpoint: str = "newest", **given: Any
) -> Callable[..., PyTree]:
    """What a run has learned, as a function (obs, key=None) -> action: normaliser and network, jitted.

    obs: one observation, or a batch with any leading axes in front of the space's own shape; numbers of any kind become
    the space's. The action has the same leading axes and is as the environment takes it: clipped or squashed to its
    bounds, of its dtype. It may be called inside jit and vmap.

    A policy that remembers is a function (obs, key=None, memory=None) -> (action, memory): give it the memory that its
    last call gave, or None where an episode begins.

    behaviour: "mode", the likeliest action, which needs no key; or "sample", as in training, which does.
    checkpoint: "newest", or the "best" by evaluation. given: what the run was given beside its config, as for `run`:
    env and network.
    Raises InputError as `load_run`, and at a call for a missing key and for observations that do not fit the space.
    """
    loaded = load_run(run_dir, checkpoint=checkpoint, **given)
    for note in loaded.notes:
        warnings.warn(note, stacklevel=2)
    return policy_of(loaded, behaviour, given.get("env"))


def policy_of(loaded: LoadedRun, behaviour: str, env: Any = None) -> Callable[..., PyTree]:
    """What `load_policy` gives, of what is loaded already. env: that the run was given, if it was."""
    if behaviour not in ("mode", "sample"):
        raise InputError(f"behaviour = {behaviour!r} is not one of 'mode', 'sample'")
    vector = from_config(loaded.saved.config.env, env)
    spaces, algorithm = vector.spaces, loaded.program.algorithm
    shape = action_shape(vector)
    leaves, structure = jax.tree.flatten(loaded.state.learner)  # once: a module's takes longer than to act

    remembers = bool(jax.tree.leaves(jax.eval_shape(lambda: algorithm.memory(1))))

    @jax.jit
    def act(leaves: list[jax.Array], obs: PyTree, key: Key | None, memory: Memory | None) -> tuple[PyTree, Memory]:
        lead = _leading(spaces.observation, obs)
        n, dtype = math.prod(lead), spaces.action.zero().dtype
        obs = jax.tree.map(lambda part, x: x.reshape(n, *part.shape), spaces.observation, obs)
        learner, begins = jax.tree.unflatten(structure, leaves), jnp.full(n, memory is None)
        if memory is None:
            memory = algorithm.memory(n)
        else:
            memory = jax.tree.map(lambda x: x.reshape(n, *x.shape[len(lead) :]), memory)
        memory, distribution = algorithm.policy(learner, memory, obs, begins)
        action = distribution.env_action(distribution.mode() if key is None else distribution.sample(key))
        memory = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), memory)
        return action.astype(dtype).reshape(*lead, *shape), memory

    def policy(obs: PyTree, key: Key | None = None, memory: Memory | None = None) -> PyTree:
        if behaviour == "sample" and key is None:
            raise InputError("behaviour = 'sample' draws its actions: call policy(obs, key), key = jax.random.key(0)")
        obs, key = _typed(spaces.observation, obs), key if behaviour == "sample" else None
        return act(leaves, obs, key, memory) if remembers else act(leaves, obs, key, None)[0]

    return policy


def action_shape(vector: VectorEnv | HostVectorEnv) -> tuple[int, ...]:
    """Of an action as the environment takes it: Gymnasium's may have several axes, or none, where ours have one."""
    return getattr(vector.env, "action_shape", vector.action_space.zero().shape)


def _typed(space: Space, obs: PyTree) -> PyTree:
    """Observations as arrays of the space's dtypes. Raises InputError where structure or shapes are not the space's."""
    spaces, structure = jax.tree.flatten(space)
    try:
        parts = [_as(part, x) for part, x in zip(spaces, structure.flatten_up_to(obs), strict=True)]
    except (TypeError, ValueError) as error:
        raise InputError(f"obs = {obs!r:.60} is no observation of the space {space} ({error})") from None
    obs = jax.tree.unflatten(structure, parts)
    lead = _leading(space, obs)
    for part, x in zip(spaces, parts, strict=True):
        if x.shape != (*lead, *part.shape):
            raise InputError(
                f"obs has shape {x.shape} where the space has {part.shape}; a batch has its axes before those, and the "
                "same in every part"
            )
    return obs


def _as(part: Any, x: Any) -> Any:
    """Of a part's dtype. Raises ValueError for numbers of the host that this or a Discrete part cannot hold."""
    if isinstance(x, jax.Array):
        return x.astype(part.dtype)
    given = np.asarray(x)  # NumPy takes less time on the host
    with np.errstate(invalid="ignore"):
        made = given.astype(part.dtype, copy=False)
    if np.issubdtype(part.dtype, np.integer) and not np.array_equal(made, given):
        raise ValueError(f"{np.dtype(part.dtype)} cannot hold {given[made != given].flat[0]}")
    if isinstance(part, Discrete) and not ((part.start <= made) & (made < part.start + part.n)).all():
        raise ValueError(f"the space begins with {part.start} and has {part.n}")
    return made


def _leading(space: Space, obs: PyTree) -> tuple[int, ...]:
    part, x = jax.tree.leaves(space)[0], jax.tree.leaves(obs)[0]
    return x.shape[: x.ndim - len(part.shape)]
