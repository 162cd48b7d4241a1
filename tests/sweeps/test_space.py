"""What is swept, as it is typed and as YAML has it."""

import math

import numpy as np
import pytest

from jaxrl import DPO, PPO
from jaxrl.sweeps.space import draw, grid, shown, swept, with_fields

CONFIG = PPO()


@pytest.mark.parametrize(
    ("field", "spec", "values"),
    [
        ("learning-rate", "1e-3,3e-3", (1e-3, 3e-3)),
        ("learning_rate", "log:1e-4:1e-2:3", (1e-4, 1e-3, 1e-2)),
        ("gae_lambda", "lin:.8:1:3", (0.8, 0.9, 1.0)),
        ("num_epochs", "lin:1:8:3", (1, 4, 8)),
        ("num_epochs", "log:1:4:9", (1, 2, 3, 4)),  # each once
        ("hidden", "64,64;256", ((64, 64), (256,))),
        ("hidden", [[64, 64], [256]], ((64, 64), (256,))),
        ("critic_hidden", "none;32", (None, (32,))),
        ("env.num_envs", "8,16", (8, 16)),
        ("num_envs", [8, 16], (8, 16)),
        ("normalize_obs", "true,false", (True, False)),
        ("activation", "tanh,relu", ("tanh", "relu")),
        ("core", "gru,none", ("gru", "none")),
        ("core", ["gru", "none"], ("gru", "none")),
        ("target_kl", "inf,.01", (math.inf, 0.01)),
        ("learning_rate", ["1e-3", 2], (1e-3, 2.0)),
        ("clip_eps", 0.3, (0.3,)),
    ],
)
def test_values_are_read_as_the_field_takes_them(field, spec, values):
    found = swept(CONFIG, field, spec)
    assert found.values == values and [type(v) for v in found.values] == [type(v) for v in values]
    changed = [with_fields(CONFIG, {found.field: value}) for value in found.values]
    assert len(set(map(str, changed))) == len(values)
    assert swept(CONFIG, found.field, found.spec).values == values  # as it is written down, it is read again


def test_a_nested_field_is_found_by_its_bare_name_and_changes_nothing_else():
    config = with_fields(DPO(), {"learning_rate": 0.5, "beta": 0.2})
    assert config.optimizer.learning_rate == 0.5 and config.beta == 0.2
    assert with_fields(config, {"optimizer.learning_rate": 5e-4, "beta": 0.1}) == with_fields(
        DPO(), {"learning_rate": 5e-4, "beta": 0.1}
    )


@pytest.mark.parametrize(
    ("field", "spec", "sentence"),
    [
        ("learning_rat", "1", "unknown field learning_rat of PPO; did you mean 'learning_rate'"),
        ("env.num_env", "1", "unknown field num_env of EnvConfig; did you mean 'num_envs'"),
        ("env", "1", "sweep.env: env holds fields of its own; sweep one of those"),
        ("learning_rate", "log:0:1:3", "a log scale needs numbers above 0; use lin:0:1:3"),
        ("seed", "1,2", "a seed is no field of a config; every config has all of --seeds"),
        ("learning_rate", "log:1e-2:1e-4:3", "give two finite numbers, the lower first"),
        ("learning_rate", "log:1e-4", "cannot be read; write log:LOW:HIGH or log:LOW:HIGH:COUNT"),
        ("learning_rate", "lin:0:1:1", "a count of 2 or more"),
        ("hidden", "log:1:2:3", "hidden is no number; list its values instead"),
        ("learning_rate", "1,1.0", "takes 1.0 twice; name each value once"),
        ("learning_rate", "1,,2", "cannot be read; give values apart by commas"),
        ("learning_rate", [], "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(field, spec, sentence):
    with pytest.raises(ValueError) as error:
        swept(CONFIG, field, spec)
    assert sentence in str(error.value)


def test_a_grid_is_every_combination_and_needs_counts():
    fields = [swept(CONFIG, "learning_rate", "1e-3,2e-3"), swept(CONFIG, "hidden", "64;32,32")]
    assert grid(fields) == [
        {"learning_rate": 1e-3, "hidden": (64,)},
        {"learning_rate": 1e-3, "hidden": (32, 32)},
        {"learning_rate": 2e-3, "hidden": (64,)},
        {"learning_rate": 2e-3, "hidden": (32, 32)},
    ]
    assert grid([]) == [{}]
    with pytest.raises(ValueError, match=r"is a range without a count; say how many, log:1e-4:1e-2:8, or draw"):
        grid([swept(CONFIG, "learning_rate", "log:1e-4:1e-2")])


def test_values_may_be_numpys():
    assert swept(CONFIG, "gae_lambda", np.array([0.8, 0.875])).values == (0.8, 0.875)
    assert swept(CONFIG, "num_epochs", np.arange(1, 3)).values == (1, 2)
    assert swept(CONFIG, "num_epochs", (x for x in (3, 4))).values == (3, 4)
    assert swept(CONFIG, "gae_lambda", np.float32(0.5)).values == (0.5,)


def test_no_configuration_is_drawn_twice():
    """With the same seeds it would only learn the same again."""
    fields = [swept(CONFIG, "activation", "tanh,relu"), swept(CONFIG, "hidden", "8;16;32")]
    drawn = draw(fields, 6, 0)
    assert sorted(map(str, drawn)) == sorted(map(str, grid(fields))) and drawn != grid(fields)
    with pytest.raises(ValueError, match="samples = 7, and the values to draw from make about 6 configurations"):
        draw(fields, 7, 0)


def test_draws_are_uniform_on_their_scale_and_the_same_for_a_seed():
    fields = [
        swept(CONFIG, "learning_rate", "log:1e-4:1e-2"),
        swept(CONFIG, "gae_lambda", "lin:.8:1"),
        swept(CONFIG, "num_epochs", "lin:1:9"),
        swept(CONFIG, "activation", "tanh,relu"),
    ]
    drawn = draw(fields, 2000, 0)
    assert drawn == draw(fields, 2000, 0) != draw(fields, 2000, 1)
    rates = np.log10([point["learning_rate"] for point in drawn])
    assert rates.min() >= -4 and rates.max() <= -2 and abs(rates.mean() + 3) < 0.06
    lambdas = np.array([point["gae_lambda"] for point in drawn])
    assert lambdas.min() >= 0.8 and lambdas.max() <= 1 and abs(lambdas.mean() - 0.9) < 0.006
    assert {point["num_epochs"] for point in drawn} == set(range(1, 10))
    assert 900 < sum(point["activation"] == "relu" for point in drawn) < 1100


def test_a_value_is_shown_as_it_is_typed():
    assert [shown(x) for x in ((64, 64), True, None, 1e-05, 3, "relu")] == [
        "64,64",
        "true",
        "none",
        "1e-05",
        "3",
        "relu",
    ]
