"""256 PPO agents on CartPole: eight learning rates × two λ × sixteen seeds, as one compiled program.

    scripts/run experiments/cartpole_sweep.py
    scripts/run experiments/cartpole_sweep.py --seeds 4 --total-steps 51200

Ends with a table of every member and step (table.csv, table.parquet), a report (report.html: which configuration is
best, and whether the evidence says so) and a picture. The same from the command line, with anything else swept:

    jaxrl sweep ppo/cartpole --sweep.learning-rate log:1e-4:1e-2:8 --sweep.gae-lambda .8,.95 --seeds 16

On a CPU one program saves compiling, not time, and its members are spread over the cores; on an accelerator it saves
both.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxrl import Plan, Schedule, cli, sweep
from jaxrl.ops.platform import cores
from jaxrl.reports.sweep import write_sweep_report
from jaxrl.reports.sweep.figure import sensitivity_figure

FIELDS = {"learning_rate": "log:1e-4:1e-2:8", "gae_lambda": [0.8, 0.95]}


@dataclass(frozen=True)
class Options:
    """What is asked of the sweep."""

    seeds: int = 16
    """Seeds of every configuration."""
    schedule: Schedule = Plan().schedule
    """How often each member is logged and evaluated, and all are saved."""
    run_dir: Path | None = None
    """Where to write; by default a new directory under runs/."""
    resume: bool = False
    """Go on with the sweep in run_dir, exactly."""


def main() -> None:
    jax.config.update("jax_num_cpu_devices", cores())
    config, options = cli.parse(cli.named("ppo/cartpole"), __doc__, options=Options())
    with cli.sentences():
        plan = Plan(seeds=options.pop("seeds"), schedule=options.pop("schedule"))
        found = sweep(config, FIELDS, plan, **options)
        print(f"table       {found.table}")
        print(f"report      {write_sweep_report(found.run_dir / 'report.html', found.run_dir)}")
        print(f"picture     {sensitivity_figure(found.run_dir, found.run_dir / 'sweep.png')}")
        print(json.dumps(found.figures))


if __name__ == "__main__":
    main()
