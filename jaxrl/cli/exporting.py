"""jaxrl export: a run as a folder that plays without JAX."""

import json
import sys
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from jaxrl.runs.exporting import export as write
from jaxrl.runs.loading import saved_run
from jaxrl.types import InputError


def export(
    run: Positional[Path],
    folder: Positional[Path],
    *,
    onnx: bool = False,
    checkpoint: Literal["newest", "best"] = "newest",
) -> None:
    """Write what a run has learned into a folder that plays without JAX.

        jaxrl export runs/mine policy
        cd policy; python play.py CartPole-v1 100

    policy.npz holds the weights and the observations' statistics, policy.json says what they mean, config.yaml is the
    run's, and play.py plays it with NumPy alone: `from play import Policy`, or as a command in Gymnasium. In Python
    with JAX: jaxrl.load_policy(RUN).

    Args:
        run: The directory of a run that learned by acting, with one of jaxrl's own networks.
        folder: Where to write; a new folder.
        onnx: Also write policy.onnx, the likeliest action as a graph for other runtimes; needs jaxrl[onnx].
        checkpoint: The newest, or the one that was evaluated best.
    """
    saved = saved_run(run)
    if saved.control and "env" in saved.about["given"]:
        again = f"jaxrl.export({str(run)!r}, {str(folder)!r}, env=...)"
        raise InputError(f"{run} was given its environment as an object of Python; write it out from there: {again}")
    exported = write(run, folder, onnx=onnx, checkpoint=checkpoint)
    for note in exported.notes:
        print(f"note: {note}", file=sys.stderr)
    print("".join(f"wrote       {path}\n" for path in sorted(exported.folder.iterdir())), end="")
    about = exported.about
    told = {"env": about["env"]["name"], "env_steps": about["run"]["env_steps"], "head": about["network"]["head"]}
    print(json.dumps({"folder": str(folder), **told, "layers": about["network"]["layers"], "run_dir": str(run)}))
