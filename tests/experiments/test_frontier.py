"""The frontier: which runs it is made of, that they may run side by side, and that its picture is drawn."""

import json

import numpy as np
import pytest
from frontier import Options, along, arms, every
from frontier_picture import draw, half
from frontier_sizes import SIZES, STRENGTHS, configured

from jaxrl.settings import check


def test_every_seed_is_a_whole_picture_and_the_strengths_are_from_the_middle():
    made = list(arms(Options(), SIZES["tiny"]))
    assert len(made) == len(set(made)) == 3 * 7 * 3
    assert [seed for _, _, seed in made] == sorted(seed for _, _, seed in made)
    assert [s for method, s, seed in made if (method, seed) == ("dpo", 0)] == [0.05, 0.1, 0.3]
    some = arms(Options(only=("ppo",), seeds=(7,)), SIZES["accelerator"])
    assert list(some) == [("ppo", strength, 7) for strength in STRENGTHS["ppo"]]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", STRENGTHS)
def test_every_setting_is_one_that_can_be(method, size):
    for strength in STRENGTHS[method]:
        check(configured(method, strength, SIZES[size]))


def test_what_runs_side_by_side_comes_in_order():
    assert list(every(((7, 2), (9, 4), (5, 5)), divmod, 2)) == list(every(((7, 2), (9, 4), (5, 5)), divmod, 1))


def test_along_a_run_the_reward_stands_beside_the_judges_and_the_kl(tmp_path, monkeypatch):
    monkeypatch.setattr("frontier.kinder", lambda prompts, completions: [len(text) for text in completions])
    assert along(tmp_path) == []
    samples = [{"completion": "ab", "reward": 1.0}, {"completion": "abcd", "reward": None}]
    (tmp_path / "samples.jsonl").write_text(json.dumps({"step": 64, "samples": samples}) + "\n")
    rows = [{"step": 32, "loss": 1.0}, {"step": 64, "eval_kl": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert along(tmp_path) == [{"step": 64, "reward": 1.0, "gold": 3.0, "kl": 0.5}]


def test_the_picture_has_intervals_over_three_seeds_and_over_films_below(tmp_path):
    runs = [run("ppo-learned", seed) for seed in range(3)]
    values = [r["after"]["gold"] for r in runs]
    assert half(np.array(values), runs, "gold") == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert half(np.array(values[:1]), runs[:1], "gold") == 0.02
    draw(tmp_path / "picture.png", [*runs, run("dpo", 0)])
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def run(method, seed):
    judged = {"gold": 0.6 + 0.1 * seed, "gold_ci": 0.02, "vader": 0.2, "vader_ci": 0.05}
    moves = [{"step": step, "reward": step / 9, "gold": 0.5, "kl": step} for step in range(3)]
    figures = {"kl": 5.0 + seed, "kl_ci": 0.5, "before": {"gold": 0.5, "vader": 0.1}, "after": judged}
    return {"method": method, "strength": 0.1, "seed": seed, "along": moves, **figures}
