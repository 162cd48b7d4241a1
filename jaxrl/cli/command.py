"""The command `jaxrl`:

jaxrl generate smollm2-135m "The capital of France is"

jaxrl generate smollm2-135m "Why is the sky blue?" --chat --temperature 0

jaxrl data lint reviews.jsonl --max-length 64

jaxrl merge runs/mine/adapter merged

jaxrl bench --envs brax/humanoid --num-envs 256

jaxrl render runs/mine

jaxrl report runs/mine runs/other
"""

from collections.abc import Sequence

import tyro

from jaxrl.cli.benchmark import bench
from jaxrl.cli.dataset import data
from jaxrl.cli.experiment import sentences
from jaxrl.cli.generation import generate
from jaxrl.cli.merging import merge
from jaxrl.cli.rendering import render
from jaxrl.cli.reporting import report


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input is a sentence on stderr and exit status 2."""
    with sentences():
        tyro.extras.subcommand_cli_from_dict(
            {"generate": generate, "data": data, "merge": merge, "bench": bench, "render": render, "report": report},
            args=argv,
            prog="jaxrl",
            description=__doc__,
        )


if __name__ == "__main__":
    main()
