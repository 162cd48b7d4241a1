"""A sheet to draw on in the units of the scene: drawn three times too large and averaged, which smooths every edge."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FINE = 3
INK, PAPER, FAINT = (40, 42, 54), (255, 255, 255), (214, 217, 224)
STRIP = 26

Colour = tuple[int, int, int]
Point = tuple[float, float]


class Canvas:
    """`width` x `height` pixels, of which (x, y) of the scene, y upwards, is the centre and `scale` make one unit.

    Widths of lines and radii are in pixels.
    """

    def __init__(self, width: int, height: int, centre: Point = (0, 0), scale: float = 1, paper: Colour = PAPER):
        self._image = Image.new("RGB", (FINE * width, FINE * height), paper)
        self._draw = ImageDraw.Draw(self._image)
        self._origin = np.array([width / 2 - scale * centre[0], height / 2 + scale * centre[1]]) * FINE
        self._scale = np.array([scale, -scale]) * FINE

    def _at(self, points: Any) -> list[tuple[float, float]]:
        points = np.asarray(points, np.float64).reshape(-1, 2)
        far = 4 * np.array(self._image.size)  # whatever lies further out is cut off in any case
        return [tuple(p) for p in np.clip(self._origin + self._scale * points, -far, far)]

    def line(self, points: Sequence[Point], colour: Colour = INK, width: float = 2) -> None:
        """Through all points, with round ends and joints."""
        at, width = self._at(points), FINE * width
        self._draw.line(at, colour, round(width))
        for x, y in at if width > 2 * FINE else []:
            self._draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], colour)

    def polygon(self, points: Sequence[Point], colour: Colour, outline: Colour | None = None) -> None:
        """Filled; its outline is a pixel wide."""
        at = self._at(points)
        self._draw.polygon(at, colour, outline, FINE)

    def box(self, low: Point, high: Point, colour: Colour, outline: Colour | None = None) -> None:
        """A rectangle between two corners."""
        self.polygon([low, (high[0], low[1]), high, (low[0], high[1])], colour, outline)

    def circle(self, centre: Point, radius: float, colour: Colour, outline: Colour | None = None) -> None:
        """Filled."""
        ((x, y),), r = self._at([centre]), FINE * radius
        self._draw.ellipse([x - r, y - r, x + r, y + r], colour, outline, FINE)

    def text(self, at: Point, text: str, colour: Colour = INK, size: int = 13, anchor: str = "lm") -> None:
        """anchor: as Pillow names it; "lm" is left and middle."""
        self._draw.text(self._at([at])[0], text, colour, _font(FINE * size), anchor)

    def picture(self) -> np.ndarray:
        """uint8 [height, width, 3]."""
        return np.asarray(self._image.reduce(FINE))


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def captioned(picture: np.ndarray, *texts: str) -> np.ndarray:
    """The picture with a strip of up to three texts below it, each at its place: uint8 [H + STRIP, W, 3]."""
    height, width = picture.shape[:2]
    strip = Canvas(width, STRIP, (width / 2, 0), paper=(244, 245, 248))
    for text, share in zip(texts, (0.03, 0.26, 0.6), strict=False):
        strip.text((share * width, 0), text)
    return np.concatenate([picture, strip.picture()])
