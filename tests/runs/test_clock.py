"""What counts as training time."""

import pytest

from jaxrl.runs import clock


def test_of_chunks_that_overlap_no_second_counts_twice(monkeypatch):
    """The second chunk was started at 5 s, when the first, which ended at 10 s, was still under way; the third late."""
    now = iter([10.0, 17.0, 24.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(now))
    of_run = clock.Clock()
    rates = [of_run.chunk(began, 70)["steps_per_second"] for began in (3.0, 5.0, 20.0)]
    assert rates == [pytest.approx(70 / 7), pytest.approx(70 / 7), pytest.approx(70 / 4)]
    assert of_run.train == of_run.trained == pytest.approx(7 + 7 + 4)
