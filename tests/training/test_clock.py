"""What counts as training time."""

import pytest

from jaxrl.training import clock


def test_of_chunks_that_overlap_no_second_counts_twice(monkeypatch):
    """The second was started at 5 s, when the first, which ended at 10 s, was still under way; the third late."""
    now = iter([10.0, 17.0, 24.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(now))
    of_run = clock.Clock()
    told = [of_run.chunks(began, [70])[0] for began in (3.0, 5.0, 20.0)]
    assert [row["steps_per_second"] for row in told] == pytest.approx([70 / 7, 70 / 7, 70 / 4])
    assert [row["train_seconds"] for row in told] == pytest.approx([7, 14, 18])
    assert of_run.train == pytest.approx(18) and of_run.steps == 210


def test_the_speed_of_a_resumed_run_is_that_of_all_its_sessions(monkeypatch):
    monkeypatch.setattr(clock.time, "perf_counter", lambda: 12.0)
    resumed = clock.Clock()
    resumed.go_on(steps=50, seconds=40.0)
    resumed.chunks(2.0, [150])
    found = resumed.figures()
    assert (found["train_seconds"], found["steps_per_second"]) == (50.0, 4.0)


def test_chunks_that_are_read_together_share_their_time_by_steps(monkeypatch):
    monkeypatch.setattr(clock.time, "perf_counter", lambda: 12.0)
    told = clock.Clock().chunks(2.0, [30, 20])
    assert [row["train_seconds"] for row in told] == pytest.approx([6.0, 10.0])
    assert [row["steps_per_second"] for row in told] == pytest.approx([5.0, 5.0])
