"""The zoo: that its entries are configs that ship, and that RESULTS.md says what the sweeps' tables say."""

import sys
from pathlib import Path

import pytest

from jaxrl import program
from jaxrl.cli import named
from jaxrl.reports.sweep.ranking import read_sweep
from tests.reports.sweep.made import grid, made

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import zoo

MACHINE = {"model": "cpu", "asked": {"devices": 2}, **dict.fromkeys(("jaxrl", "jax", "jaxlib", "brax", "gymnax"), "1")}
MACHINE |= {"python": "3.11", "algorithm": "ppo"}


@pytest.mark.parametrize("name", zoo.ZOO)
def test_an_entry_is_a_config_that_ships(name):
    assert program(named(name)).num_updates > 0


def test_a_row_says_what_the_table_says(tmp_path):
    """Twelve seeds, two of them low, of which the mean of the middle half does not hear."""
    ended = read_sweep(made(tmp_path / "a", grid([[500.0] * 10 + [90, 470]]), **MACHINE))
    text = zoo.page({"ppo/cartpole": (zoo.row("ppo/cartpole", ended), zoo.machine(ended.about))})
    (row,) = [line for line in text.splitlines() if line.startswith("| PPO")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["PPO", "CartPole-v1", "100", "12"]
    value, low, high = cells[4].replace("[", " ").replace("]", " ").replace(",", " ").split()
    assert float(value) == 500 and float(low) < 500 and float(high) == 500
    assert cells[5:7] == ["90", "2 below 475"]
    assert cells[8:] == ["1.0", "▁█", "`jaxrl sweep ppo/cartpole --seeds 2000:2048`", "1"]  # 12.5 s of all
    assert "`ppo/ant_gpu`" in text and "\n1. cpu, 2 cores, members on 2" in text


def test_a_published_number_above_the_interval_is_missed_by_so_much():
    entry = zoo.Entry("Pendulum-v1", -200, -130, "rl-zoo3")
    assert zoo.published(entry, -153.5, -140.0) == "-130 (rl-zoo3), missed by 23.5"
    assert zoo.published(entry, -133.0, -129.0) == "-130 (rl-zoo3)"
    assert zoo.published(entry, -120.0, None) == "-130 (rl-zoo3)"


def test_of_three_seeds_each_is_shown_and_no_interval(tmp_path):
    ended = read_sweep(made(tmp_path / "a", grid([[2500.0, 1400.0, 2600.0]]), **MACHINE))
    assert "| 2500, 1400, 2600 | 1400 | 1 below 1500 |" in zoo.row("ppo/hopper", ended)


def test_rows_of_other_machines_stay_while_their_command_does(monkeypatch):
    text = (zoo.ROOT / "RESULTS.md").read_text()
    rows = zoo.kept(text)
    assert len(rows) > 10 and zoo.page(rows) == text
    monkeypatch.setitem(zoo.ZOO, "ppo/hopper", zoo.Entry("Brax hopper", 1500, seeds="5:8"))
    assert set(rows) - set(zoo.kept(text)) == {"ppo/hopper"}


def test_what_has_not_ended_is_no_row(tmp_path):
    made(tmp_path / "ppo_cartpole", grid([[500.0]]), ended=False, **MACHINE)
    assert not zoo.has_ended(tmp_path, "ppo/cartpole") and not zoo.has_ended(tmp_path, "ppo/hopper")
