"""The plain sentences: true, and no surer than the evidence."""

import numpy as np

from jaxrl.reports.sweep.ranking import read_sweep
from jaxrl.reports.sweep.verdict import sentences
from tests.reports.sweep.made import grid, made, rows_of


def said(folder, rows, fields=None, **about):
    return sentences(read_sweep(made(folder, rows, fields, **about)))


def spread(middle, seeds=16):
    return middle + np.linspace(-10, 10, seeds)


def test_a_best_that_is_set_apart(tmp_path):
    first, rule, *more = said(tmp_path, grid([spread(100), spread(200)], gamma=[0.9, 0.99]), {"gamma": ".9,.99"})
    assert first.startswith("config 1 (gamma = 0.99) has an interquartile mean score of 200, 95 % interval 19")
    assert first.endswith("over 16 seeds, and the evidence sets it apart from the other one.") and not more
    assert (
        "Mann-Whitney U" in rule
        and "p < 0.05 / 1 = 0.05" in rule
        and "with 95 % confidence" in rule
        and "on new ones" in rule
    )
    first, *_ = said(tmp_path / "three", grid([spread(100), spread(200), spread(10)]))
    assert first.endswith("sets it apart from all 2 others.")


def test_those_it_is_not_set_apart_from_are_counted_and_named(tmp_path):
    first, *_ = said(tmp_path, grid([spread(200), spread(100), spread(201), spread(199)]))
    assert first.endswith("but the evidence does not separate it from 2 of the 3 others: configs 0, 3.")
    first, *_ = said(tmp_path / "all", grid([spread(200)] * 12))
    assert first.endswith("does not separate it from any of the 11 others.")
    first, *_ = said(tmp_path / "many", grid([spread(200)] * 12 + [spread(0)]))
    assert first.endswith("from 11 of the 12 others: configs 1, 2, 3, 4, 5, 6, 7, 8 and 3 more.")


def test_too_few_seeds_are_said_to_be_too_few(tmp_path):
    first, _, few = said(tmp_path, grid([[1, 2, 3], [100, 101, 102], [4, 5, 6]]))
    assert (
        "over 3 seeds (too few for an interval)" in first and "does not separate it from any of the 2 others" in first
    )
    assert few.startswith("3 seeds cannot set any of 3 configurations apart by this rule") and "takes 4 of each" in few


def test_one_seed_cannot_tell(tmp_path):
    first, again = said(tmp_path, grid([[1], [500], [3]]))
    two, _ = said(tmp_path / "two", grid([[1], [500]]))
    assert "does not separate it from the other one: each" in two
    assert "config 1 has the highest score, 500, but the evidence does not separate it from the other 2" in first
    assert "one seed cannot tell" in first and "10 seeds or more" in again


def test_under_way_says_so_far(tmp_path):
    rows = grid([spread(100), spread(200)])
    first, *_ = said(tmp_path, rows, ended=False, parts=True, total_steps=200)
    assert first.startswith("So far, after 50% of training: config 1 has")
    assert said(tmp_path / "none", rows_of((None, None)), ended=False) == [
        "No member has been evaluated yet: there is nothing to rank."
    ]


def test_one_configuration_is_not_compared(tmp_path):
    (only,) = said(tmp_path, grid([spread(100)]))
    assert only.endswith("; it is the only configuration that was evaluated.")
    rows = grid([[5], [9]]) + rows_of((20,), (50,), config=2, member=2)
    (left,) = said(tmp_path / "halving", [r for r in rows if r["config"] > 0], method="halving")
    assert "config 1 ended with a score of 9, of one seed" in left and "only one of 2 that was evaluated so far" in left


def test_a_population_is_one_experiment(tmp_path):
    first, why = said(tmp_path, grid([[5], [9], [7]]), method="pbt")
    assert first == "member 1 of the population ends best, with a score of 9." and "one experiment and not 3" in why


def test_members_that_diverged_are_counted(tmp_path):
    rows = grid([spread(100), spread(200)])
    rows[-1] |= {"score": "nan", "diverged": 1}
    *_, last = said(tmp_path, rows)
    assert last.startswith("1 of 32 members diverged. They are kept, and each counts with 45, the lowest score")
    for row in rows:
        row |= {"score": "nan", "diverged": 1}
    assert said(tmp_path / "all", rows) == ["Every member diverged."]


def test_those_that_did_not_come_as_far_are_not_spoken_for(tmp_path):
    """Of ten configurations halving has dropped eight, or they have not begun: 95 % is of the two compared."""
    _, rule, *more = said(tmp_path, grid([spread(100), spread(200)]), num_configs=10)
    assert "with 95 % confidence the truly best configuration of these 2 is" in rule
    assert more == [
        "Not compared: 8 configurations that stopped earlier or did not come as far yet, of which this says nothing."
    ]
