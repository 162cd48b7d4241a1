"""Sweeps by hand."""

import csv
import json

import numpy as np


def rows_of(scores, steps=(50, 100), config=0, seed=0, member=0, diverged=False, **values):
    """Rows of one member: a score at each step."""
    own = {"member": member, "config": config, "seed": seed}
    return [
        {**own, "step": step, **values, "score": score, "diverged": int(diverged and step == steps[-1])}
        for step, score in zip(steps, scores, strict=True)
    ]


def made(folder, rows, fields=None, *, ended=True, parts=False, **about):
    """The directory of a sweep that has these rows, dicts of the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = sorted({row["seed"] for row in rows})
    told = {"algorithm": "ppo", "subject": "gymnax/CartPole-v1", "fields": fields or {}, "method": "grid"}
    told |= {"num_configs": len({r["config"] for r in rows}), "num_members": len({r["member"] for r in rows})}
    told |= {"num_seeds": len(seeds), "seeds": seeds, "total_steps": 100, "begun": "2026-11-28 09:00 UTC"}
    told |= {"unit": {"name": "env_steps", "label": "environment steps"}, "platform": "cpu", "cores": 2, "git": "abc"}
    told |= {"command": ["/v/bin/python", "/v/bin/jaxrl", "sweep", "ppo/x", "--seeds", "3", "--run-dir", "here"]}
    told |= {"result": {"train_seconds": 12.5}} if ended else {}
    (folder / "sweep.json").write_text(json.dumps(told | about))
    (folder / "config.yaml").write_text("algorithm:\n  name: ppo\n")
    path = folder / "parts" / "0000.csv" if parts else folder / "table.csv"
    write(path, rows)
    return folder


def write(path, rows):
    """Rows as the file of a table; None is an empty cell."""
    path.parent.mkdir(exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([{n: "" if x is None else x for n, x in row.items()} for row in rows])


def grid(scores, **fields):
    """Rows of configurations [C, seeds] that end with these scores; fields: a value for each configuration."""
    rows = []
    for c, seeds in enumerate(np.asarray(scores, float)):
        for s, score in enumerate(seeds.tolist()):
            own = {name: values[c] for name, values in fields.items()}
            rows += rows_of((score / 2, score), config=c, seed=s, member=c * len(seeds) + s, **own)
    return rows
