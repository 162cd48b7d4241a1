"""Train what a YAML file describes, with any field changed on the command line.

    scripts/run experiments/train.py ppo/hopper
    scripts/run experiments/train.py configs/a2c/cartpole.yaml --seed 1 --learning-rate 1e-3 --num-envs 32
    scripts/run experiments/train.py ppo/cartpole --help
    scripts/run experiments/train.py DIR/config.yaml --seed 1 --run-dir DIR --resume

The first argument is a path, or a name within configs/: of those that learn by acting. (Language models: finetune.py.)
The header of each file says what result to expect. Resuming takes the config and the seed that the run was begun with.
"""

import sys

from jaxrl import cli


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        names = [name for name in cli.names() if name.split("/")[0] in ("reinforce", "a2c", "ppo")]
        print(f"{__doc__}\nconfigs: {', '.join(names)}")
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 2)
    with cli.sentences():
        config = cli.named(sys.argv[1])
    cli.launch(config, __doc__, sys.argv[2:])


if __name__ == "__main__":
    main()
