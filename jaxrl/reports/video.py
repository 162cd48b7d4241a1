"""Pictures one after the other: GIF, or MP4 where ffmpeg is on PATH."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxrl.types import InputError

PERIOD = 0.04  # seconds: at most 25 pictures a second


def check_video(path: Path) -> None:
    """Raises InputError for a suffix other than .gif and .mp4, and for .mp4 where ffmpeg is not on PATH."""
    if path.suffix not in (".gif", ".mp4"):
        raise InputError(f"path has the suffix {path.suffix!r}; use .gif or .mp4.")
    if path.suffix == ".mp4" and shutil.which("ffmpeg") is None:
        raise InputError(f"{path.name} needs ffmpeg, which is not on PATH; install it or use .gif.")


def in_time(count: int, dt: float) -> tuple[np.ndarray, float]:
    """Which of `count` moments, `dt` seconds apart, are shown to keep the pace, and the seconds for which each is."""
    # A GIF holds each frame for a whole number of 10 ms, so frames are picked by time to keep the pace.
    period = max(PERIOD, round(dt, 2))
    rows = np.rint(np.arange(0, (count - 1) * dt + 1e-9, period) / dt).astype(int)
    return np.minimum(rows, count - 1), period


def write_video(path: Path, images: Iterator[np.ndarray], period: float) -> Path:
    """Write uint8 [height, width, 3] images, each shown for `period` seconds. Raises as `check_video` does."""
    check_video(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (_write_gif if path.suffix == ".gif" else _write_mp4)(path, images, period)
    return path


def _write_gif(path: Path, images: Iterator[np.ndarray], period: float) -> None:
    from PIL import Image

    # Dithering and many colours would multiply the size of the file: noise does not compress.
    pictures = (
        Image.fromarray(image).quantize(96, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE) for image in images
    )
    next(pictures).save(path, save_all=True, append_images=pictures, duration=round(1000 * period), loop=0)


def _write_mp4(path: Path, images: Iterator[np.ndarray], period: float) -> None:
    from PIL import Image

    stream = ["-f", "image2pipe", "-c:v", "ppm", "-r", f"{1 / period:.6f}", "-i", "-"]
    made = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", os.fspath(path)]
    command = ["ffmpeg", "-y", "-loglevel", "error", *stream, *made]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        for image in images:
            Image.fromarray(image).save(process.stdin, "PPM")
    if process.returncode:
        raise RuntimeError(f"ffmpeg ended with status {process.returncode}; its message is above.")
