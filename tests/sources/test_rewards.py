"""Rewards: functions of texts, with what they are called with and what may go wrong in them; and reward models."""

import functools
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm.heads import last_scores, with_head
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.pretrained.weights import Pretrained
from jaxrl.lm.transformer import language_model
from jaxrl.sources.rewards import TextReward, as_reward, model_reward
from jaxrl.sources.sampled import Completed
from jaxrl.training.given import describe, split_given
from jaxrl.types import InputError, RewardFailed
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()
ROWS = [{"prompt": "2+2=", "answer": 4, "hint": "even"}, {"prompt": "1+2=", "answer": 3, "hint": "odd"}]
SAID = [(1, "3"), (0, "4"), (1, "four"), (0, "")]


def batch():
    asked = [TOKENIZER.encode_prompt(ROWS[i]["prompt"], "text") for i, _ in SAID]
    ids = [prompt + TOKENIZER.encode_inside(text) for prompt, (_, text) in zip(asked, SAID, strict=True)]
    length = np.array([len(x) for x in ids], np.int32)
    tokens = np.zeros((4, 12), np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    start = np.array([len(x) for x in asked], np.int32)
    none, numbers = np.zeros(4, bool), np.zeros((4, 8), np.float32)
    row = np.array([i for i, _ in SAID], np.int32)
    return Completed(tokens, start, length, ~none, row, numbers, numbers, numbers[:, 0], ~none, none)


def scored(function, **options):
    return TextReward(function, TOKENIZER, ROWS, **options).score(batch())


def test_it_is_called_with_texts_and_the_columns_that_it_names():
    seen = {}

    def reward(prompts, completions, answer):
        seen.update(prompts=prompts, completions=completions, answer=answer)
        return [float(text == str(a)) for text, a in zip(completions, answer, strict=True)]

    found = scored(reward)
    assert seen == {
        "prompts": ["1+2=", "2+2=", "1+2=", "2+2="],
        "completions": ["3", "4", "four", ""],
        "answer": [3, 4, 3, 4],
    }
    np.testing.assert_array_equal(found.score, [1, 1, 0, 0])
    assert found.score.dtype == np.float32 and found.valid.all() and not found.late.any()


def test_one_that_takes_all_columns_gets_them():
    assert scored(lambda prompts, completions, **more: [len(more)] * 4).score.tolist() == [2] * 4
    assert scored(lambda prompts, completions: np.array([0.7, -1.6, 2.9, 0])).score.tolist() == pytest.approx(
        [0.7, -1.6, 2.9, 0]
    )


def test_one_with_an_argument_completions_is_called_by_name_as_trl_does():
    """Where it stands among the arguments does not matter, and what it does not name it need not take."""
    assert scored(lambda completions: [len(x) for x in completions]).score.tolist() == [1, 1, 4, 0]
    assert scored(lambda answer, completions, prompts: answer).score.tolist() == [3, 4, 3, 4]
    seen = {}
    scored(lambda completions, **more: seen.update(more) or [0] * 4)
    assert set(seen) == {"prompts", "answer", "hint"} and seen["prompts"][0] == "1+2="


def test_a_column_that_some_rows_lack_is_none_there_whichever_row_comes_first():
    rows = [{"prompt": "a"}, {"prompt": "b", "answer": 4}]
    said = batch()
    for first in (0, 1):
        given = said._replace(row=np.array([first, 1 - first, first, 1 - first], np.int32))
        found = TextReward(lambda prompts, completions, answer=None: answer, TOKENIZER, rows).score(given)
        assert found.valid.tolist() == [bool(row) for row in given.row]


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda prompts, completions, wanted: [0.0], r"'wanted'\); the rows have answer, hint"),
        (lambda completions, wanted: [0.0], "'wanted'"),
        (lambda texts: [0.0], "too many positional arguments"),
    ],
)
def test_one_that_asks_for_what_is_not_there_is_refused_before_anything_is_said(function, why):
    with pytest.raises(InputError, match=f"cannot be called with .prompts, completions. and columns.*{why}"):
        TextReward(function, TOKENIZER, ROWS)


def test_a_function_that_its_module_does_not_have_is_said_with_the_nearest_that_it_has():
    with pytest.raises(InputError, match=r"tests.sources.test_rewards has no 'scord'; did you mean 'scored'\?"):
        as_reward("tests.sources.test_rewards:scord", TOKENIZER, ROWS)


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
def test_what_is_no_number_counts_as_no_reward(nothing):
    found = scored(lambda prompts, completions: [1.0, nothing, 2.0, 3.0])
    assert found.score.tolist() == [1, 0, 2, 3] and found.valid.tolist() == [True, False, True, True]


def test_an_exception_names_the_text_that_it_is_about():
    def reward(prompts, completions):
        return [int(text) if text else 0 for text in completions]

    with pytest.raises(
        RewardFailed, match=r"the reward raised ValueError: invalid literal .*, on the completion 'four'"
    ):
        scored(reward)


def test_one_that_fails_on_all_together_says_that():
    def reward(prompts, completions):
        assert len(completions) == 1
        return [0.0]

    with pytest.raises(RewardFailed, match="on 4 completions together, and on none by itself"):
        scored(reward)


@pytest.mark.parametrize(
    ("gives", "sentence"),
    [
        ([1.0], "gave 1 numbers for 4 completions"),
        (3.0, r"gave 3\.0 for 4 completions; it should give a list"),
        ([1, 2, "much", 4], "gave 'much' for the completion 'four'; it should be a number"),
    ],
)
def test_what_is_no_list_of_numbers_is_said(gives, sentence):
    with pytest.raises(RewardFailed, match=sentence):
        scored(lambda prompts, completions: gives)


def test_one_that_takes_too_long_is_late_and_no_reward():
    found = scored(lambda prompts, completions: time.sleep(5), timeout=0.05)
    assert found.late.all() and not found.valid.any() and not found.score.any()
    in_time = scored(lambda prompts, completions: [1.0] * 4, timeout=30.0)
    assert in_time.valid.all() and not in_time.late.any()


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_one_that_wants_to_end_the_program_has_failed(timeout):
    with pytest.raises(RewardFailed, match="the reward raised SystemExit: 3, on the completion '3'"):
        scored(lambda prompts, completions: sys.exit(3), timeout=timeout)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_is_none_is_refused(timeout):
    with pytest.raises(ValueError, match=f"reward_timeout = {timeout} is no time to wait; give seconds, or leave it"):
        as_reward(lambda prompts, completions: [0.0], TOKENIZER, ROWS, timeout)


def test_a_timeout_that_nothing_reads_is_refused(tmp_path):
    for reward in (jax.tree_util.Partial(len), tmp_path):
        with pytest.raises(
            ValueError, match="reward_timeout = 3.0 is for functions of texts, and this reward is asked"
        ):
            as_reward(reward, TOKENIZER, ROWS, 3.0)


def test_people_are_told_which_function_it_is():
    def told(function, timeout=None):
        return describe({"reward": TextReward(function, TOKENIZER, ROWS, timeout)})["reward"]["is"]

    assert told(os.path.join) == told(functools.partial(os.path.join, "a")) == "posixpath:join"
    assert told(TOKENIZER.decode, 2.5) == "jaxrl.lm.text.tokenizer:Tokenizer.decode within 2.5 s"


def test_a_reward_model_is_a_function_of_tokens_whose_parameters_are_given():
    config = config_of("llama", vocab_size=23, num_hidden_layers=1)
    head = jnp.asarray(np.random.default_rng(0).normal(size=(config.hidden_size, 1)), jnp.float32)
    params = with_head(params_of(config), head)
    reward = model_reward(Pretrained(config, params, None))
    rows = TokenRows(jnp.ones((2, 5), jnp.int32), jnp.array([1, 2]), jnp.array([3, 5]))
    found = jax.jit(lambda reward, rows: reward(rows))(reward, rows)
    np.testing.assert_allclose(found, last_scores(language_model(config), params, head, rows), atol=1e-6)
    assert len(split_given({"reward": reward})[0]) == len(jax.tree.leaves(params))
    with pytest.raises(ValueError, match="this model has no score: it speaks"):
        model_reward(Pretrained(config, params_of(config), None))
