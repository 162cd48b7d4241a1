"""What is drawn of an environment that nobody has drawn: the numbers of its observations, over time."""

import colorsys

import jax
import numpy as np

from jaxrl.reports.drawing.canvas import FAINT, INK, Canvas, Colour
from jaxrl.types import PyTree

WIDTH, HEIGHT, MOST = 480, 320, 12


def numbers(obs: PyTree) -> np.ndarray:
    """Observations [T, …] of any structure, as float [T, numbers]."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(obs)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def lines(values: np.ndarray, t: int) -> np.ndarray:
    """A lane for each of the numbers [T, numbers], up to twelve, from the start of the episode to step `t`; each lane
    reaches from the least to the greatest value of the episode."""
    count, steps = min(values.shape[1], MOST), max(1, len(values) - 1)
    canvas = Canvas(WIDTH, HEIGHT, (WIDTH / 2, -HEIGHT / 2))
    lane = (HEIGHT - 20) / count
    for i in range(count):
        bottom = -10 - lane * (i + 1)
        canvas.line([(74, bottom + lane / 2), (WIDTH - 10, bottom + lane / 2)], FAINT, 1)
        canvas.text((10, bottom + lane / 2), f"{values[t, i]:+.3g}", _hue(i, count), min(13, round(lane) - 2))
        column = values[:, i][np.isfinite(values[:, i])]
        low, high = (column.min(), column.max()) if len(column) else (0.0, 0.0)
        share = (values[: t + 1, i] - low) / (high - low) if high > low else np.full(t + 1, 0.5)
        x = 74 + (WIDTH - 84) * np.arange(t + 1) / steps
        canvas.line(np.stack([x, bottom + lane * (0.12 + 0.76 * share)], axis=1), _hue(i, count), 1.6)
    x = 74 + (WIDTH - 84) * t / steps
    canvas.line([(x, -8), (x, 8 - HEIGHT)], INK, 1)
    more = values.shape[1] - count
    if more > 0:
        canvas.text((WIDTH - 10, 8 - HEIGHT), f"and {more} more", size=10, anchor="rs")
    return canvas.picture()


def _hue(i: int, count: int) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(i / count, 0.42, 0.6)
    return round(255 * red), round(255 * green), round(255 * blue)
