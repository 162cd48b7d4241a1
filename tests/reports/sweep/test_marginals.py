"""Scores over the values of what was swept."""

import numpy as np
import pytest

from jaxrl.reports.sweep.heat import colour
from jaxrl.reports.sweep.marginals import axis, cells, influence, level, marginal, marks
from jaxrl.reports.sweep.ranking import read_sweep
from tests.reports.sweep.made import grid, made, rows_of


def read(folder, scores, fields, **values):
    sweep = read_sweep(made(folder, grid(np.asarray(scores, float)[:, None], **values), fields))
    return sweep, level(sweep)


def test_a_grid_by_hand(tmp_path):
    fields = {"learning_rate": "log:1e-3:1e-1:3", "hidden": "64,64;16"}
    values = {"learning_rate": [0.001, 0.001, 0.01, 0.01, 0.1, 0.1], "hidden": ["64,64", "16"] * 3}
    sweep, at = read(tmp_path, [1, 3, 10, 20, 6, 8], fields, **values)
    rate, hidden = (axis(sweep, name, at.configurations) for name in fields)
    assert rate.log and rate.centres.tolist() == pytest.approx([-3, -2, -1]) and rate.labels == ["0.001", "0.01", "0.1"]
    assert not hidden.log and hidden.labels == ["64,64", "16"]
    assert marginal(rate, at.scores).median.tolist() == [2, 15, 7] and marginal(rate, at.scores).low.tolist() == [
        1.5,
        12.5,
        6.5,
    ]
    assert influence(rate, at.scores) == 13 and influence(hidden, at.scores) == 2  # 8 - 6
    median, count = cells(rate, hidden, at.scores)
    assert median.tolist() == [[1, 3], [10, 20], [6, 8]] and count.tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("spec", "values", "log"),
    [("lin:.001:1:3", (0.001, 0.01, 1.0), False), (".9,.99", (0.9, 0.99), False), ("1e-4,1e-2", (1e-4, 1e-2), True),
     ("0,1,100", (0.0, 1.0, 100.0), False)],
)  # fmt: skip
def test_the_axis_is_logarithmic_where_it_was_swept_so_or_listed_numbers_lie_far_apart(tmp_path, spec, values, log):
    sweep, at = read(tmp_path, range(len(values)), {"x": spec}, x=values)
    assert axis(sweep, "x", at.configurations).log == log


def test_many_values_are_put_into_bins_and_an_empty_one_has_no_median(tmp_path):
    x = [*np.linspace(0, 0.5, 14), 1.0]
    sweep, at = read(tmp_path, [*[1] * 7, *[3] * 7, 9], {"x": "lin:0:1"}, x=x)
    own = axis(sweep, "x", at.configurations)
    found = marginal(own, at.scores)
    assert own.labels == ["0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to 1"]
    assert np.isnan(found.median[3]) and found.median[[0, 4]].tolist() == [1, 9]
    median, count = cells(own, own, at.scores)
    assert np.isnan(median[0, 4]) and count.sum() == 15


@pytest.mark.parametrize(
    ("spec", "values", "binned"),
    [("log:1e-3:1e-1", (0.001, 0.01, 0.1), True), ("log:1e-3:1e-1:3", (0.001, 0.01, 0.1), False),
     ("log:1e-3:1e-1:3", (0.001, 0.02, 0.1), True), ("lin:0:1:3", (0.0, 0.5, 1.0), False),
     ("log:16:200:3", (16, 57, 200), False), (".1,.2,.3", (0.1, 0.2, 0.3), False), ("log:1e-3:1e-1", (0.01,), False)],
)  # fmt: skip
def test_values_drawn_from_a_range_are_binned_however_few_and_those_of_a_grid_are_not(tmp_path, spec, values, binned):
    sweep, at = read(tmp_path, range(len(values)), {"x": spec}, x=values)
    assert axis(sweep, "x", at.configurations).binned == binned


def test_names_on_an_axis_do_not_run_into_each_other(tmp_path):
    sweep, at = read(tmp_path, range(4), {"gamma": ".9,.99,.995,.999"}, gamma=(0.9, 0.99, 0.995, 0.999))
    own = axis(sweep, "gamma", at.configurations)
    assert len(own.labels) == 4 and list(own.marks.values()) == ["0.9", "0.99"]


def test_halving_is_compared_while_all_are_there(tmp_path):
    rows = rows_of((5, 100)) + rows_of((9,), (50,), config=1, member=1)
    at = level(read_sweep(made(tmp_path, rows, method="halving")))
    assert dict(zip([c.index for c in at.configurations], at.scores.tolist(), strict=True)) == {0: 5, 1: 9}
    assert at.told == "score at step 50 (the last evaluation at which all were there)"


def test_marks_of_a_logarithmic_axis_are_round():
    assert list(marks(np.array([-4, 0]), True).values()) == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert list(marks(np.array([-3.0, -2.0]), True).values()) == ["0.001", "0.002", "0.005", "0.01"]
    assert len(marks(np.array([-2.9, -2.75]), True)) == 2
    assert marks(np.array([3.0, 3.0]), False) == {3.0: "3"}


def test_what_is_written_on_a_cell_stands_out_and_cells_grow_lighter():
    def light(code):
        parts = code[1:] if len(code) == 7 else "".join(2 * x for x in code[1:])
        linear = [
            (c / 12.92 if (c := int(parts[i : i + 2], 16) / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for i in (0, 2, 4)
        ]
        return np.dot([0.2126, 0.7152, 0.0722], linear)

    pairs = [tuple(map(light, colour(share))) for share in np.linspace(0, 1, 50)]
    contrast = [(max(pair) + 0.05) / (min(pair) + 0.05) for pair in pairs]
    assert min(contrast) >= 4.5  # of WCAG, AA
    assert (np.diff([filled for filled, _ in pairs]) > 0).all()
