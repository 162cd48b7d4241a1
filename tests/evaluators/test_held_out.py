"""The loss on rows that are not trained on, and what it is called where there are none."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.data import Data
from jaxrl.evaluators import held_out_rows
from jaxrl.ops import metrics as m
from jaxrl.types import Algorithm, InputError


def measure(key, learner, batch):
    """Mean of learner × row over the rows that count."""
    return {"loss": m.mean(learner * batch.rows, batch.weight > 0)}


ALGORITHM = Algorithm(init=None, update=None, measure=measure)
TRAIN, HELD = np.float32([1, 2, 3, 4]), np.float32([10, 20, 60])


def figures(evaluator):
    return evaluator.read("", evaluator.measure(None, jnp.float32(2.0), jnp.int32(0)))


def test_all_held_out_rows_count_once():
    # (10 + 20 + 60) / 3 · 2, though the last batch of two is filled up
    evaluator = held_out_rows(ALGORITHM, Data((TRAIN,), (HELD,)), 2)
    assert figures(evaluator) == {"loss": 60.0} and evaluator.prefix == "eval_"
    assert evaluator.panels[0].lines[1] == ("eval_loss", "held-out rows")


def test_rows_of_training_are_called_what_they_are():
    evaluator = held_out_rows(ALGORITHM, Data((TRAIN,)), 2)
    assert figures(evaluator) == {"first_rows_loss": 3.0} and evaluator.prefix == ""
    assert evaluator.before == ("first_rows_loss",)
    line = evaluator.panels[0].lines[1]
    assert line.metric == "first_rows_loss" and "none are held out" in line.label
    assert not any("held-out" in line.label for panel in evaluator.panels for line in panel.lines)


@pytest.mark.parametrize("held", [(HELD,), ()])
def test_the_start_is_checked_by_the_algorithms_own_names(held):
    def check(found):
        raise InputError(f"the loss starts at {found['loss']}")

    evaluator = held_out_rows(ALGORITHM, Data((TRAIN,), held), 2, check)
    with pytest.raises(ValueError, match="the loss starts at"):
        evaluator.check_start(figures(evaluator))
