"""Train what a YAML file describes, with any field changed on the command line.

    scripts/run experiments/train.py ppo/hopper
    scripts/run experiments/train.py configs/a2c/cartpole.yaml --seed 1 --learning-rate 1e-3 --num-envs 32

The first argument is a path, or a name within configs/. The header of each file says what result to expect.
"""

import sys

from jaxrl import cli


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(f"{__doc__}\nconfigs: {', '.join(cli.names())}")
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 2)
    with cli.sentences():
        config = cli.named(sys.argv[1])
    cli.launch(config, __doc__, sys.argv[2:])


if __name__ == "__main__":
    main()
