"""The best mean return that any policy can have on Pendulum-v1, by dynamic programming: a bound for published numbers.

    scripts/run scripts/pendulum_optimum.py

Value iteration backwards over the 200 steps of an episode, on a grid of angles, speeds and torques, with linear
interpolation in between; averaged over the starts, which are uniform in [-π, π] and [-1, 1]. Finer grids say more
precisely what it is.
"""

import numpy as np
import tyro
from scipy.ndimage import map_coordinates

STEPS, DT, GRAVITY, MOST_SPEED, MOST_TORQUE = 200, 0.05, 10.0, 8.0, 2.0


def step(angle: np.ndarray, speed: np.ndarray, torque: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(reward, angle, speed) of a rod of mass and length 1, as Gymnasium and gymnax have it; angle within [-π, π]."""
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
    speed = np.clip(speed + (1.5 * GRAVITY * np.sin(angle) + 3 * torque) * DT, -MOST_SPEED, MOST_SPEED)
    return reward, angle + speed * DT, speed


def optimum(angles: int, speeds: int, torques: int) -> float:
    """The mean return of the best policy on a grid."""
    angle = np.linspace(-np.pi, np.pi, angles, endpoint=False)
    here = np.meshgrid(angle, np.linspace(-MOST_SPEED, MOST_SPEED, speeds), indexing="ij")

    def places(angle: np.ndarray, speed: np.ndarray) -> list[np.ndarray]:
        around = (angle + np.pi) / (2 * np.pi) * angles % angles
        return [around, (speed + MOST_SPEED) / (2 * MOST_SPEED) * (speeds - 1)]

    def between(value: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
        return map_coordinates(np.vstack([value, value[:1]]), where, order=1)  # the circle closed

    moves = []
    for torque in np.linspace(-MOST_TORQUE, MOST_TORQUE, torques):
        reward, *after = step(*here, torque)
        moves.append((reward, places(*after)))
    value = np.zeros((angles, speeds))
    for _ in range(STEPS):
        value = np.max([reward + between(value, after) for reward, after in moves], axis=0)
    middles = (np.arange(1000) + 0.5) / 1000 * 2 - 1
    return float(between(value, places(*np.meshgrid(np.pi * middles, middles, indexing="ij"))).mean())


def main(finest: int = 800) -> None:
    """Print the optimum on three grids, each twice as fine as the one before.

    Args:
        finest: angles of the last.
    """
    for angles in (finest // 4, finest // 2, finest):
        print(
            f"{angles} angles, {angles * 4 // 5 + 1} speeds, 17 torques: {optimum(angles, angles * 4 // 5 + 1, 17):.2f}"
        )


if __name__ == "__main__":
    tyro.cli(main)
