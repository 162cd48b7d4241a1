"""A member of a sweep read back, as a run is."""

import contextlib
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrl.algorithms import ALGORITHMS
from jaxrl.config_file import load_config, save_config
from jaxrl.reports.sweep.ranking import SWEEP
from jaxrl.reports.sweep.ranking import read_sweep as ranking
from jaxrl.reports.sweep.table import PARTS, TABLE, shown
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.directory import CHECKPOINTS, CONFIG, write_json
from jaxrl.runs.loading import LoadedRun, SavedRun, policy_of
from jaxrl.settings import float32
from jaxrl.sweeps.directory import BEST, check_sweep_dir, read_sweep, update_sweep
from jaxrl.sweeps.space import read_value, with_fields
from jaxrl.sweeps.table import EVENTS, join, read
from jaxrl.training import program, takes
from jaxrl.training.compiled import functions
from jaxrl.training.given import describe
from jaxrl.types import InputError, PyTree


def load_member(sweep_dir: str | Path, member: int | None = None, **given: Any) -> LoadedRun:
    """A member of a sweep that learned by acting, with its state in the newest checkpoint. Nothing is written.

    member: its number in the table; None takes, of the configuration that the report ranks first, the one with the best
    last score. `saved.config` is the member's own, as the last of its rows has it; `saved.about` is sweep.json, with
    its `member`, `config` and `seed`. given: what the sweep was given beside its config.
    Raises InputError for a number that there is not, for a member whose state is not kept (left behind by halving, or
    not begun), and for something else than the sweep was given.
    """
    sweep_dir, about = Path(sweep_dir), read_sweep(Path(sweep_dir))
    base = load_config(sweep_dir / CONFIG, ALGORITHMS)
    if "env" not in takes(base):
        raise InputError(
            f"{sweep_dir} learned from rows, and its members are not read back; jaxrl finetune makes a model with the "
            "settings of one"
        )
    _check_given(sweep_dir, about["asked"]["given"], describe(given))
    number = _best(sweep_dir) if member is None else member
    batch = next((i for i, told in enumerate(about["batches"]) if number in told["members"]), None)
    if batch is None:
        there = sum(len(told["members"]) for told in about["batches"])
        raise InputError(f"member = {number} is not in {sweep_dir}; its members are 0 to {there - 1}")
    rows = [row for row in read(sweep_dir / PARTS / f"{batch:04d}.csv") if int(row["member"]) == number]
    with contextlib.closing(Checkpoints(sweep_dir / CHECKPOINTS / f"{batch:04d}", read_only=True)) as saves:
        left = (saves.about() or {}).get("members", [])
        if not rows or number not in left:
            reason = "it has not got as far as a checkpoint" if not left else "it was left behind"
            raise InputError(f"the state of member {number} of {sweep_dir} is not kept: {reason}")
        config = with_fields(base, {name: read_value(base, name, rows[-1][name]) for name in about["fields"]})
        p = program(config, **given)
        told = about["batches"][batch]
        found = saves.newest(_template(config, given, p, _size(told, len(left), about["asked"]["devices"])))
    state = jax.tree.map(lambda x: x[left.index(number)], found.tree["states"])
    own = {"member": number, "config": int(rows[-1]["config"]), "seed": int(rows[-1]["seed"])}
    saved = SavedRun(sweep_dir, config, {**about, **own, "given": about["asked"]["given"]})
    return LoadedRun(saved, p, state, found.notes)


def best_of(sweep_dir: Path, config: Any, fields: Sequence[str]) -> dict[str, Any]:
    """Figures of the first in the ranking, whose config is written down where the sweep's `config` is given; None where
    no member was evaluated."""
    ranked = ranking(sweep_dir).ranked
    if not ranked:
        return {"best": None}
    best = ranked[0]
    if config is not None:
        row = next(row for row in read(sweep_dir / TABLE) if int(row["config"]) == best.index)
        save_config(
            with_fields(config, {name: read_value(config, name, row[name]) for name in fields}), sweep_dir / BEST
        )
    values = {name: shown(value, 6) for name, value in best.values.items()}
    interval = None if best.low is None else [best.low, best.high]
    return {"best": best.index, "best_values": values, "best_score": best.iqm, "best_interval": interval}


def merge(parts: Sequence[Path], sweep_dir: Path) -> dict[str, Any]:
    """Make one sweep, in a new directory, of all the parts that `Plan.shard` made of it. Returns its figures.

    Raises InputError for what is no part, or has not ended, for parts of different sweeps, and for those that are
    missing or given twice.
    """
    found = [(part, read_sweep(part)) for part in parts]
    shards = [_shard(part, about) for part, about in found]
    count = shards[0][1]
    if sorted(shards) != [(i, count) for i in range(1, count + 1)]:
        told = ", ".join(f"{i}/{n}" for i, n in shards)
        raise InputError(f"these are the parts {told}; give each of the {count} once")
    asked = [{**about["asked"], "shard": None, "devices": None} for _, about in found]
    other = next((part for (part, _), own in zip(found, asked, strict=True) if own != asked[0]), None)
    if other is not None:
        wrong = next(name for name, value in asked[0].items() if asked[parts.index(other)].get(name) != value)
        raise InputError(f"{other} and {parts[0]} are parts of different sweeps: their {wrong} differ")
    check_sweep_dir(sweep_dir, {}, resume=False, resumable=False)
    found = [one for _, one in sorted(zip(shards, found, strict=True), key=lambda pair: pair[0])]
    (sweep_dir / PARTS).mkdir(parents=True, exist_ok=True)
    shutil.copy(found[0][0] / CONFIG, sweep_dir / CONFIG)
    batches, seconds = [], 0.0
    for part, about in found:
        for number, batch in enumerate(about["batches"]):
            _copy_batch(part, number, sweep_dir, len(batches))
            batches.append(batch)
        if (part / EVENTS).is_dir():
            shutil.copytree(part / EVENTS, sweep_dir / EVENTS, dirs_exist_ok=True)
        seconds += about["result"]["train_seconds"]
    about = {**found[0][1], "batches": batches, "num_members": sum(len(batch["members"]) for batch in batches)}
    about["num_configs"] = about["num_members"] // about["num_seeds"]
    about["asked"] = {name: value for name, value in about["asked"].items() if name != "shard"}
    write_json(sweep_dir / SWEEP, about)
    join(sweep_dir)
    best = best_of(sweep_dir, load_config(sweep_dir / CONFIG, ALGORITHMS), list(about["fields"]))
    figures = {"members": about["num_members"], **best, "train_seconds": round(seconds, 2), "run_dir": str(sweep_dir)}
    update_sweep(sweep_dir, result=figures)
    return figures


def _shard(part: Path, about: dict[str, Any]) -> tuple[int, int]:
    shard = about["asked"].get("shard")
    if shard is None:
        raise InputError(f"{part} is no part of a sweep, but a whole one; parts are made by --shard 1/8 and so on")
    if "result" not in about:
        raise InputError(f"{part} has not ended; jaxrl resume {part} goes on with it")
    number, _, count = shard.partition("/")
    return int(number), int(count)


def _copy_batch(part: Path, number: int, sweep_dir: Path, new: int) -> None:
    for suffix in ("csv", "json"):
        shutil.copy(part / PARTS / f"{number:04d}.{suffix}", sweep_dir / PARTS / f"{new:04d}.{suffix}")
    if (kept := part / CHECKPOINTS / f"{number:04d}").is_dir():
        shutil.copytree(kept, sweep_dir / CHECKPOINTS / f"{new:04d}")


def load_policy(
    sweep_dir: str | Path, member: int | None = None, *, behaviour: str = "mode", **given: Any
) -> Callable[..., PyTree]:
    """What a member has learned, as a function (obs, key=None) -> action, as `jaxrl.load_policy` gives it of a run.
    Arguments and errors as for `load_member`."""
    loaded = load_member(sweep_dir, member, **given)
    for note in loaded.notes:
        warnings.warn(note, stacklevel=2)
    return policy_of(loaded, behaviour, given.get("env"))


def _template(config: Any, given: dict[str, Any], p: Any, size: int) -> dict[str, Any]:
    """Shapes of what a batch saves."""
    f = functions(config, given, p)

    def stacked(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *x.shape), x.dtype)

    return jax.tree.map(stacked, {"configs": float32(config), "states": f.state, "told": f.nothing})


def _size(batch: dict[str, Any], left: int, devices: int) -> int:
    """Of the program that so many of a batch are in."""
    return batch["size"] if left == len(batch["members"]) else math.ceil(left / devices) * devices


def _best(sweep_dir: Path) -> int:
    ranked = ranking(sweep_dir).ranked
    if not ranked:
        raise InputError(
            f"no member of {sweep_dir} was evaluated, so none is the best; name one: member=0 (--member 0)"
        )
    return max(ranked[0].members, key=lambda member: (member.scores[-1], -member.number)).number


def _check_given(sweep_dir: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    for name in [*then, *now]:
        if then.get(name) != now.get(name):
            told = " and ".join(f"{name} ({what['is']})" for name, what in then.items()) or "nothing beside its config"
            raise InputError(f"{sweep_dir} was given {told}; give the same from Python: load_member(..., {name}=...)")
