"""The zoo: configs that ship, on seeds that no tuning has seen; RESULTS.md says how well they learn.

    scripts/run scripts/zoo.py                     all of it, resumable; what has ended is kept
    scripts/run scripts/zoo.py ppo/cartpole        some of it
    scripts/run scripts/zoo.py --write             RESULTS.md of what has ended in runs/zoo, without running anything

Stopped, or killed, the same command goes on. Each row is one sweep over seeds, by the command that stands in it. Rows
of RESULTS.md that other machines have made stay, as long as their command does.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jaxrl.reports.statistics import interquartile_mean, interval
from jaxrl.reports.sweep.ranking import Sweep, read_sweep

ROOT = Path(__file__).parent.parent
BARS = "▁▂▃▄▅▆▇█"
TEN, FEW = "2000:2010", "2000:2003"  # of those that take a minute, and of those that take many


@dataclass(frozen=True)
class Entry:
    """A row. least: the return below which a seed has failed. published: the best number known on the same task, and
    `where`."""

    title: str
    least: float
    published: float | None = None
    where: str = "none known"
    seeds: str = "2000:2048"


ZOO = {
    "ppo/cartpole": Entry("CartPole-v1", 475, 500, "rl-zoo3, 0.1M"),
    "a2c/cartpole": Entry("CartPole-v1", 475, 497, "SLM-Lab", "3000:3048"),  # an earlier choice was judged by others
    "reinforce/cartpole": Entry("CartPole-v1", 475, 483, "SLM-Lab"),
    "ppo/acrobot": Entry("Acrobot-v1", -90, -73.5, "rl-zoo3, 1M"),
    "a2c/acrobot": Entry("Acrobot-v1", -95),
    "reinforce/acrobot": Entry("Acrobot-v1", -95),
    "ppo/pendulum": Entry("Pendulum-v1", -200, -130, "rl-zoo3, 1M"),
    "ppo/mountain_car": Entry("MountainCar-v0", -115, -110, "rl-zoo3, 1M"),
    "ppo/mountain_car_continuous": Entry("MountainCarContinuous-v0", 88, 92, "rl-zoo3"),
    "a2c/mountain_car_continuous": Entry("MountainCarContinuous-v0", 88, 92, "rl-zoo3"),
    "ppo/inverted_pendulum": Entry("Brax inverted pendulum", 950, seeds=TEN),
    "ppo/inverted_double_pendulum": Entry("Brax inverted double pendulum", 9000, seeds="3000:3010"),  # as above
    "ppo/reacher": Entry("Brax reacher", -35, seeds=TEN),
    "ppo/hopper": Entry("Brax hopper", 1500, None, "3128 of MuJoCo's (Tianshou, 3M)", FEW),
    "ppo/walker2d": Entry("Brax walker2d", 1500, None, "4896 of MuJoCo's (Tianshou, 3M)", FEW),
    "ppo/halfcheetah": Entry("Brax halfcheetah", 1000, None, "7337 of MuJoCo's (Tianshou, 3M)", FEW),
    "ppo/ant": Entry("Brax ant", 3000, None, "4079 of MuJoCo's (Tianshou, 3M)", FEW),
    "ppo/humanoid_cpu": Entry("Brax humanoid", 3000, None, "1360 of MuJoCo's (Tianshou, 3M)", FEW),
    "ppo/breakout": Entry("MinAtar Breakout", 28, 40, "PureJaxRL, 10M, by eye; gymnax 28", FEW),
    "ppo/breakout_cnn": Entry("MinAtar Breakout, convolution", 28, 40, "PureJaxRL, 10M, by eye; gymnax 28", FEW),
    "ppo/space_invaders": Entry("MinAtar Space Invaders", 131, 131, "gymnax, 10M", FEW),
    "ppo/freeway": Entry("MinAtar Freeway", 50, 58, "gymnax, 10M", FEW),
    "ppo/asterix": Entry("MinAtar Asterix", 15, 15, "gymnax, 10M", FEW),
}

PENDULUM = """Of Pendulum-v1 no policy has a mean return above about -137, so -130 is what a few lucky starts show:
`scripts/run scripts/pendulum_optimum.py` finds -138.90, -137.92 and -137.45 on finer and finer grids (2026-11-28)."""


def main(names: tyro.conf.Positional[tuple[str, ...]] = (), runs: Path = Path("runs/zoo"), write: bool = False) -> int:
    """Run the zoo, or the entries named, and write RESULTS.md of all that has ended.

    Args:
        names: configs, as in ppo/cartpole.
        runs: where the sweeps are kept.
        write: only write RESULTS.md.
    """
    unknown = set(names) - set(ZOO)
    if unknown:
        print(f"error: unknown entry {', '.join(sorted(unknown))}; there are {', '.join(ZOO)}", file=sys.stderr)
        return 2
    for name in () if write else names or ZOO:
        folder = runs / name.replace("/", "_")
        begun = (folder / "sweep.json").is_file()
        command = ["resume", str(folder)] if begun else [*words(name), "--run-dir", str(folder)]
        print(f"jaxrl {shlex.join(command)}", flush=True)
        status = subprocess.run([sys.executable, "-m", "jaxrl", *command], check=False).returncode
        if status:
            return status
        if json.loads((folder / "sweep.json").read_text()).get("result") is None:  # asked to stop
            return 0
    ended = {name: read_sweep(runs / name.replace("/", "_")) for name in ZOO if has_ended(runs, name)}
    results = ROOT / "RESULTS.md"
    made = {name: (row(name, sweep), machine(sweep.about)) for name, sweep in ended.items()}
    results.write_text(page(kept(results.read_text()) | made))
    print(json.dumps({name: round(float(interquartile_mean(scores(sweep))), 2) for name, sweep in ended.items()}))
    return 0


def words(name: str) -> list[str]:
    """What follows `jaxrl` in the command of an entry."""
    return ["sweep", name, "--seeds", ZOO[name].seeds]


def has_ended(runs: Path, name: str) -> bool:
    path = runs / name.replace("/", "_") / "sweep.json"
    return path.is_file() and "result" in json.loads(path.read_text())


def scores(sweep: Sweep) -> np.ndarray:
    """The last of each seed; a seed that diverged counts as the worst."""
    return sweep.ranked[0].scores


def kept(page: str) -> dict[str, tuple[str, str]]:
    """Of the rows of a RESULTS.md, by entry, those whose command is still the entry's: cells, and the machine."""
    machines = dict(re.findall(r"^(\d+)\. (.*)$", page, re.M))
    rows = {
        command: (cells, machines[on]) for cells, command, on in re.findall(r"^(.*(`.*`) \|) (\d+) \|$", page, re.M)
    }
    return {name: rows[command(name)] for name in ZOO if command(name) in rows}


def page(rows: dict[str, tuple[str, str]]) -> str:
    """RESULTS.md of the rows, as `kept` and `row` give them."""
    rows = {name: rows[name] for name in ZOO if name in rows}
    machines = list(dict.fromkeys(where for _, where in rows.values()))
    head = """# Results

Every row is a config that ships, trained with seeds that took no part in choosing its settings, all in one program,
by `scripts/run scripts/zoo.py` (which writes this page). The return is that of the deterministic policy over 128
whole episodes at the end of training, of every seed: the interquartile mean over seeds with its 95 % bootstrap
interval (Agarwal et al. 2021), the worst seed, and how many ended below the return at which we call a task learned.
Of fewer than five seeds each is shown, and no interval. Failed seeds stay in. Seconds are of training all seeds of a
row together, evaluations included, divided by their number. The curve is the interquartile mean along the way, from
the least to the greatest of its row.
"""
    table = [
        "| algorithm | task | steps | seeds | return | worst | failed | published | seconds a seed | curve | command"
        " | on |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *[f"{cells} {1 + machines.index(where)} |" for cells, where in rows.values()],
    ]
    large = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "configs").glob("*/*_gpu.yaml"))
    missing = {"Not run yet": [name for name in ZOO if name not in rows]}
    missing["Not measured, for no accelerator has run them"] = [*large, "ppo/humanoid"]
    told = [f"{why}: {', '.join(f'`{name}`' for name in names)}." for why, names in missing.items() if names]
    where = "\n".join(f"{number}. {told}" for number, told in enumerate(machines, 1))
    return "\n\n".join([head + "\nOn:\n" + where, "\n".join(table), PENDULUM, *told]) + "\n"


def row(name: str, sweep: Sweep) -> str:
    """One line of the table, up to where it was made."""
    entry, found, about = ZOO[name], scores(sweep), sweep.about
    value, low, high = interval(found)
    told = ", ".join(f"{x:.4g}" for x in found) if low is None else f"{value:.4g} [{low:.4g}, {high:.4g}]"
    failed = f"{int((found < entry.least).sum())} below {entry.least:g}"
    seconds = about["result"]["train_seconds"] / len(found)
    cells = [
        about["algorithm"].upper(),
        entry.title,
        f"{about['total_steps']:,}",
        len(found),
        told,
        f"{found.min():.4g}",
    ]
    cells += [failed, published(entry, value, high), f"{seconds:.1f}", curve(sweep), command(name)]
    return "| " + " | ".join(map(str, cells)) + " |"


def command(name: str) -> str:
    """The command of an entry, as it is printed."""
    return f"`jaxrl {shlex.join(words(name))}`"


def published(entry: Entry, value: float, high: float | None) -> str:
    """The best number known, and by how much ours misses it, where it lies above our interval."""
    if entry.published is None:
        return entry.where
    missed = f", missed by {entry.published - value:.3g}" if (value if high is None else high) < entry.published else ""
    return f"{entry.published:g} ({entry.where}){missed}"


def curve(sweep: Sweep) -> str:
    """The interquartile mean of what the seeds scored at each evaluation, as bars."""
    along = np.array(
        [interquartile_mean(np.array(step)) for step in zip(*[m.scores for m in sweep.members], strict=True)]
    )
    share = (along - along.min()) / np.ptp(along) if np.ptp(along) else np.ones(len(along))
    return "".join(BARS[round((len(BARS) - 1) * x)] for x in share)


def machine(about: dict) -> str:
    """Where, with what and when a row was made."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("jaxrl", "jax", "jaxlib", "brax", "gymnax", "python"))
    where = f"{about['model']}, {about['cores']} cores, members on {about['asked']['devices']}"
    return f"{where}; {versions}; {str(about.get('git'))[:9]}; {about['begun'][:10]}"


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
