"""Boards of cells, MinAtar's first of all: a colour for each channel, and a legend beside the board."""

from collections.abc import Sequence

import numpy as np

from jaxrl.reports.drawing.canvas import INK, Canvas, Colour

BOARD, LEGEND = 320, 130
EMPTY, LINES = (24, 26, 34), (38, 41, 52)

# One thing has one colour in every game: what is steered is green, what kills is red, what pays is gold.
_PLAYER, _ENEMY, _PRIZE, _TRAIL, _SHOT = (102, 204, 120), (232, 86, 80), (244, 200, 74), (92, 100, 124), (240, 240, 244)
_BLUES = [(86, 120, 168), (96, 152, 200), (110, 182, 222), (140, 206, 232), (176, 226, 240)]
MINATAR: dict[str, tuple[tuple[str, Colour], ...]] = {
    "gymnax/Asterix-MinAtar": (("player", _PLAYER), ("enemy", _ENEMY), ("trail", _TRAIL), ("gold", _PRIZE)),
    "gymnax/Breakout-MinAtar": (("paddle", _PLAYER), ("ball", _SHOT), ("trail", _TRAIL), ("brick", (214, 122, 72))),
    "gymnax/Freeway-MinAtar": (
        ("chicken", _PLAYER),
        ("car", _ENEMY),
        *((f"speed {i + 1}", blue) for i, blue in enumerate(_BLUES)),
    ),
    "gymnax/Seaquest-MinAtar": (
        ("submarine", _PLAYER),
        ("its stern", (58, 130, 78)),
        ("torpedo", _SHOT),
        ("trail", _TRAIL),
        ("enemy shot", (250, 150, 200)),
        ("fish", _ENEMY),
        ("enemy sub", (176, 70, 160)),
        ("oxygen", (110, 182, 222)),
        ("divers held", (190, 150, 40)),
        ("diver", _PRIZE),
    ),
    "gymnax/SpaceInvaders-MinAtar": (
        ("cannon", _PLAYER),
        ("alien", _ENEMY),
        ("moves left", (176, 70, 160)),
        ("moves right", (86, 120, 210)),
        ("shot", _SHOT),
        ("alien's shot", _PRIZE),
    ),
}
# What MinAtar's six actions are called; `raw.action_set` of a game says which of them it takes.
ACTIONS = ("no-op", "left", "up", "right", "down", "fire")
_OTHERS = [_SHOT, _PLAYER, _ENEMY, _PRIZE, *_BLUES[1:4], (176, 70, 160), (214, 122, 72), _TRAIL, (250, 150, 200)]


def is_board(obs: np.ndarray) -> bool:
    """Whether an observation is cells in rows and columns, with no more channels than there are colours."""
    sizes = obs.shape[:2]
    return obs.ndim in (2, 3) and max(sizes) <= 64 and min(sizes) > 1 and obs[0, 0].size <= len(_OTHERS)


def channels(count: int) -> list[tuple[str, Colour]]:
    """Names and colours of the channels of a board that nobody has named."""
    return [(f"channel {i}" if count > 1 else "", _OTHERS[i]) for i in range(count)]


def board(obs: np.ndarray, legend: Sequence[tuple[str, Colour]]) -> np.ndarray:
    """A board [rows, columns, channels] or [rows, columns], and its legend.

    In a cell with several channels the lower ones lie smaller upon the higher. Values from 0 to 1 are shades.
    """
    obs = np.clip(np.nan_to_num(np.asarray(obs, np.float64)), 0, 1).reshape(*obs.shape[:2], -1)
    rows, columns, count = obs.shape
    colours, legend = [colour for _, colour in legend], [entry for entry in legend if entry[0]]
    cell, beside = BOARD // max(rows, columns), LEGEND * bool(legend)
    width, height = max(cell * columns, BOARD - beside), max(cell * rows, 22 * len(legend) + 10)
    canvas = Canvas(width + beside, height, ((width + beside) / 2, -height / 2))
    left = (width - cell * columns) / 2
    for y, x in np.ndindex(rows, columns):
        low, high = (left + x * cell, -(y + 1) * cell), (left + (x + 1) * cell, -y * cell)
        canvas.box(low, high, EMPTY, LINES)
        present = [c for c in reversed(range(count)) if obs[y, x, c] > 0]
        for depth, c in enumerate(present):
            edge = 1 + cell * min(0.2 * depth, 0.4)
            inner = (low[0] + edge, low[1] + edge), (high[0] - edge, high[1] - edge)
            canvas.box(*inner, _shade(colours[c], obs[y, x, c]))
    for i, (name, colour) in enumerate(legend):
        at = -16 - 22 * i
        canvas.box((width + 14, at - 7), (width + 28, at + 7), colour, INK)
        canvas.text((width + 36, at), name, size=12)
    return canvas.picture()


def _shade(colour: Colour, value: float) -> Colour:
    red, green, blue = (round(low + value * (high - low)) for low, high in zip(EMPTY, colour, strict=True))
    return red, green, blue
