"""Writes what a run has learned into a folder that needs neither jaxrl nor JAX:

    policy.npz   kernel_i, bias_i of the actor's layers; obs_mean_i, obs_std_i of each part of the observation that is
                 normalised; low, high of a continuous action, and middle, half, std of a "normal" head.
    policy.json  format, versions, the run, the environment, the observation's parts in the order of the features, the
                 action, the network and the normaliser
    config.yaml  of the run
    play.py      plays it, with NumPy alone
    policy.onnx  the likeliest action as an ONNX graph, where asked for

policy.json is written last: a folder that has it is whole. The critic is left out, for nothing plays it.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.config_file import save_config
from jaxrl.envs.registry import from_config
from jaxrl.networks.heads import MIN_STD, action_units
from jaxrl.networks.mlp import ActorCritic
from jaxrl.networks.torsos import is_image
from jaxrl.ops.masks import MASK, has_mask
from jaxrl.ops.normalization import OBS_CLIP, spread, stats_of_parts
from jaxrl.runs.directory import CONFIG
from jaxrl.runs.exporting import play
from jaxrl.runs.exporting.graph import onnx_package, write_graph
from jaxrl.runs.header import own_version
from jaxrl.runs.loading import EXPORTED, LoadedRun, SavedRun, action_shape, load_run, saved_run
from jaxrl.settings import EnvConfig
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, Spaces
from jaxrl.types import InputError

FORMAT = 1
# Those of gymnax that are Gymnasium's too, by the same names.
IN_GYMNASIUM = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")


class Exported(NamedTuple):
    """Where a policy was written, what policy.json says, and a sentence for each newer checkpoint that is damaged."""

    folder: Path
    about: dict[str, Any]
    notes: list[str]


def export(
    run_dir: str | Path, folder: str | Path, *, onnx: bool = False, checkpoint: str = "newest", **given: Any
) -> Exported:
    """Write the policy of a run into a new folder: weights, normaliser, spaces, config, and play.py, which plays it.

    onnx: also as policy.onnx; needs the extra jaxrl[onnx]. checkpoint: "newest", or the "best" by evaluation. given:
    the env that the run was given, as for `run`.
    Raises InputError for a run with a network of its own, for one that is more than dense layers, for a folder that
    holds something, and as `load_run`.
    """
    _check_free(Path(folder), onnx)
    saved = saved_run(run_dir)
    if saved.control and "network" in saved.about["given"]:
        raise InputError(
            f"{run_dir} was given a network of its own, and only jaxrl's own networks can be written out; play it in "
            f"Python: jaxrl.load_policy({str(run_dir)!r}, network=...)"
        )
    return export_loaded(load_run(run_dir, checkpoint=checkpoint, **given), folder, onnx=onnx, env=given.get("env"))


def export_loaded(loaded: LoadedRun, folder: str | Path, *, onnx: bool = False, env: Any = None) -> Exported:
    """As `export`, of what is loaded already. env: that the run was given, if it was."""
    folder = Path(folder)
    _check_free(folder, onnx)
    vector = from_config(loaded.saved.config.env, env)
    spaces = vector.spaces
    _check_plain(loaded.saved, spaces)
    about, arrays = described(loaded, spaces)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name another folder") from error
    save_config(loaded.saved.config, folder / CONFIG)
    shutil.copy(play.__file__, folder / "play.py")
    np.savez(folder / "policy.npz", **arrays)
    if onnx:
        write_graph(folder / "policy.onnx", about, arrays)
    about["action"]["shape"] = list(action_shape(vector))  # play.py's; a graph has one axis
    (folder / EXPORTED).write_text(json.dumps(about, indent=1, allow_nan=False) + "\n")
    return Exported(folder, about, loaded.notes)


def _check_free(folder: Path, onnx: bool) -> None:
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} is there already; name a new folder, or empty it")
    if onnx:
        onnx_package()


def _check_plain(saved: SavedRun, spaces: Spaces) -> None:
    config, parts = saved.config, jax.tree.leaves(spaces.observation)
    pictures = config.torso != "flat" and any(map(is_image, parts))
    for given, what in (
        (config.core != "none", f"remembers (core = {config.core!r})"),
        (pictures, f"sees pictures (torso = {config.torso!r})"),
        (config.head in ("state_normal", "beta"), f"has the head {config.head!r}"),
        (has_mask(spaces.observation), f"heeds an {MASK}"),
        (bool(config.env.hide), f"does not see the entries env.hide = {config.env.hide}"),
        (config.env.frame_stack > 1, f"sees several frames (env.frame_stack = {config.env.frame_stack})"),
        (any(isinstance(part, MultiDiscrete) for part in parts), "sees a MultiDiscrete space"),
    ):
        if given:
            raise InputError(
                f"the policy of {saved.run_dir} {what}, and only dense layers with a normal, tanh_normal or "
                f"categorical head can be written out; play it in Python: jaxrl.load_policy({str(saved.run_dir)!r})"
            )


def described(loaded: LoadedRun, spaces: Spaces) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """policy.json and the arrays of policy.npz."""
    config, learner = loaded.saved.config, loaded.state.learner
    layers, parts = learner.params.actor.layers, list(_parts(spaces.observation))
    arrays = {}
    for i, layer in enumerate(layers):
        arrays |= {f"kernel_{i}": layer.kernel[...], f"bias_{i}": layer.bias[...]}
    for i, stats in enumerate(stats_of_parts(learner.obs_stats)):
        arrays |= {} if stats is None else {f"obs_mean_{i}": stats.mean, f"obs_std_{i}": spread(stats)}
    head, of_head = _head(spaces.action, learner.params)
    arrays = {name: np.asarray(x) for name, x in (arrays | of_head).items()}
    observation = [
        {"path": list(path), **_space(part), "normalized": f"obs_mean_{i}" in arrays}
        for i, (path, part) in enumerate(parts)
    ]
    widths = [layers[0].kernel.shape[0], *(layer.kernel.shape[1] for layer in layers)]
    network = {"layers": widths, "activation": config.activation, "head": head}
    about = {
        "format": FORMAT,
        "jaxrl": own_version(),
        "run": {
            "dir": str(loaded.saved.run_dir),
            "algorithm": type(config).__name__.lower(),
            "seed": loaded.saved.about["seed"],
            "env_steps": int(loaded.state.num_steps),
        },
        "env": described_env(config.env, "env" in loaded.saved.about["given"]),
        "observation": observation,
        "action": _space(spaces.action),
        "network": network | ({"min_std": MIN_STD} if head == "tanh_normal" else {}),
        "normalizer": {"clip": OBS_CLIP},
    }
    return about, arrays


def described_env(env: EnvConfig, given: bool) -> dict[str, Any]:
    """gymnasium: its name for the very same environment, None where it has none. given: it was, as an object."""
    suite, _, name = env.name.partition("/")
    changed = given or env.options or suite not in ("gymnax", "gymnasium")
    known = suite == "gymnasium" or name in IN_GYMNASIUM
    told = {"options": dict(env.options), "backend": env.backend, "action_repeat": env.action_repeat}
    return {"name": env.name, "gymnasium": None if changed or not known else name, **told}


def _parts(space: Space, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Space]]:
    """The leaves of a space and what leads to them in an observation, in the order of the network's features."""
    if isinstance(space, dict | tuple | list):
        for at in sorted(space) if isinstance(space, dict) else range(len(space)):
            yield from _parts(space[at], (*path, at))
    else:
        yield path, space


def _space(space: Space) -> dict[str, Any]:
    """sizes: how many logits, for each entry of a discrete action. low, high: null where there is no bound."""
    like = {"shape": list(space.shape), "dtype": space.zero().dtype.name}
    if isinstance(space, Discrete):
        return {"kind": "discrete", "n": space.n, "start": space.start, "sizes": [space.n], **like}
    if isinstance(space, MultiDiscrete):
        return {"kind": "multidiscrete", "start": list(space.start), "sizes": list(space.nvec), **like}
    low, high = (_bound(x) for x in space.static_bounds)
    return {"kind": "box", "low": low, "high": high, **like}


def _bound(bound: np.ndarray) -> Any:
    if bound.size and np.all(bound == bound.flat[0]):  # one number, as it is mostly said
        bound = bound.flat[0]
    return np.where(np.isfinite(bound), bound, None).tolist()


def _head(space: Space, params: ActorCritic) -> tuple[str, dict[str, Any]]:
    """What makes actions of the outputs, and its arrays."""
    if not isinstance(space, Box):
        return "categorical", {}
    low, high = (bound.reshape(-1) for bound in space.static_bounds)
    if params.log_std is None:
        return "tanh_normal", {"low": low, "high": high}
    middle, half = (x.astype(np.float32) for x in action_units(space))
    std = half * np.exp(params.log_std[...])
    return "normal", {"low": low, "high": high, "middle": middle, "half": half, "std": std}
