"""Arithmetic over steps and seeds, by hand."""

import numpy as np
import pytest

from jaxrl.reports.page.statistics import Share, band, curve, interval, not_finite, share, thinned

NAN = float("nan")


def test_a_band_by_hand():
    # Two runs logged at the same steps, a third at half of them and no further than 10.
    rows = [
        [{"step": 0, "x": 1.0}, {"step": 10, "x": 3.0}, {"step": 20, "x": 5.0}],
        [{"step": 0, "x": 3.0}, {"step": 10, "x": 5.0}, {"step": 20, "x": None}],
        [{"step": 0, "x": 5.0}, {"step": 10, "x": 10.0, "y": 1.0}],
    ]
    over = band([curve(r, "x") for r in rows])
    assert over.step.tolist() == [0, 10, 20]
    assert over.mean.tolist() == [3, 6, 5]  # (1+3+5)/3, (3+5+10)/3, and the only one that is finite at 20
    assert over.low.tolist() == [1, 3, 5] and over.high.tolist() == [5, 10, 5]


def test_runs_logged_at_other_steps_are_taken_to_move_straight_between_them_and_not_beyond():
    often = curve([{"step": s, "x": 0.0} for s in (0, 5, 10)], "x")
    seldom = curve([{"step": 0, "x": 2.0}, {"step": 10, "x": 4.0}, {"step": 12, "x": 9.0}], "x")
    over = band([often, seldom])
    assert over.step.tolist() == [0, 5, 10, 12]
    assert over.high.tolist() == [2, 3, 4, 9] and over.low.tolist() == [0, 0, 0, 9]


def test_a_curve_breaks_where_a_number_was_not_finite_and_passes_over_rows_without_it():
    c = curve([{"step": 4, "x": None}, {"step": 2, "x": 1}, {"step": 3, "y": 1}, {"step": 5, "x": "text"}], "x")
    assert c.step.tolist() == [2, 4]
    np.testing.assert_array_equal(c.value, [1, NAN])


def test_an_interval_by_hand():
    # 1, 2, 3: s = 1, and t(0.975, 2) = 4.3027: half is 4.3027 / √3.
    assert interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / 3**0.5, 3), rel=1e-6)
    assert interval([7.0]) == (7.0, None, 1)


def test_shares_are_weighted_by_the_steps_of_their_rows():
    # 100 steps with 1 % and 300 with none: a quarter of a percent of 400.
    rows = [{"step": 100, "bad": 0.01}, {"step": 400, "bad": 0.0}]
    assert share(rows, "bad") == Share(pytest.approx(0.0025), 1, 2)
    assert share([*rows, {"step": 500, "bad": None}], "bad") == Share(pytest.approx(0.0025), 2, 3)
    assert share(rows, "other") is None


def test_what_is_not_finite_is_counted_by_name():
    assert not_finite([{"step": 1, "a": None, "b": 1.0}, {"step": 2, "a": None, "b": None}]) == {"a": 2, "b": 1}


def test_thinning_keeps_both_ends():
    many = np.arange(1001)
    few = thinned(many, 100)
    assert len(few) == 100 and few[0] == 0 and few[-1] == 1000
    assert thinned(many[:100], 100) is not None and len(thinned(many[:100], 100)) == 100
