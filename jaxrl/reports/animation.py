"""Animations of a simulated body: an HTML file that opens offline, or a rendered video.

The HTML viewer needs only poses, so a scene is made from any simulator that gives a world position and a
quaternion for each body; `scene_geoms` takes the shapes from a MuJoCo model, which Brax systems carry.
"""

import base64
import copy
import html
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.reports.video import check_video, in_time, write_video
from jaxrl.types import InputError

GEOM_TYPES = ("sphere", "capsule", "box", "plane", "cylinder", "ellipsoid")


class Scene(NamedTuple):
    """Shapes fixed to bodies, and the pose of every body in every frame.

    Attributes:
      geoms: one dict for each shape: `body` (int, second index of `frames`; -1 is the world), `type` (of
        `GEOM_TYPES`), `size` (3 numbers in metres, MuJoCo's half sizes), `pos` [x, y, z] in metres and `quat`
        [w, x, y, z] in the frame of the body, `rgba` in [0, 1].
      frames: float [T, bodies, 7]: world position in metres (z up), then the quaternion w, x, y, z.
      dt: seconds of simulated time between two frames.
      title: heading of the page.
      captions: one line of text for each frame, or nothing.
    """

    geoms: list[dict[str, Any]]
    frames: np.ndarray
    dt: float
    title: str = "animation"
    captions: Sequence[str] = ()


def scene_geoms(mj_model: Any) -> list[dict[str, Any]]:
    """Returns the shapes of a `mujoco.MjModel` as `Scene.geoms`, in the order of the model.

    Body i of the frames is body i + 1 of the model, so the world is -1. Meshes, height fields and shapes
    whose alpha is 0 are left out.
    """
    import mujoco

    geoms = []
    for i in range(mj_model.ngeom):
        kind = mujoco.mjtGeom(mj_model.geom_type[i]).name.removeprefix("mjGEOM_").lower()
        rgba, material = mj_model.geom_rgba[i], mj_model.geom_matid[i]
        if material >= 0 and np.all(rgba == [0.5, 0.5, 0.5, 1]):  # MuJoCo's rule: the default means "unset"
            rgba = mj_model.mat_rgba[material]
        if kind in GEOM_TYPES and rgba[3] > 0:
            numbers = {
                "size": mj_model.geom_size[i],
                "pos": mj_model.geom_pos[i],
                "quat": mj_model.geom_quat[i],
                "rgba": rgba,
            }
            geoms.append(
                {
                    "body": int(mj_model.geom_bodyid[i]) - 1,
                    "type": kind,
                    **{name: [round(float(x), 5) for x in row] for name, row in numbers.items()},
                }
            )
    return geoms


def save_html(path: str | os.PathLike, scene: Scene) -> Path:
    """Writes `scene` as one HTML file that loads nothing else, and returns its path.

    Where all shapes have one colour, as in Brax, the viewer colours each body by its index instead.
    Raises InputError when the parts of `scene` do not fit together.
    """
    _check(scene)
    frames = np.asarray(scene.frames, "<f4")
    data = {
        **scene._asdict(),
        "dt": float(scene.dt),
        "bodies": frames.shape[1],
        "captions": list(scene.captions),
        "frames": base64.b64encode(frames.tobytes()).decode(),
    }
    # "<" is escaped so that no title or caption can close the script element that holds the data.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = resources.files("jaxrl.reports").joinpath("viewer.html").read_text(encoding="utf-8")
    head, body = page.split("__SCENE__")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head.replace("__TITLE__", html.escape(scene.title)) + text + body, encoding="utf-8")
    return path


def save_video(
    path: str | os.PathLike, model: Any, qpos: np.ndarray, dt: float, width: int = 480, height: int = 360
) -> Path | None:
    """Renders the motion `qpos` with MuJoCo and writes it as .gif, or as .mp4 where `ffmpeg` is on PATH.

    Args:
      path: file to write; the suffix chooses the format.
      model: a `mujoco.MjModel`, an MJCF text, or the path of an MJCF file.
      qpos: float [T, nq], the generalised position in each frame.
      dt: seconds between rows of `qpos`; the video plays in real time with at most 25 frames a second.
      width, height: pixels.

    Returns:
      The path, or None with a warning where no OpenGL context can be made. On Linux the context is EGL,
      which needs no display; the environment variable MUJOCO_GL (egl, osmesa, glfw) chooses another.

    Raises:
      ValueError: for another suffix, .mp4 without ffmpeg, or `qpos` of a wrong shape.
    """
    path, model, qpos = Path(path), _as_mj_model(model), np.asarray(qpos, np.float64)
    check_video(path)
    if qpos.ndim != 2 or not len(qpos) or qpos.shape[1] != model.nq:
        raise InputError(f"qpos has shape {qpos.shape}; give [frames, nq], where nq is {model.nq} here.")
    _check_dt(dt)
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    try:
        gl, context = _open_gl(model, width, height)
    except Exception as error:  # each backend fails in its own way, from ImportError to AttributeError
        warnings.warn(
            f"{path.name} was not written, as no OpenGL context could be made ({error!r}). "
            "Use save_html, or set MUJOCO_GL to what this machine has: egl, osmesa or glfw.",
            stacklevel=2,
        )
        return None
    rows, period = in_time(len(qpos), dt)
    try:
        write_video(path, _render(model, qpos[rows], context, width, height), period)
    finally:
        context.free()
        gl.free()
    return path


def _check(scene: Scene) -> None:
    frames = np.asarray(scene.frames)
    if frames.ndim != 3 or frames.shape[2] != 7 or not frames.size:
        raise InputError(
            f"frames has shape {frames.shape}; give [frames, bodies, 7]: x, y, z, then the quaternion w, x, y, z."
        )
    bad = np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2)))
    if len(bad):
        raise InputError(f"frames has a value that is not finite in frame {bad[0]}; cut the frames there.")
    _check_dt(scene.dt)
    if len(scene.captions) not in (0, len(frames)):
        raise InputError(
            f"captions has {len(scene.captions)} lines for {len(frames)} frames; give one for each frame, or none."
        )
    for i, geom in enumerate(scene.geoms):
        lengths = [len(geom.get(name, ())) for name in ("size", "pos", "quat", "rgba")]
        if lengths != [3, 3, 4, 4]:
            raise InputError(f"geom {i} has size, pos, quat and rgba of lengths {lengths}; give 3, 3, 4, 4.")
        if geom["type"] not in GEOM_TYPES:
            raise InputError(f"geom {i} has the type {geom['type']!r}; use one of {', '.join(GEOM_TYPES)}.")
        if not -1 <= geom["body"] < frames.shape[1]:
            raise InputError(
                f"geom {i} is on body {geom['body']}, but frames has {frames.shape[1]} bodies; use -1 for the world."
            )


def _check_dt(dt: float) -> None:
    if not 0 < dt < np.inf:
        raise InputError(f"dt is {dt}; give the seconds between two frames, above 0.")


def _as_mj_model(model: Any) -> Any:
    """A model of our own, as the size of the offscreen buffer is set in it."""
    import mujoco

    if isinstance(model, mujoco.MjModel):
        return copy.copy(model)
    text = os.fspath(model)
    is_xml = text.lstrip().startswith("<")
    return mujoco.MjModel.from_xml_string(text) if is_xml else mujoco.MjModel.from_xml_path(text)


def _open_gl(model: Any, width: int, height: int) -> tuple[Any, Any]:
    """An OpenGL context made current, and MuJoCo's rendering context in it.

    `mujoco.Renderer` is passed over because it is bound to the backend chosen when mujoco was imported:
    without a display that is one that cannot work, and Brax imports mujoco before anyone can choose.
    """
    import mujoco

    backend = os.environ.get("MUJOCO_GL", "").lower().strip() or "egl"
    source = importlib.import_module(f"mujoco.{backend}") if sys.platform == "linux" else mujoco
    gl = source.GLContext(width, height)
    gl.make_current()
    context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
    return gl, context


def _render(model: Any, qpos: np.ndarray, context: Any, width: int, height: int) -> Iterator[np.ndarray]:
    """Yields uint8 [height, width, 3] for each row of `qpos`; the camera follows the first body."""
    import mujoco

    data, scene, option = mujoco.MjData(model), mujoco.MjvScene(model, maxgeom=2000), mujoco.MjvOption()
    camera, view = mujoco.MjvCamera(), mujoco.MjrRect(0, 0, width, height)
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, min(1, model.nbody - 1)
    camera.distance, camera.azimuth, camera.elevation = 3 * _reach(model, qpos[0]), 120, -12
    image = np.empty((height, width, 3), np.uint8)
    for row in qpos:
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        mujoco.mjv_updateScene(model, data, option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        mujoco.mjr_render(view, scene, context)
        mujoco.mjr_readPixels(image, None, view, context)
        yield np.flipud(image).copy()


def _reach(model: Any, qpos: np.ndarray) -> float:
    """Metres from the first body to the far end of the shapes on bodies; `stat.extent` is often more."""
    import mujoco

    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    on_body = model.geom_bodyid > 0
    centres = data.geom_xpos[on_body] - data.xpos[min(1, model.nbody - 1)]
    return float(np.max(np.linalg.norm(centres, axis=1) + model.geom_rbound[on_body], initial=0.1))
