"""Searches that are asked and told, without training: what they ask, again after a stop, and that it is worth it."""

import functools
import itertools
import math

import numpy as np
import pytest

from jaxrl import PPO, EnvConfig
from jaxrl.runs.driver import Schedule
from jaxrl.sweeps import Plan, sweep
from jaxrl.sweeps.asking import optuna_search, ray_search
from jaxrl.sweeps.space import draw, swept
from jaxrl.sweeps.table import read

SEARCHES = {"optuna": optuna_search, "ray": functools.partial(ray_search, "hyperopt")}
CONFIG = PPO()
FIELDS = [swept(CONFIG, "learning_rate", "log:1e-5:1e-1"), swept(CONFIG, "gae_lambda", "lin:.5:1")]


def score(point):
    """The best there is is 0, at a learning rate of 3e-4 and λ = 0.9."""
    return -((math.log10(point["learning_rate"] / 3e-4)) ** 2) - (10 * (point["gae_lambda"] - 0.9)) ** 2


@pytest.fixture(
    params=[
        pytest.param("optuna", marks=pytest.mark.extra("tune")),
        pytest.param("ray", marks=pytest.mark.extra("ray")),
    ]
)
def method(request):
    return request.param


def searched(method, samples=24, at_once=4, seed=0, told=(), fields=FIELDS, scored=score):
    """(the points of each asking, what was told of all) of a search to its end, from what was told already."""
    search, told, asked = SEARCHES[method](fields, samples, at_once, seed), [*told], []
    while points := search.ask(told):
        asked.append(points)
        told += [[scored(point)] * 2 for point in points]
    return asked, told


def test_it_asks_for_so_many_at_a_time_until_there_are_enough(method):
    asked, told = searched(method, samples=10, at_once=4)
    assert [len(points) for points in asked] == [4, 4, 2] and len(told) == 10
    for point in itertools.chain(*asked):
        assert 1e-5 <= point["learning_rate"] <= 1e-1 and 0.5 <= point["gae_lambda"] <= 1


def test_the_same_seed_asks_the_same_and_another_one_does_not(method):
    assert searched(method) == searched(method) != searched(method, seed=1)


@pytest.mark.parametrize("batches", [1, 3, 5])
def test_what_was_told_before_a_stop_is_asked_again_and_goes_on_the_same(method, batches):
    asked, told = searched(method)
    again, told_again = searched(method, told=told[: 4 * batches])
    assert again == asked[batches:] and told_again == told


def test_it_comes_nearer_than_random_search_with_as_many(method):
    found = [max(told[0] for told in searched(method, samples=40, at_once=4, seed=seed)[1]) for seed in range(5)]
    drawn = [max(map(score, draw(FIELDS, 40, seed))) for seed in range(5)]
    near = {"optuna": -0.05, "ray": -0.1}[method]  # HyperOpt draws the first 20 at random, as Ray Tune sets it up
    assert np.mean(found) > np.mean(drawn) and np.mean(found) > near


def test_one_that_diverged_is_the_worst_and_not_sought_again(method):
    """Above 1e-3 everything diverges: of 40 the later half keeps away from there, and none of it is an error."""

    def scored(point):
        return math.nan if point["learning_rate"] > 1e-3 else score(point)

    asked, _ = searched(method, samples=40, scored=scored)
    diverged = [point["learning_rate"] > 1e-3 for points in asked for point in points]
    assert any(diverged[:20]) and sum(diverged[20:]) < sum(diverged[:20])
    assert len(searched(method, samples=12, scored=lambda point: math.inf)[1]) == 12


def test_values_that_are_listed_and_whole_numbers_are_as_the_field_takes_them(method):
    fields = [
        swept(CONFIG, "hidden", "64,64;256"),
        swept(CONFIG, "normalize_obs", "true,false"),
        swept(CONFIG, "num_epochs", "log:1:16"),
        swept(CONFIG, "critic_hidden", "none;32"),
    ]
    asked, _ = searched(method, samples=24, fields=fields, scored=lambda point: point["num_epochs"])
    seen = {name: {point[name] for points in asked for point in points} for name in asked[0][0]}
    assert seen["hidden"] == {(64, 64), (256,)} and seen["normalize_obs"] == {True, False}
    assert seen["critic_hidden"] == {None, (32,)} and all(type(x) is int and 1 <= x <= 16 for x in seen["num_epochs"])


def test_a_sweep_of_it_that_was_stopped_ends_in_the_same_table(method, tmp_path, monkeypatch):
    env = EnvConfig(num_envs=4, eval_episodes=4, time_limit=40)
    config = PPO(env=env, num_steps=8, total_steps=320, num_minibatches=2, hidden=(8,))
    plan = Plan(2, method, samples=5, at_once=2, schedule=Schedule(logs=1, evals=1, saves=1), devices=1)
    fields = {"learning_rate": "log:1e-4:1e-1"}
    whole = sweep(config, fields, plan, tmp_path / "whole", progress=False)
    rows = read(whole.table)
    assert {row["member"] for row in rows} == {str(member) for member in range(10)}
    assert len({row["learning_rate"] for row in rows}) == 5

    from jaxrl.sweeps import driver

    ends = []

    def killed(*words):
        if len(ends) == 1:
            raise KeyError("killed")
        ends.append(words)
        return end(*words)

    end = driver.end
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(driver, "end", killed)
        sweep(config, fields, plan, tmp_path / "again", progress=False)
    sweep(config, fields, plan, tmp_path / "again", progress=False, resume=True)
    for name in ("table.csv", "table.parquet"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_asking_for_none_at_once_is_refused(method):
    with pytest.raises(ValueError, match="at_once = 0 must be at least 1"):
        SEARCHES[method](FIELDS, 4, 0, 0)


@pytest.mark.extra("ray")
def test_an_algorithm_that_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match="searcher = 'bohb' is not one of Ray Tune's: .*hyperopt"):
        ray_search("bohb", FIELDS, 4, 2, 0)
    with pytest.raises(ValueError, match="searcher = 'nevergrad' cannot be used: Nevergrad must be installed! You can"):
        ray_search("nevergrad", FIELDS, 4, 2, 0)
