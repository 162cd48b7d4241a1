"""`jaxrl export`: from a run's directory to a folder that plays."""

import json

import pytest

from jaxrl import PPO, EnvConfig
from jaxrl.runs.driver import Schedule, run
from tests.cli.test_command import refused, said


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4, time_limit=20), num_steps=16, total_steps=128)
    return run(config, 3, tmp_path_factory.mktemp("runs") / "run", schedule=Schedule(1, 0, 1), progress=False).run_dir


def test_a_run_becomes_a_folder(ended, tmp_path, capsys):
    lines = said(capsys, "export", ended, tmp_path / "policy")[0].splitlines()
    assert lines[0] == f"wrote       {tmp_path / 'policy' / 'config.yaml'}" and len(lines) == 5
    told = {"env": "gymnax/CartPole-v1", "env_steps": 128, "head": "categorical", "layers": [4, 64, 64, 2]}
    assert json.loads(lines[-1]) == {"folder": str(tmp_path / "policy"), **told, "run_dir": str(ended)}
    assert "is there already" in refused(capsys, "export", ended, tmp_path / "policy")
    inside = tmp_path / "policy" / "play.py" / "other"
    assert f"{inside} cannot be made (Not a directory)" in refused(capsys, "export", ended, inside)
    for words in (["evaluate"], ["render"], ["resume"], ["report"], ["export", tmp_path / "new"]):
        sentence = refused(capsys, words[0], tmp_path / "policy", *words[1:])
        assert f"{tmp_path / 'policy'} holds a policy as `jaxrl export` wrote it, and no run" in sentence


def test_without_an_evaluated_checkpoint_there_is_no_best_one(ended, tmp_path, capsys):
    sentence = refused(capsys, "export", ended, tmp_path / "policy", "--checkpoint", "best")
    assert "holds no checkpoint that was evaluated; take checkpoint = 'newest'" in sentence
    assert not (tmp_path / "policy").exists()


def test_what_cannot_be_written_out_is_a_sentence(ended, tmp_path, capsys):
    assert "holds no run" in refused(capsys, "export", tmp_path, tmp_path / "policy")
    (tmp_path / "config.yaml").write_text((ended / "config.yaml").read_text())
    about = json.loads((ended / "run.json").read_text()) | {"given": {"env": {"is": "Maze", "sha256": "0" * 64}}}
    (tmp_path / "run.json").write_text(json.dumps(about))
    sentence = refused(capsys, "export", tmp_path, tmp_path / "policy")
    assert f"jaxrl.export('{tmp_path}', '{tmp_path / 'policy'}', env=...)" in sentence
