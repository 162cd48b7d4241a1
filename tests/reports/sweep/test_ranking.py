"""Who ranks where."""

import numpy as np
import pytest

from jaxrl.reports.sweep.ranking import read_sweep
from jaxrl.types import InputError
from tests.reports.sweep.made import grid, made, rows_of, write


def test_the_last_score_ranks_and_not_the_best_on_the_way(tmp_path):
    rows = rows_of((500, 10)) + rows_of((5, 20), config=1, member=1)
    sweep = read_sweep(made(tmp_path, rows))
    assert [c.index for c in sweep.ranked] == [1, 0] and [c.iqm for c in sweep.ranked] == [20, 10]


def test_the_interquartile_mean_of_the_seeds_by_hand(tmp_path):
    # of 8 sorted scores the middle 4: (3 + 4 + 5 + 6) / 4 = 4.5
    (best,) = read_sweep(made(tmp_path, grid([[8, 1, 6, 5, 4, 3, 2, 700]]))).ranked
    assert best.iqm == 4.5 and best.low <= 4.5 <= best.high
    (few,) = read_sweep(made(tmp_path / "few", grid([[1, 2, 3]]))).ranked
    assert few.iqm == 2 and few.low is None and few.high is None


def test_a_member_that_diverged_is_kept_and_counts_as_the_lowest_score_of_the_sweep(tmp_path):
    rows = rows_of((3, 400)) + rows_of((50, 60), seed=1, member=1)
    rows += rows_of((90, "nan"), config=1, member=2, diverged=True) + rows_of((80, 900), config=1, seed=1, member=3)
    sweep = read_sweep(made(tmp_path, rows))
    by_index = {c.index: c for c in sweep.ranked}
    assert sweep.floor == 3 and by_index[1].scores.tolist() == [3, 900] and by_index[1].diverged == 1
    assert by_index[0].scores.tolist() == [400, 60] and by_index[0].diverged == 0
    # a finite score that is marked does not count either; nor does one that is not finite and not marked
    marked = rows_of((3, 400)) + rows_of((9, 999), config=1, member=1, diverged=True)
    marked += rows_of((9, "inf"), config=2, member=2)
    sweep = read_sweep(made(tmp_path / "marked", marked))
    assert [(c.index, c.iqm, c.diverged) for c in sweep.ranked] == [(0, 400, 0), (1, 3, 1), (2, 3, 1)]


def test_one_that_recovered_has_not_diverged(tmp_path):
    rows = rows_of((5, 7))
    rows[0] |= {"score": "nan", "diverged": 1}
    (best,) = read_sweep(made(tmp_path, rows)).ranked
    assert best.diverged == 0 and best.iqm == 7


def test_those_that_went_further_come_first_and_are_compared_with_their_like(tmp_path):
    rows = rows_of((10, 20)) + rows_of((90,), (50,), config=1, member=1) + rows_of((9, 10), config=2, member=2)
    sweep = read_sweep(made(tmp_path, rows, method="halving"))
    assert [c.index for c in sweep.ranked] == [0, 2, 1] and [c.index for c in sweep.compared] == [0, 2]
    assert [c.reached for c in sweep.ranked] == [1.0, 1.0, 0.5]


def test_a_configuration_whose_seeds_are_not_all_there_comes_last(tmp_path):
    rows = grid([[1, 1], [9, 9]])[:-2]
    sweep = read_sweep(made(tmp_path, rows, num_seeds=2))
    assert [(c.index, c.reached) for c in sweep.ranked] == [(0, 1.0), (1, 0.0)]


def test_runs_of_other_lengths_are_measured_by_their_own(tmp_path):
    rows = rows_of((1, 2), (25, 50), total_steps=50) + rows_of((1, 3), config=1, member=1, total_steps=100)
    sweep = read_sweep(made(tmp_path, rows, {"total_steps": "50,100"}))
    assert [(c.index, c.reached) for c in sweep.ranked] == [(1, 1.0), (0, 1.0)]


def test_ties_are_broken_by_the_mean(tmp_path):
    scores = np.full((2, 8), 500.0)
    scores[0, 0] = 400  # which the interquartile mean leaves out
    assert [c.index for c in read_sweep(made(tmp_path, grid(scores))).ranked] == [1, 0]


def test_a_population_is_shown_by_what_its_members_ended_with(tmp_path):
    rows = rows_of((1, 2), learning_rate=0.1)
    rows[1]["learning_rate"] = 0.2
    sweep = read_sweep(made(tmp_path, rows, {"learning_rate": "log:.01:1"}, method="pbt"))
    assert sweep.ranked[0].values == {"learning_rate": 0.2} and sweep.ranked[0].name == "config 0 (learning_rate = 0.2)"


def test_what_is_no_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no sweep.json"):
        read_sweep(tmp_path)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read"):
        read_sweep(tmp_path)
    made(tmp_path, rows_of((1, 2)))
    write(tmp_path / "table.csv", [{"member": 0, "config": 0, "seed": 0, "step": 1, "diverged": 0}])
    with pytest.raises(InputError, match="no column 'score'"):
        read_sweep(tmp_path)


def test_before_any_evaluation_nobody_ranks(tmp_path):
    sweep = read_sweep(made(tmp_path, rows_of((None, None)), parts=True, ended=False))
    assert sweep.ranked == [] and sweep.floor is None and len(sweep.members) == 1 and not sweep.ended
