"""The alignment experiments: their arithmetic by hand, and each from the command line on a tiny random model."""

import json
import math

import numpy as np
import pytest
from sentiment import class_weights, pairs, some, thumbs
from sentiment_report import distinct, mean

from jaxrl.lm import load_model, save_model
from jaxrl.lm.pretrained import assets
from tests.experiments.test_experiments import ROOT, experiment
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

ROWS = [
    {"prompt": f"{film}:", "completion": f" {film}{i}", "label": label, "movie": film}
    for film, labels in {"A": [True, True, False], "B": [False, True], "C": [True]}.items()
    for i, label in enumerate(labels)
]


@pytest.mark.parametrize("direction", ["positive", "negative"])
def test_a_pair_is_a_fresh_and_a_rotten_review_of_one_film(direction):
    made, label = pairs(ROWS, direction), {row["completion"]: row["label"] for row in ROWS}
    assert sorted(row["movie"] for row in made) == ["A", "B"], "each review is used once, and C has no rotten one"
    for row in made:
        assert row["chosen"][1] == row["rejected"][1] == row["prompt"][0] == row["movie"]
        assert label[row["chosen"]] == (direction == "positive") != label[row["rejected"]]


def test_thumbs_go_up_where_the_review_goes_in_the_direction_and_classes_weigh_the_same():
    assert [row["label"] for row in thumbs(ROWS, "positive")] == [True, True, False, False, True, True]
    assert [row["label"] for row in thumbs(ROWS, "negative")] == [False, False, True, True, False, False]
    assert class_weights(thumbs(ROWS, "positive")) == {"desirable_weight": 1, "undesirable_weight": 2}
    assert class_weights(thumbs(ROWS, "negative")) == {"desirable_weight": 2, "undesirable_weight": 1}


def test_some_rows_are_of_any_film_and_always_the_same():
    rows = [{"movie": i // 100} for i in range(1000)]
    assert some(rows, 50) == some(rows, 50) and len(some(rows, 50)) == 50
    assert {row["movie"] for row in some(rows, 50)} == set(range(10))
    assert len(some(rows[:3], 50)) == 3


def test_intervals_are_those_of_films():
    values, film = np.array([0.0, 1.0, 3.0, 5.0, 4.0]), np.array([0, 0, 1, 1, 1])
    found = mean("x", values, film)  # films 0.5 and 4: standard deviation 3.5/√2, of the mean 3.5/2
    assert found == {"x": 2.25, "x_ci": pytest.approx(1.96 * 3.5 / 2)}


def test_distinct_counts_repetition():
    assert distinct(["a b a b", "c"], 1) == 3 / 5 and distinct(["a b a b", "c"], 2) == 2 / 3 and distinct(["a"], 2) == 0


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("sft"), config_of("smollm2", vocab_size=259, num_hidden_layers=1)
    save_model(folder / "model", config, params_of(config), byte_tokenizer())
    return folder


@pytest.fixture(scope="module")
def data():
    try:
        assets.path("reviews"), assets.path("imdb-textcat")
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("name", "direction"), [("dpo", "negative"), ("kto", "positive")])
@pytest.mark.usefixtures("data")
def test_an_alignment_experiment_from_data_to_report(name, direction, start, tmp_path):
    settings = ["--sft", start, "--direction", direction, "--max-updates", "4", "--run-dir", "run", "--logs", "2"]
    figures = experiment(ROOT / f"experiments/sentiment_{name}.py", *settings, "--evals", "1", cwd=tmp_path)
    found = json.loads((tmp_path / "run/report.json").read_text())
    assert figures["report"] == found and found["direction"] == direction and "not helpfulness" in found["about"]
    sign = 1 if direction == "positive" else -1
    for judge, gain in (("gold", "gain"), ("vader", "vader_gain")):
        difference = sign * (found["after"][judge] - found["before"][judge])
        assert found[gain] == pytest.approx(difference) and found[f"{gain}_low"] == found[gain] - found[f"{gain}_ci"]
    assert 0 < found["kl_k3"] < 1 and found["kl_exact"] == pytest.approx(found["kl_k3"], rel=0.5)
    assert found["after"]["length"] <= 64 and 0 <= found["after"]["ended"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "run/samples.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, figures["rows_seen"]] and len(lines[0]["samples"]) == 8

    model = load_model(tmp_path / "run/model")
    assert model.tokenizer is not None and math.isfinite(float(model.params.embed[...].sum()))
    assert (tmp_path / "run/reward.png").stat().st_size > 5_000
    assert len((tmp_path / "run/samples.md").read_text().splitlines()) == 24


@pytest.mark.usefixtures("data")
def test_a_reward_model_of_the_critics_pairs_is_what_rlhf_learns_from(start, tmp_path):
    often = ["--sft", start, "--logs", "1", "--evals", "1", "--lora-rank", "0"]
    settings = [*often, "--max-updates", "2", "--batch-size", "4", "--run-dir", "reward"]
    judged = experiment(ROOT / "experiments/sentiment_reward.py", *settings, cwd=tmp_path)
    assert judged["pairs"] == 320 and 0.3 < judged["accuracy"] < 0.7 < judged["classifier_accuracy"] < 0.8
    assert judged["accuracy_ci"] == pytest.approx(1.96 * 0.5 / 320**0.5, rel=0.1)

    settings = [*often, "--max-updates", "2", "--max-new-tokens", "8", "--run-dir", "run", "--eval-prompts", "4"]
    learned = ["--reward", "learned", "--reward-model", "reward"]
    figures = experiment(ROOT / "experiments/sentiment_rlhf.py", *settings, *learned, cwd=tmp_path)
    assert figures["report"] == json.loads((tmp_path / "run/report.json").read_text())
    assert figures["completions"] == 64 and math.isfinite(figures["reward"] - figures["reward_before"])


def test_finetune_aligns_on_a_file(start, tmp_path):
    rows = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "?"} for a in range(5) for b in range(5)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["--path", "pairs.jsonl", "--name", start / "model", "--batch-size", "4", "--learning-rate", "1e-2"]
    figures = experiment(ROOT / "experiments/finetune.py", "dpo", *settings, "--run-dir", "run", cwd=tmp_path)
    assert figures["loss"] < figures["loss_before"] == pytest.approx(math.log(2), abs=1e-6)
