"""jaxrl render and export: what a run has learned, to be looked at, and to be played elsewhere."""

import json
import sys
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from tyro.conf import Positional

from jaxrl.cli.experiment import file_for
from jaxrl.cli.sweeping import is_sweep, load
from jaxrl.reports.episode import FORMATS, record_episodes, save_recording
from jaxrl.runs.exporting import export as write
from jaxrl.runs.exporting import export_loaded
from jaxrl.runs.loading import saved_run
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.training.compiled import eval_key
from jaxrl.types import InputError


def render(
    run: Positional[Path],
    *,
    seed: int = 0,
    episodes: int = 1,
    format: Literal["gif", "mp4", "html"] | None = None,
    out: Path | None = None,
    behaviour: Literal["mode", "sample"] = "mode",
    checkpoint: Literal["newest", "best"] = "newest",
    member: int | None = None,
) -> None:
    """Play what a run has learned, and draw it.

    gymnax's environments, your own and Brax's become a GIF (or an MP4, where ffmpeg is installed); Brax's also an HTML
    page that opens in any browser, offline. An environment of your own is drawn by its method render(state), if it has
    one. `jaxrl report` shows the GIF.

    Args:
        run: The directory of the run, or of a sweep.
        seed: Of the episodes; the same seed plays the same.
        episodes: How many, one after the other.
        format: gif, mp4 or html. By default what --out ends in, else gif.
        out: The file to write; by default animation.FORMAT in the run's directory.
        behaviour: mode acts deterministically, sample draws actions as in training.
        checkpoint: The newest, or the one that was evaluated best.
        member: Of a sweep: the number of the member; by default the best of its report's ranking.
    """
    if not is_sweep(run) and not saved_run(run).control:
        raise InputError(
            f"{run} trained a language model; what it says is in samples.jsonl: `jaxrl report {run}` shows it"
        )
    if episodes < 1:
        raise InputError(f"episodes = {episodes}; play at least 1")
    path = file_for(_path(run, format, out))
    enable_compilation_cache()
    loaded = load(run, checkpoint, member)
    for note in loaded.notes:
        print(note, file=sys.stderr)
    keys = jax.random.split(eval_key(seed, int(loaded.state.num_steps)), episodes)
    recorded = record_episodes(loaded.saved.config, loaded.state.learner, keys, behaviour)
    if save_recording(path, recorded) is None:
        raise InputError(f"{path.name} needs OpenGL, which cannot be had here; use --format html")
    print(f"animation   {path}")
    played = {"return": float(np.mean(recorded.returns)), "episode_length": float(np.mean(recorded.lengths))}
    print(json.dumps({"animation": str(path), **played, "run_dir": str(run)}))


def export(
    run: Positional[Path],
    folder: Positional[Path],
    *,
    onnx: bool = False,
    checkpoint: Literal["newest", "best"] = "newest",
    member: int | None = None,
) -> None:
    """Write what a run has learned into a folder that plays without JAX.

        jaxrl export runs/mine policy
        jaxrl export runs/sweep policy --member 37
        cd policy; python play.py CartPole-v1 100

    policy.npz holds the weights and the observations' statistics, policy.json says what they mean, config.yaml is the
    run's, and play.py plays it with NumPy alone: `from play import Policy`, or as a command in Gymnasium. In Python
    with JAX: jaxrl.load_policy(RUN).

    Args:
        run: The directory of a run that learned by acting, with one of jaxrl's own networks, or of such a sweep.
        folder: Where to write; a new folder.
        onnx: Also write policy.onnx, the likeliest action as a graph for other runtimes; needs jaxrl[onnx].
        checkpoint: The newest, or the one that was evaluated best.
        member: Of a sweep: the number of the member; by default the best of its report's ranking.
    """
    saved = None if is_sweep(run) else saved_run(run)
    if saved is not None and saved.control and "env" in saved.about["given"]:
        again = f"jaxrl.export({str(run)!r}, {str(folder)!r}, env=...)"
        raise InputError(f"{run} was given its environment as an object of Python; write it out from there: {again}")
    if saved is None or member is not None:
        exported = export_loaded(load(run, checkpoint, member), folder, onnx=onnx)
    else:
        exported = write(run, folder, onnx=onnx, checkpoint=checkpoint)
    for note in exported.notes:
        print(f"note: {note}", file=sys.stderr)
    print("".join(f"wrote       {path}\n" for path in sorted(exported.folder.iterdir())), end="")
    about = exported.about
    told = {"env": about["env"]["name"], "env_steps": about["run"]["env_steps"], "head": about["network"]["head"]}
    print(json.dumps({"folder": str(folder), **told, "layers": about["network"]["layers"], "run_dir": str(run)}))


def _path(run: Path, format: str | None, out: Path | None) -> Path:
    """Where to write; the suffix is the format."""
    if out is None:
        return run / f"animation.{format or 'gif'}"
    suffix = out.suffix.removeprefix(".")
    if suffix not in FORMATS or format not in (None, suffix):
        if format and suffix in FORMATS:
            raise InputError(f"format = {format} and out = {out} are two formats; leave --format out")
        raise InputError(f"out = {out} names no format there is; let it end in .gif, .mp4 or .html")
    return out
