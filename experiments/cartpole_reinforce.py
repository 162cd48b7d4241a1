"""CartPole by REINFORCE: a policy gradient and nothing else.

    scripts/run experiments/cartpole_reinforce.py
    scripts/run experiments/cartpole_reinforce.py --seed 3 --learning-rate 5e-3 --no-baseline

Every update plays one complete episode in each of 32 CartPoles and follows -log π(a|s)·(G - b(s)). The settings are
those of configs/reinforce/cartpole.yaml; each is an option here (`--help`). A solved CartPole returns 500.
"""

from jaxrl import cli


def main() -> None:
    cli.launch(cli.named("reinforce/cartpole"), __doc__)


if __name__ == "__main__":
    main()
