"""The header of a run: kept with it, and said once where progress is shown."""

import json
from dataclasses import replace as changed

import pytest

from jaxrl import PPO, EnvConfig, Schedule, run
from jaxrl.ops.platform import tuning
from jaxrl.runs.header import lines, run_header

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=128, num_steps=16)


def test_the_header_is_kept_and_said_once_before_the_first_number(tmp_path, capsys):
    run(CONFIG, 5, tmp_path / "run", schedule=Schedule(2, 0, 0))
    about = json.loads((tmp_path / "run" / "header.json").read_text())
    assert about["seed"] == 5 and about["tuning"] == tuning()._asdict() and not about["x64"]
    assert {"jaxrl", "jax", "jaxlib", "flax", "optax", "python", "device", "devices"} <= set(about)
    assert about["matmul_precision"] and about["compilation_cache"]
    memory = about["memory_mib"]
    assert memory["total"] == pytest.approx(sum(memory.values()) - memory["total"], abs=0.01) and memory["total"] > 0
    out, err = capsys.readouterr()
    said = err.splitlines()
    assert out == "" and said[:2] == lines(about) and err.count("jaxlib") == 1

    run(changed(CONFIG, total_steps=64), 5, tmp_path / "quiet", schedule=Schedule(1, 0, 0), progress=False)
    assert (tmp_path / "quiet" / "header.json").exists() and capsys.readouterr().err == ""


def test_more_environments_take_more_memory_than_they_did(tmp_path):
    totals = []
    for n in (4, 64):
        config = changed(CONFIG, env=EnvConfig(num_envs=n), total_steps=16 * n)
        run(config, 0, tmp_path / str(n), schedule=Schedule(1, 0, 0), progress=False)
        totals.append(json.loads((tmp_path / str(n) / "header.json").read_text())["memory_mib"]["total"])
    assert totals[1] > totals[0]


def test_what_is_not_known_is_said_so():
    about = run_header(0, {}, None, 1)
    assert "memory unknown" in lines(about)[1] and "kept in nowhere" not in lines(about)[1]
    assert "are not kept" in lines(about)[1]
    assert "; 2 of 3 × " in lines({**about, "devices_taken": 2, "devices": 3})[0]
    assert " of " not in lines({**about, "devices": 1})[0]
