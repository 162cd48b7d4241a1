"""`jaxrl render`: from a run's directory to a film."""

import json

import pytest
from PIL import Image

from jaxrl import PPO, EnvConfig
from jaxrl.runs.driver import Schedule, run
from tests.cli.test_command import refused, said


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4, time_limit=20), num_steps=16, total_steps=128)
    return run(config, 3, tmp_path_factory.mktemp("runs") / "run", schedule=Schedule(2, 1, 1), progress=False).run_dir


def test_a_run_becomes_a_film_in_its_directory(ended, capsys):
    told = json.loads(said(capsys, "render", ended)[0].splitlines()[-1])
    assert told["animation"] == str(ended / "animation.gif") and told["run_dir"] == str(ended)
    assert told["return"] == told["episode_length"] and 1 <= told["return"] <= 20
    assert Image.open(ended / "animation.gif").n_frames >= told["episode_length"] // 2


def test_the_file_and_the_episodes_are_as_asked(ended, tmp_path, capsys):
    ask = ("render", ended, "--out", tmp_path / "b.gif", "--episodes", 2, "--behaviour", "sample")
    first, again, other = (json.loads(said(capsys, *ask, "--seed", s)[0].splitlines()[-1]) for s in (1, 1, 2))
    assert first == again and first["animation"] == str(tmp_path / "b.gif") and (tmp_path / "b.gif").is_file()
    assert other["return"] != first["return"]


def test_bad_input_is_a_sentence(ended, tmp_path, capsys):
    assert "holds no run" in refused(capsys, "render", tmp_path)
    assert "use .gif or .mp4" in refused(capsys, "render", ended, "--format", "html")
    assert "episodes = 0; play at least 1" in refused(capsys, "render", ended, "--episodes", 0)
    assert "let it end in .gif, .mp4 or .html" in refused(capsys, "render", ended, "--out", tmp_path / "a.png")
    assert "names no format there is" in refused(capsys, "render", ended, "--out", tmp_path / "a.avi")
    (tmp_path / "folder.gif").mkdir()
    for out in ("folder.gif", "folder.gif/a.gif/b.gif"):
        (tmp_path / "folder.gif" / "a.gif").touch()
        sentence = refused(capsys, "render", ended, "--out", tmp_path / out)
        assert f"{tmp_path / out} cannot be written (" in sentence and "--out FILE" in sentence
    assert "format = mp4 and out" in refused(capsys, "render", ended, "--format", "mp4", "--out", tmp_path / "a.gif")


def test_a_language_model_is_pointed_to_its_report(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 0, "given": {}}))
    (tmp_path / "config.yaml").write_text("algorithm:\n  name: sft\n")
    sentence = refused(capsys, "render", tmp_path)
    assert "samples.jsonl" in sentence and f"`jaxrl report {tmp_path}`" in sentence
