"""Weights & Biases, offline, with the package itself: scripts/test --extra wandb."""

import json
import re

import pytest

from jaxrl import PPO, EnvConfig, Schedule, run

CONFIG = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 12, num_steps=16, num_minibatches=2)
QUICK = {"schedule": Schedule(logs=6, evals=2, saves=6), "progress": False}


def rows(run_dir):
    """What is in the files that wandb wrote, by session."""
    from wandb.proto import wandb_internal_pb2 as proto
    from wandb.sdk.internal.datastore import DataStore

    found = []
    for path in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        store, session = DataStore(), []
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = proto.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                session.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
        found.append(session)
    return found


@pytest.mark.extra("wandb")
def test_every_row_arrives_with_its_step_and_a_resume_goes_on_under_the_same_id(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(CONFIG, 3, tmp_path / "run", wandb="mine", **QUICK)
    kept = json.loads((result.run_dir / "wandb.json").read_text())
    (session,) = rows(result.run_dir)
    assert [row["env_steps"] for row in session] == [128 * n for n in range(1, 7)]
    metrics = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    for told, row in zip(metrics, session, strict=True):
        assert all(row[name] == pytest.approx(x) for name, x in told.items() if name != "step" and x is not None)
    assert "eval_return" in session[-1] and "steps_per_second" in session[-1]
    run(CONFIG, 3, tmp_path / "run", resume=True, **QUICK)
    assert json.loads((result.run_dir / "wandb.json").read_text()) == kept
    names = [path.name for path in result.run_dir.glob("wandb/offline-run-*")]
    assert len(names) == 2 and all(re.fullmatch(rf"offline-run-\d+_\d+-{kept['id']}", name) for name in names)
