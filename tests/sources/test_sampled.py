"""Completions as batches: what is scored is what was said, whatever it was sampled with and whoever is beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.data.prompts import PromptRows, Prompts, first_rows, prompt_buckets
from jaxrl.lm.log_probs import TokenRows, per_token_log_probs
from jaxrl.lm.lora import attach, init_adapters, merge
from jaxrl.lm.settings import Sampling
from jaxrl.lm.transformer import language_model
from jaxrl.settings import check
from jaxrl.sources.sampled import Sampler, completions, contained
from tests.helpers.families import config_of, params_of

MODEL = language_model(config_of("llama", vocab_size=23, num_hidden_layers=2))
PARAMS, REFERENCE = params_of(MODEL.config), params_of(MODEL.config, seed=1)
RNG = np.random.default_rng(0)
PROMPTS = Prompts(RNG.integers(2, 23, (9, 6)).astype(np.int32), np.array([1, 6, 3, 2, 5, 4, 6, 1, 2], np.int32))
BUCKETS, ROOM, END = prompt_buckets(PROMPTS, (3, 6)), 5, 1


def reward(rows):
    return jnp.sum(rows.tokens == 7, axis=1) + 0.5


def sampler(**changes):
    sampling = Sampling(max_new_tokens=ROOM, **changes.pop("sampling", {})).options()
    return Sampler(MODEL, REFERENCE, sampling, (END,), reward, **changes)


def batch(made, params_of=lambda learner: (learner, learner), learner=PARAMS, number=0, **sizes):
    source = completions(made, params_of, BUCKETS, **{"num_prompts": 4, **sizes})
    carry = source.init(jax.random.key(0))
    step = jax.jit(source.collect)
    for i in range(number + 1):
        carry, found = step(jax.random.key(i), learner, carry)
    return found


def test_buckets_hold_every_prompt_once():
    assert [b.tokens.shape for b in BUCKETS] == [(5, 3), (4, 6)]
    for b in BUCKETS:
        for tokens, length, row in zip(*b, strict=True):
            assert length == PROMPTS.length[row]
            np.testing.assert_array_equal(tokens[:length], PROMPTS.tokens[row, :length])
    np.testing.assert_array_equal(first_rows(BUCKETS, 4).row, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="the longest prompt has 6 tokens, more than buckets = \\[4\\] hold"):
        prompt_buckets(PROMPTS, (4,))


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.3, "top_k": 5}, {"temperature": 2.0, "top_p": 0.7}])
def test_log_probs_are_the_training_paths_whatever_was_sampled_with(number, sampling):
    found = batch(sampler(sampling=sampling), number=number, per_prompt=2)
    for params, told in ((PARAMS, found.log_prob), (REFERENCE, found.ref_log_prob)):
        stats = per_token_log_probs(MODEL, params, found.tokens).log_prob
        for b, (start, end) in enumerate(zip(found.prompt_length, found.length, strict=True)):
            np.testing.assert_allclose(told[b, : end - start], stats[b, start - 1 : end - 1], atol=1e-5)
            assert not told[b, end - start :].any()
    assert (found.completion_length >= 1).all() and (found.real.sum(axis=1) == found.completion_length).all()


def test_prompts_are_those_of_their_rows_and_lie_together():
    found = batch(sampler(), per_prompt=3)
    rows = np.asarray(found.row).reshape(4, 3)
    assert (rows == rows[:, :1]).all() and len(set(rows[:, 0])) == 4
    for tokens, row, length in zip(found.tokens, found.row, found.prompt_length, strict=True):
        np.testing.assert_array_equal(tokens[:length], PROMPTS.tokens[row, :length])
    said = [tuple(np.asarray(tokens)) for tokens in found.tokens]
    assert len(set(said)) > 8  # each its own draw


def test_one_that_ended_says_so_and_one_that_was_cut_does_not():
    found = batch(sampler(), per_prompt=8, num_prompts=5)
    last = np.asarray(found.tokens)[np.arange(40), np.asarray(found.length) - 1]
    np.testing.assert_array_equal(found.finished, last == END)
    assert (np.asarray(found.completion_length)[~np.asarray(found.finished)] == ROOM).all()
    assert 0 < found.finished.sum() < 40


def test_micro_batches_and_chunks_change_nothing():
    whole, parts = batch(sampler(), per_prompt=2), batch(sampler(micro_batch_size=2, chunk=8), per_prompt=2)
    np.testing.assert_array_equal(whole.tokens, parts.tokens)
    np.testing.assert_allclose(whole.log_prob, parts.log_prob, atol=1e-5)


def test_adapters_are_merged_to_sample_and_attached_to_score():
    adapters = init_adapters(jax.random.key(0), PARAMS, 2)
    adapters = jax.tree.map(lambda x: x + 0.05, adapters)

    def params_of(learner):
        return merge(PARAMS, learner, 2.0), attach(PARAMS, learner, 2.0)

    found = batch(sampler(), params_of, adapters)
    merged = batch(sampler(), learner=merge(PARAMS, adapters, 2.0))
    np.testing.assert_array_equal(found.tokens, merged.tokens)
    np.testing.assert_allclose(found.log_prob, merged.log_prob, atol=1e-4)


def test_a_score_that_is_not_finite_is_contained():
    found = batch(sampler()._replace(reward=lambda rows: jnp.log(jnp.arange(len(rows.length)) - 1.0)))
    np.testing.assert_array_equal(found.valid, [False, False, True, True])
    assert jnp.isfinite(found.score).all() and not found.score[:2].any()
    assert contained(found).valid.all()  # what stands there is a number


def test_rewards_are_float32():
    found = batch(sampler()._replace(reward=lambda rows: jnp.sum(rows.tokens == 7, axis=1)))
    assert found.score.dtype == jnp.float32
    assert batch(sampler()).score.dtype == jnp.float32 and (batch(sampler()).score % 1 == 0.5).all()


@pytest.mark.parametrize("share", ["top_p", "min_p"])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=f"{share} = 1.5 must be above 0 and at most 1"):
        check(Sampling(**{share: 1.5}))


def test_a_single_width_is_the_default():
    (rows,) = prompt_buckets(PROMPTS)
    assert isinstance(rows, PromptRows) and rows.tokens.shape == (9, 6)
    assert isinstance(TokenRows(rows.tokens, rows.length, rows.length), TokenRows)
