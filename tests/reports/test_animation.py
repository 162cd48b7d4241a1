import base64
import json
import shutil
import sys
import warnings
from html.parser import HTMLParser

import mujoco
import numpy as np
import pytest
from PIL import Image

from jaxrl.reports.animation import Scene, save_html, save_video, scene_geoms

# Both bodies are turned and all shapes are off centre, so that a swapped convention cannot pass.
MJCF = """
<mujoco>
  <compiler angle="degree"/>
  <asset><material name="green" rgba="0.1 0.8 0.2 1"/></asset>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="plane" size="5 6 0.1" pos="0 0 -0.5" rgba="0.9 0.9 0.9 1"/>
    <body name="torso" pos="1 2 3" euler="0 0 90">
      <freejoint/>
      <geom type="capsule" size="0.1 0.4" pos="1 0 0" rgba="1 0 0 1"/>
      <geom type="box" size="0.1 0.2 0.3" euler="0 90 0" material="green"/>
      <geom type="sphere" size="0.9" rgba="1 1 1 0"/>
      <body name="leg" pos="0 0 -1" euler="40 0 0">
        <joint type="hinge" axis="0 1 0"/>
        <geom type="ellipsoid" size="0.3 0.2 0.1" pos="0.1 0.2 0.3" euler="10 20 30"/>
        <geom type="cylinder" size="0.05 0.2"/>
        <geom type="sphere" size="0.07"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def model():
    return mujoco.MjModel.from_xml_string(MJCF)


def motion(model, count):
    """qpos [count, nq] that turns and shifts the body, and frames [count, bodies, 7] from MuJoCo."""
    data, qpos, frames = mujoco.MjData(model), np.zeros((count, model.nq)), []
    for t, row in enumerate(qpos):
        angle = 0.1 * t
        row[:] = [0.2 * t, 0, 1, np.cos(angle / 2), 0, np.sin(angle / 2), 0, 0.05 * t]
        data.qpos[:] = row
        mujoco.mj_kinematics(model, data)
        frames.append(np.concatenate([data.xpos[1:], data.xquat[1:]], axis=1))
    return qpos, np.array(frames)


class Page(HTMLParser):
    """The tags of a page with their attributes, and the text of each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


def embedded(path):
    data = json.loads(Page(path.read_text(encoding="utf-8")).scripts[0])
    frames = np.frombuffer(base64.b64decode(data["frames"]), "<f4").reshape(-1, data["bodies"], 7)
    return data, frames


def test_geoms_have_the_types_sizes_bodies_and_colours_of_the_model(model):
    geoms = scene_geoms(model)
    assert [(g["type"], g["body"]) for g in geoms] == [
        ("plane", -1),
        ("capsule", 0),
        ("box", 0),
        ("ellipsoid", 1),
        ("cylinder", 1),
        ("sphere", 1),
    ]
    assert [g["size"] for g in geoms] == [
        [5, 6, 0.1],
        [0.1, 0.4, 0],
        [0.1, 0.2, 0.3],
        [0.3, 0.2, 0.1],
        [0.05, 0.2, 0],
        [0.07, 0, 0],
    ]
    assert geoms[0]["pos"] == [0, 0, -0.5] and geoms[1]["pos"] == [1, 0, 0]
    np.testing.assert_allclose(geoms[2]["quat"], [0.5**0.5, 0, 0.5**0.5, 0], atol=1e-5)
    assert geoms[1]["rgba"] == [1, 0, 0, 1]
    np.testing.assert_allclose(geoms[2]["rgba"], [0.1, 0.8, 0.2, 1], atol=1e-5)
    json.dumps(geoms)


def test_frames_and_geoms_compose_to_the_world_poses_of_mujoco(model):
    qpos, frames = motion(model, 4)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos[3]
    mujoco.mj_kinematics(model, data)
    shown = [i for i in range(model.ngeom) if model.geom_rgba[i, 3] > 0]
    for i, geom in zip(shown, scene_geoms(model), strict=True):
        pose = frames[3, geom["body"]] if geom["body"] >= 0 else np.array([0, 0, 0, 1, 0, 0, 0])
        turn = rotation(pose[3:])
        np.testing.assert_allclose(pose[:3] + turn @ geom["pos"], data.geom_xpos[i], atol=1e-4)
        np.testing.assert_allclose(turn @ rotation(geom["quat"]), data.geom_xmat[i].reshape(3, 3), atol=1e-4)


def rotation(quat):
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_a_quarter_turn_about_z_takes_x_to_y(model):
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    pose = np.concatenate([data.xpos[1], data.xquat[1]])
    np.testing.assert_allclose(pose, [1, 2, 3, 0.5**0.5, 0, 0, 0.5**0.5], atol=1e-6)
    capsule = scene_geoms(model)[1]
    np.testing.assert_allclose(pose[:3] + rotation(pose[3:]) @ capsule["pos"], [1, 3, 3], atol=1e-6)


def test_html_holds_the_scene(model, tmp_path):
    _, frames = motion(model, 7)
    captions = [f"t = {t}" for t in range(7)]
    scene = Scene(scene_geoms(model), frames, 0.02, "a body", captions)
    path = save_html(tmp_path / "new" / "a.html", scene)
    data, decoded = embedded(path)
    np.testing.assert_allclose(decoded, frames, atol=1e-4)
    assert (data["dt"], data["title"], data["captions"]) == (0.02, "a body", captions)
    assert data["geoms"] == scene.geoms


def test_html_loads_nothing(model, tmp_path):
    scene = Scene(scene_geoms(model), motion(model, 3)[1], 0.02)
    text = save_html(tmp_path / "a.html", scene).read_text(encoding="utf-8")
    assert "http" not in text.lower() and "://" not in text
    for word in ("@import", "url(", "fetch(", "import(", "XMLHttpRequest", "WebSocket", "sendBeacon"):
        assert word not in text
    for tag, attributes in Page(text).tags:
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        assert not {"src", "href", "srcset", "data", "action", "xlink:href"} & set(attributes)


def test_html_of_a_thousand_humanoid_frames_is_below_a_megabyte(model, tmp_path):
    frames = np.random.default_rng(0).normal(size=(1000, 11, 7))
    scene = Scene(scene_geoms(model), frames, 0.015, "big", [f"t = {t}   return {t}" for t in range(1000)])
    assert save_html(tmp_path / "a.html", scene).stat().st_size < 1e6


def test_title_and_captions_are_text_and_not_markup(model, tmp_path):
    hostile = '</script><b id="x">&amp; "quoted" __SCENE__'
    scene = Scene(scene_geoms(model), motion(model, 1)[1], 0.02, hostile, [hostile])
    path = save_html(tmp_path / "a.html", scene)
    data, _ = embedded(path)
    assert data["title"] == hostile and data["captions"] == [hostile]
    page = Page(path.read_text(encoding="utf-8"))
    assert "b" not in [tag for tag, _ in page.tags]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"frames": np.zeros((5, 7))}, r"frames has shape \(5, 7\)"),
        ({"frames": np.zeros((5, 2, 6))}, r"frames has shape \(5, 2, 6\)"),
        ({"frames": np.zeros((0, 2, 7))}, r"frames has shape \(0, 2, 7\)"),
        ({"frames": np.concatenate([np.zeros((3, 2, 7)), np.full((1, 2, 7), np.nan)])}, "not finite in frame 3"),
        ({"frames": np.zeros((5, 1, 7))}, "geom 3 is on body 1"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"captions": ["one"]}, "captions has 1 lines for 5 frames"),
        (
            {
                "geoms": [
                    {
                        "body": 0,
                        "type": "mesh",
                        "size": [1, 1, 1],
                        "pos": [0, 0, 0],
                        "quat": [1, 0, 0, 0],
                        "rgba": [1, 1, 1, 1],
                    }
                ]
            },
            "geom 0 has the type 'mesh'",
        ),
        (
            {
                "geoms": [
                    {
                        "body": 0,
                        "type": "sphere",
                        "size": [1],
                        "pos": [0, 0, 0],
                        "quat": [1, 0, 0, 0],
                        "rgba": [1, 1, 1, 1],
                    }
                ]
            },
            r"lengths \[1, 3, 4, 4\]",
        ),
    ],
)
def test_a_scene_that_does_not_fit_together_is_refused(model, tmp_path, change, message):
    scene = Scene(scene_geoms(model), np.zeros((5, 2, 7)), 0.02)._replace(**change)
    with pytest.raises(ValueError, match=message):
        save_html(tmp_path / "a.html", scene)
    assert not (tmp_path / "a.html").exists()


# 13 frames of 20 ms last 240 ms from the first to the last, which is 7 frames at 25 a second; frames of 50 ms
# are shown one by one; and 8 ms, which a GIF cannot hold, is 1 + floor(96 / 40) = 3.
@pytest.mark.parametrize("dt, shown, duration", [(0.02, 7, 40), (0.05, 13, 50), (0.008, 3, 40)])
def test_video_keeps_real_time(model, tmp_path, dt, shown, duration):
    qpos, _ = motion(model, 13)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = save_video(tmp_path / "a.gif", model, qpos, dt, width=64, height=48)
    if path is None:
        assert any("no OpenGL context" in str(w.message) for w in caught)
        pytest.skip("no OpenGL here")
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (shown, (64, 48), duration)
        assert np.asarray(image.convert("RGB")).std() > 5


def test_video_takes_the_text_of_a_model_and_leaves_a_given_model_alone(model, tmp_path):
    before = model.vis.global_.offwidth
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        path = save_video(tmp_path / "a.gif", MJCF, motion(model, 2)[0], 0.05, width=700, height=32)
        save_video(tmp_path / "b.gif", model, motion(model, 2)[0], 0.05, width=700, height=32)
    assert model.vis.global_.offwidth == before
    if path is not None:
        with Image.open(path) as image:
            assert image.size == (700, 32)


@pytest.mark.skipif(sys.platform != "linux", reason="the backend is chosen only on Linux")
def test_video_without_opengl_is_none_and_a_warning(model, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    with pytest.warns(UserWarning, match=r"a\.gif was not written, as no OpenGL context could be made"):
        assert save_video(tmp_path / "a.gif", model, motion(model, 2)[0], 0.05) is None
    assert not (tmp_path / "a.gif").exists()


def test_video_refuses_what_it_cannot_write(model, tmp_path, monkeypatch):
    qpos, _ = motion(model, 2)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name, rows, dt, message in [
        ("a.webm", qpos, 0.1, "suffix '.webm'"),
        ("a.mp4", qpos, 0.1, "needs ffmpeg"),
        ("a.gif", qpos[:, 1:], 0.1, r"qpos has shape \(2, 7\)"),
        ("a.gif", qpos, -1.0, "dt is -1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            save_video(tmp_path / name, model, rows, dt)
