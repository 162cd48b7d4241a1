"""What an exported folder holds, and what is not written out."""

import json
import sys

import numpy as np
import pytest

import jaxrl
from jaxrl.algorithms import PPO
from jaxrl.config_file import load_config
from jaxrl.networks.mlp import ACTIVATIONS
from jaxrl.runs.driver import Schedule, run
from jaxrl.runs.exporting import play
from jaxrl.runs.exporting.folder import described_env
from jaxrl.settings import EnvConfig
from jaxrl.types import InputError
from tests.helpers.policies import KINDS, written


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    env = EnvConfig("gymnax/Pendulum-v1", num_envs=4, eval_episodes=4, options={"max_torque": 3.0})
    config = PPO(env=env, num_steps=16, total_steps=128, normalize_obs=True, hidden=(8,))
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return run(config, 5, run_dir, schedule=Schedule(1, 0, 1), progress=False).run_dir


def test_a_folder_says_all_that_a_player_must_know(ended, tmp_path):
    exported = jaxrl.export(ended, tmp_path / "policy")
    assert {path.name for path in exported.folder.iterdir()} == {"policy.npz", "policy.json", "config.yaml", "play.py"}
    about = json.loads((exported.folder / "policy.json").read_text())
    assert about == exported.about and about["format"] == 1
    assert about["run"] == {"dir": str(ended), "algorithm": "ppo", "seed": 5, "env_steps": 128}
    assert about["action"] == {"kind": "box", "low": -3.0, "high": 3.0, "shape": [1], "dtype": "float32"}
    assert about["network"] == {"layers": [3, 8, 1], "activation": "tanh", "head": "normal"}
    assert load_config(exported.folder / "config.yaml", {"ppo": PPO}).hidden == (8,)
    # another torque than Gymnasium's pendulum has
    assert about["env"]["options"] == {"max_torque": 3.0} and about["env"]["gymnasium"] is None
    arrays = np.load(exported.folder / "policy.npz", allow_pickle=False)
    assert {x.dtype for x in arrays.values()} == {np.dtype(np.float32)}


def test_gymnasium_is_named_only_for_the_environment_that_it_has():
    names = [
        described_env(EnvConfig(name, options=options), given)["gymnasium"]
        for name, options, given in (
            ("gymnax/Acrobot-v1", {}, False),
            ("gymnax/Acrobot-v1", {}, True),
            ("gymnax/Acrobot-v1", {"available_torque_low": 2.0}, False),
            ("gymnax/Catch-bsuite", {}, False),
            ("brax/hopper", {}, False),
        )
    ]
    assert names == ["Acrobot-v1", None, None, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_of_an_observation_and_the_bounds_are_plain_json(kind, tmp_path):
    _, about, _ = written(kind, tmp_path)
    assert json.loads(json.dumps(about, allow_nan=False)) == about
    if kind == "nested observation":
        assert [part["path"] for part in about["observation"]] == [["a"], ["b", 0], ["b", 1], ["image"]]
        assert [part["normalized"] for part in about["observation"]] == [False, True, True, True]
    if kind == "normal":
        assert (about["action"]["low"], about["action"]["high"]) == ([-1.0, -2.0, 0.0], [3.0, 0.5, None])


def test_the_runner_has_every_activation():
    assert set(play.ACTIVATIONS) == set(ACTIVATIONS)


def test_nothing_is_written_over_or_in_part(ended, tmp_path, monkeypatch):
    (tmp_path / "kept.txt").touch()
    for there in (tmp_path, tmp_path / "kept.txt"):
        with pytest.raises(InputError, match="is there already; name a new folder, or empty it"):
            jaxrl.export(ended, there)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match="NEEDS=onnx scripts/run -m jaxrl env adds it"):
        jaxrl.export(ended, tmp_path / "policy", onnx=True)
    assert not (tmp_path / "policy").exists()


def test_a_language_model_is_loaded_by_its_name(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"seed": 0, "given": {"network": {"is": "x", "sha256": "0" * 64}}}))
    (tmp_path / "config.yaml").write_text("algorithm:\n  name: sft\n")
    for ask in (jaxrl.load_policy, lambda run_dir: jaxrl.export(run_dir, tmp_path / "policy")):
        with pytest.raises(InputError, match=r"learned from rows: load its model by name, jaxrl.lm.load_model"):
            ask(tmp_path)
