"""Train what a YAML file describes, with any field changed on the command line.

    scripts/run experiments/train.py ppo/hopper
    scripts/run experiments/train.py configs/a2c/cartpole.yaml --seed 1 --learning-rate 1e-3 --num-envs 32
    scripts/run experiments/train.py ppo/cartpole --help
    scripts/run experiments/train.py DIR/config.yaml --seed 1 --run-dir DIR --resume

The first argument is a path, or a name within configs/: of those that learn by acting. (Language models: finetune.py.)
The header of each file says what result to expect. Resuming takes the config and the seed that the run was begun with;
`jaxrl resume DIR` knows them. This is `jaxrl train`, from a checkout.
"""

import sys

from jaxrl import cli

if __name__ == "__main__":
    with cli.sentences():
        cli.train(sys.argv[1:], __doc__)
