"""`jaxrl report`: from directories of runs to a page."""

import json

import pytest

from jaxrl import PPO, EnvConfig
from jaxrl.runs.driver import Schedule, run
from tests.cli.test_command import refused, said
from tests.reports.sweep.made import grid, made


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4, time_limit=20), num_steps=16, total_steps=128)
    folder = tmp_path_factory.mktemp("runs")
    return [run(config, s, folder / f"s{s}", schedule=Schedule(2, 1, 1), progress=False).run_dir for s in (0, 1)]


def test_runs_become_a_page_in_the_directory_of_the_first(ended, tmp_path, capsys):
    told = json.loads(said(capsys, "report", *ended)[0].splitlines()[-1])
    assert told == {"report": str(ended[0] / "report.html"), "runs": 2}
    page = (ended[0] / "report.html").read_text()
    assert "PPO on gymnax/CartPole-v1" in page and "all seeds, n = 2" in page
    told = json.loads(said(capsys, "report", ended[1], "--out", tmp_path / "new" / "a.html")[0].splitlines()[-1])
    assert told == {"report": str(tmp_path / "new" / "a.html"), "runs": 1} and (tmp_path / "new" / "a.html").is_file()


def test_bad_input_is_a_sentence(ended, tmp_path, capsys):
    assert "holds no run" in refused(capsys, "report", ended[0], tmp_path)
    assert "name at least one run, as in jaxrl report" in refused(capsys, "report")
    assert f"{tmp_path} cannot be written (Is a directory)" in refused(capsys, "report", ended[0], "--out", tmp_path)
    assert not (tmp_path / "report.html").exists()
    assert "is named twice" in refused(capsys, "report", ended[0], ended[0])
    (tmp_path / "run.json").touch()
    (tmp_path / "config.yaml").write_bytes((ended[0] / "config.yaml").read_bytes())
    assert "run.json cannot be read" in refused(capsys, "report", tmp_path)


def test_a_sweep_becomes_a_page_of_its_own(ended, tmp_path, capsys):
    folder = made(tmp_path / "sweep", grid([[1, 2], [3, 4]]))
    told = json.loads(said(capsys, "report", folder)[0].splitlines()[-1])
    assert told == {"report": str(folder / "report.html"), "members": 4, "configs": 2}
    assert "Sweep of PPO on gymnax/CartPole-v1" in (folder / "report.html").read_text()
    said(capsys, "report", folder, "--out", tmp_path / "other.html")
    assert (tmp_path / "other.html").is_file()
    assert "holds a sweep, which has a page of its own; name it alone" in refused(capsys, "report", ended[0], folder)
    (folder / "sweep.json").write_text("{")
    assert "sweep.json cannot be read" in refused(capsys, "report", folder)
