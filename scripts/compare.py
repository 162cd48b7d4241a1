"""jaxrl beside its peers, side by side in one run on one machine.

    scripts/run scripts/compare.py throughput --purejaxrl CHECKOUT --cores 0
    scripts/run scripts/compare.py learning --purejaxrl CHECKOUT
    scripts/run scripts/compare.py solve --cores 0
    NEEDS=gymnasium scripts/run scripts/compare.py gymnasium --cores 0
    scripts/run scripts/compare.py humanoid --limit 3600

- throughput: CartPole PPO with PureJaxRL's settings: steps per second of jaxrl, PureJaxRL and rejax
- learning: whether all learn as well with them
- solve: seconds from the start of a process to a return of 475, beside Stable-Baselines3 and SBX
- gymnasium: steps per second beside Stable-Baselines3 in environments that Gymnasium steps
- humanoid: beside Brax's PPO: physics alone, training, and seconds to a return

Every arm is a process of its own, in an environment of its own with exact pins, made under runs/peers on first use
(`--env rejax=PYTHON` gives one that is there). Timed arms take turns and stay alive between them; what is compiled is
compiled before. jaxrl runs first and last in each round: where these two differ by more than the ratio does from 1,
the round is void. A peer that cannot be installed or run is one line, and a row "not measured".
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from peers import cartpole, humanoid, report, solving
from peers.bench import Bench
from peers.environments import given

CartPolePeer = Literal["purejaxrl", "rejax", "sb3", "sbx"]


@dataclass
class Common:
    """What every comparison needs."""

    purejaxrl: Path | None = None
    """A checkout of PureJaxRL, which is no package."""
    env: tuple[str, ...] = ()
    """Pythons that are there already, each ARM=PYTHON."""
    peers: Path = Path("runs/peers")
    """Where environments are made, and the arms' logs."""
    cores: tuple[int, ...] = ()
    """Cores that all arms are pinned to; by default those that this process may use."""
    out: Path | None = None
    """Where the figures go as JSON; by default runs/compare_QUESTION.json."""
    markdown: Path | None = None
    """Where the table goes as Markdown; by default beside the figures."""


@dataclass
class Throughput(Common):
    """Steps per second of CartPole PPO with PureJaxRL's settings."""

    arms: tuple[CartPolePeer, ...] = ("purejaxrl", "rejax")
    """Beside jaxrl; sb3 and sbx take long with many environments."""
    num_envs: tuple[int, ...] = (4, 64, 2048)
    """Numbers of environments side by side."""
    agents: int = 16
    """Seeds side by side, of 64 environments each, in a case of their own; 0 leaves it out."""
    steps: int = 524_288
    """Steps of a timed call, about."""
    rounds: int = 7
    """Timed rounds."""

    def measure(self, bench: Bench) -> None:
        """One table, all cases."""
        cases = [(n, 1) for n in self.num_envs] + ([(64, self.agents)] if self.agents else [])
        columns, rows, figures = cartpole.throughput(bench, self.arms, cases, self.steps, self.rounds)
        title = f"CartPole PPO with PureJaxRL's settings, {self.rounds} rounds"
        finish(self, bench, "throughput", [(title, columns, rows)], figures)


@dataclass
class Learning(Common):
    """Final return on CartPole with PureJaxRL's settings."""

    arms: tuple[CartPolePeer, ...] = ("purejaxrl", "rejax")
    """Beside jaxrl; sb3 and sbx take minutes a seed."""
    num_envs: int = 4
    """Environments side by side."""
    steps: int = 500_000
    """Of each training, at most."""
    seeds: int = 20
    """Trainings of each arm."""

    def measure(self, bench: Bench) -> None:
        """One table."""
        columns, rows, figures = cartpole.learning(bench, self.arms, self.num_envs, self.steps, self.seeds)
        title = f"Mean return of the episodes that end in the last tenth of {self.steps:,} steps of CartPole PPO"
        finish(self, bench, "learning", [(title, columns, rows)], figures)


@dataclass
class Solve(Common):
    """Seconds to a return on CartPole."""

    arms: tuple[Literal["sb3", "sbx"], ...] = ("sb3", "sbx")
    """Beside jaxrl."""
    seeds: int = 5
    """Runs of each arm."""
    threshold: float = 475.0
    """Mean return of an evaluation that counts as solved."""
    every: int = 4096
    """Steps between evaluations."""
    episodes: int = 20
    """Episodes of an evaluation."""
    limit: float = 600.0
    """Seconds after which a run is given up."""

    def measure(self, bench: Bench) -> None:
        """One table."""
        asked = (self.seeds, self.threshold, self.every, self.episodes, self.limit)
        columns, rows, figures = solving.solve(bench, self.arms, *asked)
        title = f"Seconds from the start of the process to a return of {self.threshold:g} on CartPole"
        finish(self, bench, "solve", [(title, columns, rows)], figures)


@dataclass
class Gymnasium(Common):
    """Steps per second in environments that Gymnasium steps, with Stable-Baselines3's settings."""

    task: str = "Hopper-v5"
    """Gymnasium's name."""
    num_envs: tuple[int, ...] = (1, 8)
    """Numbers of environments side by side."""
    steps: int = 20_480
    """Steps of a timed call."""
    rounds: int = 5
    """Timed rounds."""

    def measure(self, bench: Bench) -> None:
        """One table."""
        columns, rows, figures = cartpole.on_host(bench, self.task, self.num_envs, self.steps, self.rounds)
        title = f"{self.task} PPO with Stable-Baselines3's settings, {self.rounds} rounds"
        finish(self, bench, "gymnasium", [(title, columns, rows)], figures)


@dataclass
class Humanoid(Common):
    """The humanoid beside Brax's PPO."""

    backend: str = "spring"
    """Physics of both."""
    physics_envs: int = 256
    """Environments of the physics alone."""
    physics_steps: int = 128
    """Steps of each environment in a timed call of the physics; 0 leaves it out."""
    steps: int = 131_072
    """Steps of a timed call of jaxrl's training, about; Brax's take 327,680 each. 0 leaves the rates out."""
    rounds: int = 3
    """Timed rounds."""
    threshold: float = 1000.0
    """Return to reach."""
    limit: float = 3600.0
    """Seconds after which a run is given up; 0 leaves it out."""
    seed: int = 0
    """Of the runs to the threshold."""

    def measure(self, bench: Bench) -> None:
        """A table of rates and one of seconds to the threshold."""
        rows, reached, figures = [], [], {}
        if self.physics_steps:
            asked = (self.backend, self.physics_envs, self.physics_steps, self.rounds)
            more, figures["physics"] = humanoid.physics(bench, *asked)
            rows += more
        if self.steps:
            more, figures["training"] = humanoid.training(bench, self.backend, self.steps, self.rounds)
            rows += more
        if self.limit:
            reached, figures["until"] = humanoid.until(bench, self.backend, self.threshold, self.limit, self.seed)
        title = f"Brax's humanoid ({self.backend})"
        columns = ("arm", f"seconds to a return of {self.threshold:g}", "steps", "return")
        tables = [(title, humanoid.SPEED, rows), (f"{title}, from the start of the process", columns, reached)]
        finish(self, bench, "humanoid", [table for table in tables if table[2]], figures)


def finish(options: Common, bench: Bench, name: str, tables: list, figures: dict) -> None:
    """Show and keep what was found."""
    figures = {**figures, "not measured": bench.missing, "options": {k: str(v) for k, v in vars(options).items()}}
    out = options.out or Path(f"runs/compare_{name}.json")
    report.show(tables, bench.started, bench.about, figures, out, options.markdown or out.with_suffix(".md"))


def checked(options: Common) -> None:
    """Raises ValueError, before anything is installed or run, for what would measure nothing."""
    for name in ("rounds", "seeds", "steps", "episodes", "every"):
        least = 0 if isinstance(options, Humanoid) and name == "steps" else 1
        if getattr(options, name, least) < least:
            raise ValueError(f"--{name} {getattr(options, name)}: give at least {least}")
    checkout = options.purejaxrl
    if checkout is not None and not (checkout / "purejaxrl" / "ppo.py").is_file():
        raise ValueError(f"--purejaxrl {checkout}: there is no {checkout / 'purejaxrl' / 'ppo.py'}; name its checkout")


def main(options: Throughput | Learning | Solve | Gymnasium | Humanoid) -> None:
    """Pin, measure, report."""
    if options.cores:
        os.sched_setaffinity(0, options.cores)  # the arms inherit it
    try:
        pythons = given(options.env)
        checked(options)
    except ValueError as sentence:
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
    options.measure(Bench(pythons, options.peers, options.purejaxrl, report.machine()))


if __name__ == "__main__":
    main(tyro.cli(Throughput | Learning | Solve | Gymnasium | Humanoid, description=__doc__))
