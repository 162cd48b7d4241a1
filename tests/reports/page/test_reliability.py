"""How sure a reward model is, against how often it is right: numbers by hand, and a picture where they say."""

import json

import pytest

from jaxrl.algorithms import reward_model
from jaxrl.reports.page.collected import collect, groups
from jaxrl.reports.page.reliability import BINS, Bin, bins, calibration_error, diagrams
from tests.reports.page.test_page import made, page_of, text_of

BEFORE = {"step": 0, "held_out": [{"confidence": 0.5, "accuracy": 0.5, "pairs": 40}]}
LAST = [{"confidence": 0.62, "accuracy": 0.5, "pairs": 10}, {"confidence": 0.98, "accuracy": 0.9, "pairs": 30}]


def judged(folder, last=LAST, seed=0):
    record = made(folder, seed, algorithm={"name": "reward"}, env={}, lm={"name": "runs/tuned/model"})
    told = "".join(json.dumps(row) + "\n" for row in (BEFORE, {"step": 20, "held_out": last}))
    (folder / "held_out.jsonl").write_text(told)
    return collect(record.run_dir, record.about)


def test_the_last_evaluation_counts_and_seeds_are_put_together(tmp_path):
    one, other = judged(tmp_path / "a"), judged(tmp_path / "b", [{"confidence": 0.64, "accuracy": 0.8, "pairs": 30}], 1)
    assert bins([one]) == [pytest.approx(Bin(0.62, 0.5, 10)), pytest.approx(Bin(0.98, 0.9, 30))]
    assert bins([one, other])[0] == pytest.approx(Bin((6.2 + 19.2) / 40, (5 + 24) / 40, 40))
    assert calibration_error(bins([one])) == pytest.approx((10 * 0.12 + 30 * 0.08) / 40)
    assert BINS == reward_model.BINS


def test_an_interval_is_wilsons():
    assert Bin(0.9, 0.5, 100).interval() == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert Bin(0.99, 1.0, 6).interval() == pytest.approx((0.6097, 1.0), abs=1e-4)


def test_the_page_shows_it_with_counts_and_where_they_say(tmp_path):
    page = page_of(tmp_path, judged(tmp_path / "run"))
    text = text_of(page)
    assert "40 held-out pairs after 20 rows; calibration error 0.090" in text
    assert "of 10 pairs at 62.0%, 50.0% are right; of 30 pairs at 98.0%, 90.0% are right" in text
    dots = [tags for tag, tags in page.tags if tag == "circle" and tags["class"] == "dot c0" and tags["r"] == "3.2"]
    assert [(float(d["cx"]), float(d["cy"])) for d in dots] == [(130.08, 102.0), (376.32, 26.8)]  # of 48…390, 196…8
    bars = [tags for tag, tags in page.tags if tag == "rect"]
    assert float(bars[1]["height"]) == pytest.approx(3 * float(bars[0]["height"]), abs=0.02)


def test_a_run_without_such_pairs_has_no_diagram(tmp_path):
    assert diagrams(groups([made(tmp_path / "run")])) is None
    damaged = judged(
        tmp_path / "damaged", [{"confidence": "high"}, 3, {"confidence": 0.7, "accuracy": 0.5, "pairs": 0}]
    )
    assert diagrams(groups([damaged])) is None
    assert "Reliability" not in text_of(page_of(tmp_path, made(tmp_path / "other")))


def test_what_a_command_names_was_not_given_in_python(tmp_path):
    record = judged(tmp_path / "run")
    given = {name: {"is": "x", "sha256": "0"} for name in ("network", "params", "data", "tokenizer", "reward")}
    named = record._replace(about={**record.about, "given": given, "finetune": {"reward": "my_rewards:score"}})
    assert "It was also given" not in text_of(page_of(tmp_path, named))
    held = named._replace(about={**named.about, "finetune": {}})
    assert "It was also given, in Python: reward." in text_of(page_of(tmp_path, held))
