"""The picture of throughput."""

import pytest

from jaxrl.benchmarks.arms import ARMS
from jaxrl.reports.throughput import short, throughput_picture


def rows(num_envs):
    """As `measure` makes them: physics has no floor, and what did not fit no figures."""
    made = []
    for n in num_envs:
        setting = {"env": "brax/ant", "backend": "spring", "agents": 1, "num_envs": n}
        figures = {"median": 1e4 * n, "min": 9e3 * n, "max": 2e4 * n}
        made += [{**setting, **figures, "arm": arm, **({"floor": 5e4 * n} if arm != "physics" else {})} for arm in ARMS]
        made += [{**setting, "arm": "training", "left_out": "needs 9.0 GiB, of which 1.0 are free"}]
    return made


@pytest.mark.parametrize("num_envs", [(64,), (8, 64, 512)])
def test_every_arm_is_drawn_with_or_without_a_floor(num_envs, tmp_path):
    path = throughput_picture(tmp_path / "made" / "bench.png", rows(num_envs), "1 × cpu")
    assert path.stat().st_size > 10_000


def test_numbers_are_short():
    assert [short(x) for x in (11_647, 999_600, 1.35e9, 12.34)] == ["11.6k", "1M", "1.35G", "12.3"]
