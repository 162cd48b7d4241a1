"""Curves as SVG: where points lie, and what is said of them."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from jaxrl.reports.page.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, plot, ticks


def drawn(*series, **levels):
    return ElementTree.fromstring(plot("Return & <more>", "about", series, "steps", levels))


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", path.get("d"))]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 0.0009, [0, 0.0002, 0.0004, 0.0006, 0.0008, 0.001]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


def test_points_lie_where_their_axes_say():
    svg = drawn(Series(np.array([0, 50, 100.0]), np.array([0, 5, 10.0]), 3, "mean"))
    (line,) = [p for p in svg.iter("path") if p.get("class") == "line c3"]
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    assert points(line) == [(LEFT, TOP + down), (LEFT + across / 2, TOP + down / 2), (LEFT + across, TOP)]
    assert svg.find("title").text == "Return & <more>" and svg.find("desc").text == "about"


def test_a_line_breaks_where_a_number_is_not_finite_and_a_lone_point_is_seen():
    x = np.arange(5.0)
    svg = drawn(Series(x, np.array([1, 2, np.nan, 3, 4]), 0, "mean"))
    (line,) = [p for p in svg.iter("path") if p.get("class") == "line c0"]
    assert line.get("d").count("M") == 2 and len(points(line)) == 4
    lone = drawn(Series(x, np.array([np.nan, 2, np.nan, np.nan, np.nan]), 0, "mean"))
    assert len(list(lone.iter("circle"))) == 1
    plotted = json.loads(svg.get("data-plot"))["lines"]
    assert plotted == [["mean", [0, 1, 2, 3, 4], [1, 2, None, 3, 4]]]


def test_a_level_line_has_room_and_levels_are_named():
    svg = drawn(Series(np.array([0, 1.0]), np.array([5, 5.0]), 0, "mean"), **{"zero action": 2.0, "gone": np.nan})
    texts = [t.text for t in svg.iter("text")]
    assert "zero action" in texts and "gone" not in texts
    assert len(set(texts)) == len(texts)  # no two ticks read the same


def test_a_band_reaches_from_low_to_high_and_seeds_are_thin_and_unnamed():
    x, y = np.array([0, 10.0]), np.array([5.0, 5.0])
    seeds = [Series(x, y - 5, 1), Series(x, y + 5, 1)]
    svg = drawn(*seeds, Series(x, y, 1, "mean", band=(y - 5, y + 5)))
    (edge,) = [p for p in svg.iter("path") if p.get("class") == "band c1"]
    heights = {y for _, y in points(edge)}
    assert heights == {TOP, HEIGHT - BOTTOM}
    assert sum(p.get("class") == "thin c1" for p in svg.iter("path")) == 2
    assert [name for name, *_ in json.loads(svg.get("data-plot"))["lines"]] == ["mean"]


def test_an_axis_can_have_marks_of_its_own_and_dots_stand_without_a_line():
    dots = Series(np.array([-3.0, -2.0, -1.0]), np.array([1.0, 2.0, 3.0]), 7, scattered=True)
    svg = ElementTree.fromstring(plot("t", "a", [dots], "rate", {}, {-3.0: "0.001", -1.0: "0.1"}, {2.0: "two"}))
    assert [t.text for t in svg.iter("text")] == ["two", "0.001", "0.1", "rate"] and svg.get("data-plot") is None
    circles = [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter("circle")]
    across = (WIDTH - LEFT - RIGHT) / 1.1  # a twentieth of room on either side
    assert circles[0][0] == pytest.approx(LEFT + 0.05 * across, abs=0.01)
    assert circles[2][0] - circles[0][0] == pytest.approx(across, abs=0.01)
    assert not list(svg.iter("path"))
