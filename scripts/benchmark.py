"""Environment steps per second, and their floors: the command `jaxrl bench` for a checkout.

scripts/run scripts/benchmark.py
scripts/run scripts/benchmark.py --envs gymnax/CartPole-v1 --num-envs 8 64 4096 --agents 1 8
scripts/run scripts/benchmark.py --envs brax/humanoid --num-envs 256 --config ppo/humanoid_cpu
scripts/run scripts/benchmark.py --ablate --num-envs 2048
"""

import tyro

from jaxrl.cli import sentences
from jaxrl.cli.benchmark import bench

if __name__ == "__main__":
    with sentences():
        tyro.cli(bench)
