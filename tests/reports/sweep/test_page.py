"""A sweep's page as a whole: self-contained, escaped, and what it shows of which search."""

import re

import numpy as np
import pytest

from jaxrl.reports.sweep import write_sweep_report
from jaxrl.reports.sweep.ranking import read_sweep
from tests.reports.page.test_page import EVIL, Page, text_of
from tests.reports.sweep.made import grid, made, rows_of


def page_of(folder, rows, fields=None, **about):
    made(folder, rows, fields, **about)
    return Page(write_sweep_report(folder / "report.html", folder).read_text(encoding="utf-8"))


def headings(page):
    return [attributes["id"] for tag, attributes in page.tags if tag == "h2"]


FIELDS = {"learning_rate": "log:1e-3:1e-1:3", "hidden": "64,64;16"}
VALUES = {"learning_rate": [0.001, 0.001, 0.01, 0.01, 0.1, 0.1], "hidden": ["64,64", "16"] * 3}
SCORES = np.array([10, 20, 100, 200, 50, 60.0])[:, None] + np.linspace(-5, 5, 8)


def test_a_grid_has_a_verdict_a_ranking_sensitivities_pairs_and_curves(tmp_path):
    page = page_of(tmp_path, grid(SCORES, **VALUES), FIELDS)
    text = text_of(page)
    assert headings(page) == [
        "what-it-says",
        "ranking",
        "sensitivity",
        "pairs-of-settings",
        "curves",
        "settings",
        "run-it-again",
    ]
    assert "Sweep of PPO on gymnax/CartPole-v1" in text and "48: 6 configurations × 8 seeds" in text
    assert "ended, 12.5 s of training; none diverged" in text and "0 to 7" in text
    assert "Config 3 (learning_rate = 0.01, hidden = 16) has an interquartile mean score of 200" in text
    assert page.row("2")[::3][:2] == ["100", "100% (100% to 100%)"] and page.row("3")[3] == "–"
    assert page.row("2")[-3:] == ["0", "0.01", "64,64"]
    assert page.row("0.01") == ["100", "200"]  # of the heat map
    assert "jaxrl sweep ppo/x --seeds 3" in text and "jaxrl resume" not in text and "name: ppo" in text


def test_nothing_is_fetched_from_elsewhere(tmp_path):
    page = page_of(tmp_path, grid(SCORES, **VALUES), FIELDS)
    for tag, attributes in page.tags:
        assert tag not in ("link", "object", "embed", "base", "img", "iframe")
        assert "src" not in attributes and (tag != "a" or attributes["href"].startswith("#"))
    assert "url(" not in (tmp_path / "report.html").read_text()
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert all(attributes["href"][1:] in targets for tag, attributes in page.tags if tag == "a")


def test_whatever_a_user_wrote_is_text(tmp_path):
    rows = grid(SCORES[:2], **{EVIL: [EVIL, "b"], "x": [1, 2]})
    about = {"algorithm": EVIL, "subject": EVIL, "score": EVIL, "git": EVIL, "command": ["python", EVIL], "begun": EVIL}
    page = page_of(tmp_path, rows, {EVIL: EVIL, "x": EVIL}, **about)
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 1 and "img" not in names
    assert text_of(page).count('<script>alert("1")</script>') > 10


def test_one_seed_has_no_columns_of_seeds(tmp_path):
    text = text_of(page_of(tmp_path, grid(SCORES[:, :1], **VALUES), FIELDS))
    assert "one seed cannot tell" in text and "worst seed" not in text and "best: one seed each" in text
    assert "from the lowest to the highest" in text_of(page_of(tmp_path / "few", grid(SCORES[:, :3])))


def test_what_diverged_is_marked_in_its_row(tmp_path):
    rows = grid(SCORES, **VALUES)
    for row in rows[-6::2]:
        row |= {"diverged": 1}
    rows[-1] |= {"score": "nan", "diverged": 1}
    page = page_of(tmp_path, rows, FIELDS)
    assert page.row("5")[4] == "1 of 8" and "1 member diverged" in text_of(page)


def test_under_way_it_says_how_far_and_how_to_go_on(tmp_path):
    rows = [row for row in grid(SCORES, **VALUES) if row["member"] < 20 and (row["step"] < 100 or row["member"] < 16)]
    page = page_of(tmp_path, rows, FIELDS, ended=False, parts=True, num_members=48)
    text = text_of(page)
    assert "20 of 48 members have rows" in text and f"jaxrl resume {tmp_path}" in text
    assert page.row("2")[-1] == "50, 4 seeds missing" and page.row("1")[-1] == "100"
    assert headings(page_of(tmp_path / "new", [row | {"score": None} for row in rows], ended=False)) == [
        "what-it-says", "settings", "run-it-again",
    ]  # fmt: skip


def test_halving_shows_who_was_dropped_when(tmp_path):
    rows = [
        r for c in range(4) for r in rows_of((c + 1, 10 * c)[: 1 + (c > 1)], (50, 100)[: 1 + (c > 1)], c, 0, c, x=c)
    ]
    page = page_of(tmp_path, rows, {"x": "0,1,2,3"}, method="halving")
    assert page.row("50") == ["4", "2", "2", "0, 1"]
    assert [row for row in page.rows if row[0] == "100"] == [["100", "2", "0", "2", "2, 3"]]
    assert "score at step 50 (the last evaluation at which all were there)" in text_of(page)


def test_a_population_shows_its_schedules(tmp_path):
    rows = [r for m in range(6) for r in rows_of((m, 2 * m), config=m, member=m, learning_rate=0.01 * (m + 1))]
    rows[-1]["learning_rate"] = 0.5
    page = page_of(tmp_path, rows, {"learning_rate": "log:1e-3:1"}, method="pbt")
    assert "schedules-of-the-population" in headings(page) and "Member 5 of the population ends best" in text_of(page)
    shades = [a["class"] for tag, a in page.tags if tag == "path" and "thin" in a.get("class", "")]
    assert {f"thin c{shade}" for shade in range(5)} <= set(shades)
    (best,) = [a["d"] for tag, a in page.tags if tag == "path" and a.get("class") == "thin c4"][:1]
    points = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", best)]
    assert len(points) == 4 and points[1][0] == points[2][0] and points[0][1] == points[1][1] > points[2][1]


def test_of_many_configurations_some_curves_are_drawn_and_all_are_ranked(tmp_path):
    page = page_of(tmp_path, grid(np.arange(60.0)[:, None]))
    lines = [a["class"] for tag, a in page.tags if tag == "path" and a.get("class", "").startswith(("thin", "line"))]
    assert sum(line.startswith("thin") for line in lines) == 15
    assert len([row for row in page.rows if len(row) == 3]) == 62 and "Grey: 15 of the other 55" in text_of(page)


def test_four_fields_give_the_three_pairs_of_those_that_matter_most(tmp_path):
    values = dict(zip("abcd", np.indices((2, 2, 2, 2)).reshape(4, 16).tolist(), strict=True))
    weights = {"a": 1, "b": 100, "c": 50, "d": 20}
    scores = sum(weight * np.array(values[name]) for name, weight in weights.items())
    made(tmp_path, grid(scores[:, None], **values), dict.fromkeys("abcd", "0,1"))
    text = write_sweep_report(tmp_path / "report.html", read_sweep(tmp_path)).read_text()
    assert re.findall(r"(\w) \(down\) and (\w) \(across\)</figcaption>", text) == [("b", "c"), ("b", "d"), ("c", "d")]


@pytest.mark.parametrize(("git", "told"), [("abc-dirty", True), ("abc", False)])
def test_changes_that_were_not_committed_are_said(tmp_path, git, told):
    assert ("not committed" in text_of(page_of(tmp_path, grid(SCORES), git=git))) == told
