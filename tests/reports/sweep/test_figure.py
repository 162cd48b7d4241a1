"""The picture of a sweep."""

import numpy as np
import pytest
from PIL import Image

from jaxrl.reports.sweep.figure import sensitivity_figure
from jaxrl.types import InputError
from tests.reports.sweep.made import grid, made, rows_of


def test_a_picture_is_drawn_with_a_panel_for_each_field(tmp_path):
    values = {"learning_rate": [0.001, 0.01, 0.1] * 2, "hidden": ["64,64"] * 3 + ["16"] * 3}
    scores = np.arange(6.0)[:, None] + np.arange(5)
    folder = made(tmp_path, grid(scores, **values), {"learning_rate": "log:1e-3:1e-1:3", "hidden": "64,64;16"})
    image = Image.open(sensitivity_figure(folder, tmp_path / "new" / "sweep.png"))
    assert image.width == 1200 and len(image.convert("RGB").getcolors(2**20)) > 100
    alone = made(tmp_path / "alone", grid(scores[:1]))
    assert Image.open(sensitivity_figure(alone, tmp_path / "alone.png")).height < image.height


def test_before_any_evaluation_it_is_refused(tmp_path):
    with pytest.raises(InputError, match="has been evaluated yet"):
        sensitivity_figure(made(tmp_path, rows_of((None, None))), tmp_path / "x.png")
