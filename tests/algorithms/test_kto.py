"""Kahneman-Tversky optimisation: one z0 and one loss however the batch is cut, and partners that truly mismatch."""

import functools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl import replace, run, train
from jaxrl.algorithms import DPO, KTO, SFT, kto
from jaxrl.algorithms.kto import cross, mismatch
from jaxrl.data import Completions, Data, DataConfig
from jaxrl.lm.log_probs import Scores
from jaxrl.lm.reference import with_reference
from jaxrl.ops import metrics as m
from jaxrl.ops.platform import compiler_options
from jaxrl.reports.rows import read_metrics
from jaxrl.settings import check
from jaxrl.training.programs import program
from tests.algorithms.test_dpo import (
    BIGRAM,
    PLAIN,
    QUICK,
    SCHEDULE,
    UPDATES,
    batch_of,
    bigram_params,
    check_resume,
    floats,
    gradient,
    in_numpy,
    killed_run,
    log_prob_of,
    moved,
    pairs,
)
from tests.algorithms.test_sft import MODEL, PARAMS, joined, padded, shuffled
from tests.helpers.compare import close, same_bytes

# --- golden vectors: preference.md §3 B, through the whole update of a model whose log-probabilities are its parameters

LOGP, REF = np.array([-12.0, -20, -8, -30]), np.array([-13.5, -19, -8, -26])
KL_LOGP, KL_REF = np.array([-22, -15, -31, -11.5]), np.array([-22.5, -15.2, -30.7, -12.7])
LABEL = [1, 0, 1, 0]


def given_scores(model, params, rows, chunk):
    """In place of a model: row i's own completion has log-probability own[i], a mismatched one kl[i]."""
    crossed = rows.tokens.shape[1] > 5
    values = params["kl" if crossed else "own"][rows.prompt_id]
    return Scores(values, jnp.ones_like(values), values, values)


def updated(monkeypatch, config, own=LOGP, kl=KL_LOGP, label=LABEL):
    """(gradient, metrics) of one update of the golden batch."""
    monkeypatch.setattr(kto, "completion_scores", given_scores)
    as_arrays = lambda own, kl: {"own": jnp.asarray(own, jnp.float32), "kl": jnp.asarray(kl, jnp.float32)}  # noqa: E731
    algorithm = config.make(MODEL, as_arrays(REF, KL_REF), 1)
    learner = algorithm.init(jax.random.key(0))._replace(trained=as_arrays(own, kl))
    four = np.full(4, 2, np.int32)
    batch = batch_of(Completions(np.ones((4, 5), np.int32), four, four + 3, np.float32(label), np.arange(4)))
    after, metrics = algorithm.update(jax.random.key(0), learner, batch)
    return gradient(after), floats(metrics)


GOLDEN = replace(KTO(lm=PLAIN), batch_size=4, max_grad_norm=math.inf)


@pytest.mark.parametrize("micro_batch_size", [None, 2, 1])
def test_golden_vector_b(monkeypatch, micro_batch_size):
    grads, found = updated(monkeypatch, replace(GOLDEN, micro_batch_size=micro_batch_size))
    # z0 = (0.5 + 0.2 - 0.3 + 1.2)/4; rewards are β·(1.5, 0) of the good and β·(-1, -4) of the bad
    expected = {"loss": 0.4598310967, "z0": 0.4, "z0_raw": 0.4, "desirable": 0.5}
    expected |= {"rewards/chosen": 0.075, "rewards/rejected": -0.25, "rewards/margin": 0.325}
    expected |= {"rewards/accuracy": 0.75, "logps/chosen": -10, "logps/rejected": -25}  # 0 < z0 is wrong
    expected |= {"length/chosen": 1, "length/rejected": 1, "entropy": -17.5}  # given_scores's, which are no entropies
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(grads["own"], [-0.0062311318, 0.0062194748, -0.0062475007, 0.0059569996], rtol=1e-5)
    assert (grads["kl"] == 0).all(), "z0 is held constant"


@pytest.mark.parametrize(
    ("changes", "kl", "loss", "z0"),
    [
        ({"undesirable_weight": 1.33}, KL_LOGP, 0.5305169336, 0.4),
        ({"desirable_weight": 1.33}, KL_LOGP, (0.4725276957 + 0.5099986669) * 0.33 / 4 + 0.4598310967, 0.4),
        ({"beta": 0.5}, KL_LOGP, 0.3368152808, 0.4),
        ({}, KL_LOGP - 3, 0.4597258268, 0.0),  # the mean is -2.6
        ({"kl": False}, KL_LOGP, 0.4597258268, None),
    ],
)
def test_golden_vector_b_with_other_settings(monkeypatch, changes, kl, loss, z0):
    _, found = updated(monkeypatch, replace(GOLDEN, **changes), kl=kl)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-6)
    assert found.get("z0") == (None if z0 is None else pytest.approx(z0, rel=1e-5))
    if not z0 and z0 is not None:
        np.testing.assert_allclose(found["z0_raw"], -2.6, rtol=1e-5)


@pytest.mark.parametrize("micro_batch_size", [None, 2, 1])
def test_z0_is_averaged_over_all_micro_batches_and_then_clamped(monkeypatch, micro_batch_size):
    # 2 and 1 in one micro-batch of two, -4 and -1 in the other: the mean is -0.5; clamped first, it would be 0.75
    config = replace(GOLDEN, micro_batch_size=micro_batch_size)
    _, found = updated(monkeypatch, config, kl=KL_REF + np.array([2, 1, -4, -1]))
    np.testing.assert_allclose([found["z0_raw"], found["z0"]], [-0.5, 0], atol=1e-6)


@pytest.mark.parametrize(("label", "absent"), [([1, 1, 1, 1], "rejected"), ([0, 0, 0, 0], "chosen")])
def test_a_class_that_is_not_there_adds_nothing(monkeypatch, label, absent):
    config = replace(GOLDEN, desirable_weight=1.5, undesirable_weight=3.0)
    grads, found = updated(monkeypatch, config, label=label)
    weight, sign = (1.5, -1) if label[0] else (3.0, 1)
    values = weight / (1 + np.exp(-sign * 0.1 * (LOGP - REF - 0.4)))
    np.testing.assert_allclose(found["loss"], values.mean(), rtol=1e-5)
    np.testing.assert_allclose(grads["own"], sign * 0.1 * values * (1 - values / weight) / 4, rtol=1e-4)
    missing = {f"{name}/{absent}" for name in ("rewards", "logps", "length")} | {"rewards/margin"}
    assert {name for name, x in found.items() if math.isnan(x)} == missing


# --- the loss and its gradient


def thumbs(count, width, seed):
    """The answers of `pairs`, half of them good and half bad."""
    both, good = pairs(count, width, seed), np.arange(count) % 2 == 0
    pick = lambda x, y: np.where(good.reshape(-1, *[1] * (x.ndim - 1)), x, y)  # noqa: E731
    rows = Completions(*(None if x is None else pick(x, y) for x, y in zip(*both, strict=True)))
    return rows._replace(label=good.astype(np.float32))


SETTINGS = KTO(lm=PLAIN, beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
SETTINGS = replace(SETTINGS, batch_size=8, max_grad_norm=math.inf)
BATCH = thumbs(8, 10, 4)._replace(prompt_id=np.arange(8, dtype=np.int32))
BATCH.length[[3, 7]] = 10  # of prompt 3 nine tokens, to be followed by all that answered prompt 7
BATCH.prompt_length[3] = 9
PARTNER = np.array([3, 5, 0, 7, 6, 2, 1, 4])  # of the prompt of that number


def partners(key, rows, real):
    """The same partners whatever the order of the rows, and none for rows that fill up."""
    theirs = (rows.prompt_id == jnp.asarray(PARTNER)[rows.prompt_id][:, None]) & real
    return jnp.argmax(theirs, axis=1), real


def spliced(rows, partner):
    """Prompt i with completion partner[i], as lists of ids joined."""
    prompts = [t[:n].tolist() for t, n in zip(rows.tokens, rows.prompt_length, strict=True)]
    answers = [t[n:end].tolist() for t, n, end in zip(rows.tokens, rows.prompt_length, rows.length, strict=True)]
    made = [prompt + answers[j] for prompt, j in zip(prompts, partner, strict=True)]
    tokens = np.array([row + [0] * (24 - len(row)) for row in made], np.int32)
    return Completions(tokens, rows.prompt_length, np.array([len(row) for row in made]), None, rows.prompt_id)


@jax.jit
def by_definition(params, reference, rows, crossed):
    """The loss, its gradient, and z0 before it is clamped."""
    h = lambda p, rows: log_prob_of(p, rows)[0] - log_prob_of(reference, rows)[0]  # noqa: E731
    raw = h(params, crossed).mean()

    def loss(params):
        away = h(params, rows) - jnp.maximum(raw, 0)
        bad = 0.7 * jax.nn.sigmoid(0.3 * away)
        return jnp.mean(jnp.where(rows.label > 0.5, 1.2 * jax.nn.sigmoid(-0.3 * away), bad))

    return *jax.value_and_grad(loss)(params), raw


@functools.cache
def functions(config):
    """(init, update), compiled."""
    algorithm = config.make(MODEL, PARAMS, 10)
    return jax.jit(algorithm.init), jax.jit(algorithm.update)


CUTS = {
    # settings, rows, weights
    "by fours, recomputed, shuffled, in a wider bucket": (
        replace(SETTINGS, micro_batch_size=4, lm=replace(PLAIN, remat=True)),
        padded(shuffled(BATCH, 1), 16), np.ones(8),
    ),
    "in pairs, chunks of 5, after four rows that fill up, short prompts": (
        replace(
            SETTINGS, micro_batch_size=2, batch_size=12, lm=replace(PLAIN, logit_chunk=5),
            data=DataConfig(max_prompt_length=9),
        ),
        joined(BATCH._replace(tokens=(BATCH.tokens + 5) % 23), BATCH), np.array([0] * 8 + [1] * 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_loss_and_gradient_are_the_same_however_the_batch_is_cut_ordered_and_padded(name, key, monkeypatch):
    monkeypatch.setattr(kto, "mismatch", partners)
    config, rows, weight = CUTS[name]
    init, update = functions(config)
    policy = moved(PARAMS)
    after, metrics = update(key, init(key)._replace(trained=policy), batch_of(rows, weight.astype(np.float32)))
    crossed = spliced(BATCH, PARTNER)
    assert crossed.length.max() >= 16, "more than the width of the bucket"
    loss, grads, raw = by_definition(policy, PARAMS, BATCH, crossed)
    assert abs(raw) > 0.05 and metrics["z0_raw"].count == 8 == metrics["loss"].count
    np.testing.assert_allclose(metrics["z0_raw"].value, raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"].value, loss, rtol=1e-5)
    close(gradient(after), grads, 1e-5)
    np.testing.assert_allclose(metrics["grad_norm"].value, optax.tree.norm(grads), rtol=1e-5)


# --- the bigram model: what the course of training has of it

LOOSE = replace(KTO(lm=PLAIN), batch_size=8, learning_rate=0.01, max_grad_norm=math.inf)


@functools.cache
def bigram(config):
    """(learner, update, measure) of the bigram model, compiled."""
    algorithm = config.make(BIGRAM, bigram_params(), 10)
    return algorithm.init(jax.random.key(0)), jax.jit(algorithm.update), jax.jit(algorithm.measure)


@pytest.mark.parametrize("good", [8, 5, 0])
def test_where_the_loss_starts(good, key):
    config = replace(LOOSE, desirable_weight=1.0, undesirable_weight=1.33)
    start, update, measure = bigram(config)
    batch = batch_of(BATCH._replace(label=np.float32(np.arange(8) < good)))
    for metrics in (update(key, start, batch)[1], measure(key, start, batch)):
        found = floats(metrics)
        np.testing.assert_allclose(found["loss"], (good + 1.33 * (8 - good)) / 16, rtol=1e-6)
        assert found["z0"] == found["z0_raw"] == 0 and found["desirable"] == good / 8
        config.check_start(found)
    away = start._replace(trained=moved(start.trained, 0.3))
    with pytest.raises(ValueError, match="rewards start at .*, not 0: policy and reference differ before the first"):
        config.check_start(floats(measure(key, away, batch)))


def test_z0_is_the_mean_over_true_mismatches_and_real_rows(key):
    # prompts 0 0 0 1 1 2, and two rows that fill up and would have been mismatches
    rows = BATCH._replace(prompt_id=np.int32([0, 0, 0, 1, 1, 2, 3, 4]))
    start, update, _ = bigram(LOOSE)
    policy = moved(start.trained, 0.3)
    _, metrics = update(key, start._replace(trained=policy), batch_of(rows, np.float32([1] * 6 + [0] * 2)))
    k_z0 = key  # the update's key is that of the draw
    other, valid = mismatch(k_z0, jax.tree.map(jnp.asarray, rows), jnp.arange(8) < 6)
    assert valid[:6].all() and not valid[6:].any() and metrics["z0_raw"].count == 6 == metrics["loss"].count
    crossed = jax.tree.map(lambda x: x[:6], spliced(rows, np.asarray(other)))
    expected = (in_numpy(policy, crossed)[0] - in_numpy(start.trained, crossed)[0]).mean()
    np.testing.assert_allclose(metrics["z0_raw"].value, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["z0"].value, max(expected, 0), rtol=1e-5)


def test_the_draw_is_the_same_for_every_micro_batch_size_and_another_with_another_key(key):
    found = []
    for config in (LOOSE, replace(LOOSE, micro_batch_size=2)):
        start, update, _ = bigram(config)
        start = start._replace(trained=moved(start.trained, 0.3))
        found.append([update(jax.random.key(i), start, batch_of(BATCH))[1]["z0_raw"].value for i in range(4)])
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)
    assert len({round(float(x), 4) for x in found[0]}) == 4


def test_a_batch_of_one_prompt_has_z0_at_zero(key):
    start, update, _ = bigram(LOOSE)
    rows = batch_of(BATCH._replace(prompt_id=np.zeros(8, np.int32)))
    after, metrics = update(key, start._replace(trained=moved(start.trained, 0.3)), rows)
    assert metrics["z0_raw"].count == 0 and metrics["z0"].value == 0 and jnp.isfinite(metrics["loss"].value)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(after))


def test_a_cached_reference_is_the_frozen_one(key, tmp_path):
    frozen, updates = bigram_params(), []
    rows = with_reference((BATCH,), tmp_path / "cache", "", BIGRAM, frozen, 3)[0]
    for reference in ("frozen", "cached"):
        start, update, _ = bigram(replace(LOOSE, reference=reference))
        updates.append(update(key, start._replace(trained=moved(frozen, 0.3)), batch_of(rows)))
    close(gradient(updates[0][0]), gradient(updates[1][0]), 1e-6)
    close(*(m.values(metrics) for _, metrics in updates), 1e-5)
    # other numbers would be used, but not for z0, whose pairs no file can hold
    other = rows._replace(ref_log_prob=rows.ref_log_prob + 1)
    _, metrics = update(key, start._replace(trained=moved(frozen, 0.3)), batch_of(other))
    assert metrics["z0_raw"].value == updates[1][1]["z0_raw"].value
    np.testing.assert_allclose(metrics["rewards/chosen"].value, updates[1][1]["rewards/chosen"].value - 0.1, atol=1e-5)


# --- partners


draw = jax.jit(mismatch)


def answers(ids, width=7):
    """A different answer of every row to the prompt of its id."""
    ids = jnp.asarray(ids, jnp.int32)
    return Completions(
        jnp.stack([ids + 1, *[jnp.arange(len(ids)) + 3 * t for t in range(1, width)]], axis=1),
        jnp.ones_like(ids), jnp.full_like(ids, width), None, ids,
    )  # fmt: skip


def test_partners_are_another_prompts_wherever_that_can_be():
    rng = np.random.default_rng(0)
    seen = set()
    for trial in range(300):
        real = np.arange(9) < rng.integers(1, 10)
        ids = rng.integers(0, rng.integers(1, 10), 9).astype(np.int32)
        shuffle = rng.permutation(9)
        real, ids = real[shuffle], ids[shuffle]
        other, valid = map(np.asarray, draw(jax.random.key(trial), answers(ids), real))
        rows, largest = real.sum(), max(np.bincount(ids[real]))
        assert sorted(other[real]) == sorted(np.flatnonzero(real)), "every completion is used once"
        assert not valid[~real].any() and (valid[real] == (ids[other[real]] != ids[real])).all()
        # of a group that is larger than the rest together only as many can be placed elsewhere as there are elsewhere
        assert valid.sum() == min(rows, 2 * (rows - largest))
        seen.add(np.sign(2 * largest - rows))
    assert seen == {-1, 0, 1}


def test_one_prompt_has_no_partners():
    assert not draw(jax.random.key(0), answers(np.zeros(9)), np.ones(9, bool))[1].any()


@pytest.mark.parametrize("twins", [False, True])
def test_partners_are_drawn_evenly(twins):
    keys = jax.random.split(jax.random.key(0), 6000)
    other, valid = jax.vmap(lambda k: mismatch(k, answers(np.arange(5)), jnp.ones(5, bool)))(keys)
    assert valid.all()
    counts = np.array([np.bincount(column, minlength=5) for column in np.asarray(other).T])
    assert (np.diag(counts) == 0).all()
    # 1500 each, standard deviation √(6000·¼·¾) = 34
    assert np.abs(counts[~np.eye(5, dtype=bool)] - 1500).max() < 4.5 * 34, counts
    # of prompts 0 0 0 1 1 1, a completion of the other prompt, each with probability ⅓: √(6000·⅓·⅔) = 37. Twins:
    # completions whose tokens are 1, 2 and 3 times the same, which a linear hash would order unevenly
    rows = answers([0, 0, 0, 1, 1, 1])
    if twins:
        rows = rows._replace(tokens=(rows.tokens * 0 + 5) * (1 + jnp.arange(6) % 3)[:, None] - 1)
    other, valid = jax.vmap(lambda k: mismatch(k, rows, jnp.ones(6, bool)))(keys)
    assert valid.all()
    counts = np.array([np.bincount(column, minlength=6) for column in np.asarray(other).T])
    np.testing.assert_array_equal(counts[:3, :3], 0)
    assert np.abs(counts[:3, 3:] - 2000).max() < 4.5 * 37, counts
    orders, times = np.unique(np.asarray(other)[:, :3] @ [36, 6, 1], return_counts=True)
    assert len(orders) == 6 and np.abs(times - 1000).max() < 4.5 * math.sqrt(6000 * 5 / 36), times


REPEATING = BATCH._replace(
    prompt_id=np.int32([0, 0, 0, 1, 1, 2, 3, 4]),
    prompt_length=BATCH.prompt_length[[0, 0, 0, 3, 3, 5, 6, 7]].clip(max=3),
)
ORDERS = [np.random.default_rng(seed).permutation(8) for seed in range(4)]


def in_orders(key):
    """Gradient, loss and z0 of one batch, whose prompts repeat, in several orders of its rows."""
    policy = bigram_params()
    config = replace(LOOSE, beta=1.0, undesirable_weight=2.0)
    algorithm = config.make(BIGRAM, moved(policy, 0.3), 10)  # of these two the policy is the likelier: z0 is positive
    start, update = algorithm.init(key)._replace(trained=policy), jax.jit(algorithm.update)
    found = []
    for order in ORDERS:
        after, metrics = update(key, start, batch_of(jax.tree.map(lambda x, order=order: x[order], REPEATING)))
        found.append((gradient(after), metrics["loss"].value, metrics["z0"].value))
    assert found[0][2] > 0.05, "clamped, z0 has no say"
    return found


def apart(found):
    """Largest difference between the first and any other, of gradient, loss and z0."""
    first, *others = found
    distances = [jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), first, other) for other in others]
    return [max(max(jax.tree.leaves(distance[i])) for distance in distances) for i in range(3)]


def test_neither_loss_nor_gradient_depends_on_the_order_of_rows_whose_prompts_repeat(key):
    assert max(apart(in_orders(key))) < 1e-5


def test_partners_drawn_by_place_in_the_batch_would_be_noticed(key, monkeypatch):
    monkeypatch.setattr(kto, "content_bits", lambda key, rows: jax.random.bits(key, rows.length.shape))
    assert min(apart(in_orders(key))) > 1e-4


def test_the_draw_does_not_see_padding_or_rows_that_fill_up(key):
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])
    rows = joined(padded(REPEATING, 16), padded(REPEATING, 16)._replace(prompt_id=np.arange(8, dtype=np.int32)))
    wide = jax.tree.map(lambda x: x[np.r_[order, 8:16]], rows)
    other, valid = draw(key, REPEATING, np.ones(8, bool))
    moved_other, moved_valid = draw(key, wide, np.arange(16) < 8)
    assert valid.all() and moved_valid[:8].all() and not moved_valid[8:].any()
    np.testing.assert_array_equal(order[moved_other[:8]], np.asarray(other)[order])


def test_rows_are_told_apart_by_tokens_and_by_where_the_answer_begins():
    rows = jax.tree.map(lambda x: np.stack([x[0]] * 4), REPEATING)
    rows = rows._replace(length=np.int32([6, 6, 6, 5]), prompt_length=np.int32([2, 2, 3, 2]))
    rows.tokens[:, :6] = [4, 5, 6, 7, 8, 0]
    rows.tokens[:, 6:] = np.arange(4)[:, None]  # beyond the end
    bits = np.asarray(kto.content_bits(jax.random.key(0), rows))
    assert bits[0] == bits[1] and len(set(bits.tolist())) == 3


def test_crossed_rows_by_hand():
    # (1 2 | 3 9), (4 | 5 6 7 9), (1 2 3 4 | 9), 9 the end of text and 0 padding; completions move up by one row
    rows = Completions(
        jnp.array([[1, 2, 3, 9, 0], [4, 5, 6, 7, 9], [1, 2, 3, 4, 9]]), jnp.array([2, 1, 4]), jnp.array([4, 5, 5]),
        jnp.ones(3), jnp.array([7, 8, 9]), jnp.zeros(3),
    )  # fmt: skip
    made = cross(rows, jnp.array([1, 2, 0]), None)
    expected = [[1, 2, 5, 6, 7, 9], [4, 9], [1, 2, 3, 4, 3, 9]]
    for limit in (None, 4, 9):
        made = cross(rows, jnp.array([1, 2, 0]), limit)
        assert made.tokens.shape == (3, 10 if limit is None or limit > 5 else 9)
        assert [row[:n].tolist() for row, n in zip(made.tokens, made.length, strict=True)] == expected
    np.testing.assert_array_equal(made.prompt_length, rows.prompt_length)
    np.testing.assert_array_equal(made.prompt_id, rows.prompt_id)
    assert made.label is None and made.ref_log_prob is None, "neither belongs to a crossed row"


# --- measuring, of all three that learn from data

MANY = (thumbs(32, 64, 5), pairs(32, 64, 5))


@pytest.mark.parametrize("make", [SFT, DPO, KTO])
def test_measuring_takes_the_memory_of_an_update_and_gives_the_figures_of_the_whole_batch(make, key):
    memory, figures = {}, {}
    batch = batch_of(MANY[1] if make is DPO else MANY[0])
    for size in (None, 2):
        algorithm = replace(make(lm=PLAIN), batch_size=32, micro_batch_size=size).make(MODEL, PARAMS, 10)
        learner = algorithm.init(key)._replace(trained=moved(PARAMS))
        compiled = jax.jit(algorithm.measure).lower(key, learner, batch).compile()
        memory[size], figures[size] = used(compiled), floats(compiled(key, learner, batch))
    update = used(jax.jit(algorithm.update).lower(key, learner, batch).compile())
    assert memory[2] < 1.2 * update and memory[2] < memory[None] / 4, (memory, update)
    assert figures[2].keys() == figures[None].keys()
    for name, value in figures[None].items():
        np.testing.assert_allclose(figures[2][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def used(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


# --- learning, and the course of a run

DATA = Data((thumbs(9, 6, 0), thumbs(6, 10, 1)), (thumbs(5, 6, 2), thumbs(3, 10, 3)))
COURSE = replace(
    KTO(lm=PLAIN, beta=0.5), epochs=3, batch_size=4, micro_batch_size=2, learning_rate=0.01, warmup=0.25
)  # fmt: skip
GIVEN = {"network": BIGRAM, "params": bigram_params(), "data": DATA}


def unpaired(both, seed):
    """Both answers of every pair, shuffled."""
    good, bad = (side._replace(label=np.full(len(side.length), x)) for side, x in zip(both, (1.0, 0.0), strict=True))
    return shuffled(joined(good, bad), seed)


def test_what_is_liked_becomes_likelier_and_what_is_not_less():
    data = Data((unpaired(pairs(32, 8, 6), 0),), (unpaired(pairs(32, 8, 7), 0),))
    config = replace(KTO(lm=PLAIN), epochs=8, batch_size=16, learning_rate=0.03)

    def learn(key, params):
        p = program(config, network=BIGRAM, params=params, data=data)
        state, metrics = jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
        return metrics, p.evaluators[0].measure(key, state.learner, jnp.int32(0))

    params = jax.tree.map(lambda *x: jnp.stack(x), *map(bigram_params, range(3)))
    metrics, held_out = jax.jit(jax.vmap(learn))(jax.vmap(jax.random.key)(jnp.arange(3)), params)
    loss = np.asarray(metrics["loss"].value)
    np.testing.assert_allclose(loss[:, 0], 0.5, atol=1e-6)
    assert loss.shape == (3, 32) and (loss[:, -1] < 0.35).all(), loss
    found = {name: np.asarray(x) for name, x in m.values(held_out).items()}
    assert (found["rewards/chosen"] > 0.3).all() and (found["rewards/rejected"] < -0.3).all(), found
    assert (found["loss"] < 0.4).all() and (metrics["z0"].value >= 0).all()
    assert (metrics["z0_raw"].value[:, -1] != 0).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return run(COURSE, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False, **GIVEN)


@pytest.mark.computes
def test_run_equals_train_bit_for_bit(tmp_path):
    whole = run(COURSE, 3, tmp_path / "run", schedule=SCHEDULE, progress=False, **GIVEN)
    f = jax.jit(
        lambda c, key, params, data: train(c, key, network=BIGRAM, params=params, data=data),
        compiler_options=compiler_options(0, brief=False),  # as `run` compiles it
    )
    state, metrics = f(COURSE, jax.random.key(3), GIVEN["params"], DATA)
    assert same_bytes(whole.state, state)
    found = read_metrics(whole.run_dir / "metrics.jsonl")
    assert [row["step"] for row in found] == [4 * i for i in range(UPDATES + 1)]
    for name in ("loss", "z0", "grad_norm"):
        np.testing.assert_allclose([row[name] for row in found[1:]], metrics[name].value, rtol=1e-6, atol=1e-9)
    assert len({row["z0_raw"] for row in found[1:]}) > UPDATES // 2
    assert found[0]["eval_loss"] == 0.5 == whole.figures["loss_before"] > whole.figures["loss"]


def test_killed_in_an_epoch_and_resumed_in_a_new_process_is_byte_identical(whole, tmp_path):
    check_resume("tests.algorithms.test_kto", COURSE, GIVEN, whole, tmp_path / "run")


# --- mistakes


ONE_PROMPT = Data(tuple(rows._replace(prompt_id=rows.prompt_id * 0) for rows in DATA.train))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            Data((pairs(9, 6, 0),)),
            r"KTO learns from \{prompt, completion, label\}; give every row a label, or `",
        ),
        (Data((DATA.train[0]._replace(label=None),)), r"KTO learns from \{prompt, completion, label\}"),
        (Data(DATA.train, (pairs(9, 6, 0),)), r"KTO learns from \{prompt, completion, label\}"),
        (ONE_PROMPT, "every row has the same prompt, so none can be mismatched for z0; set kl = False"),
    ],
)
def test_mistakes_are_sentences_before_anything_runs(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(COURSE, 0, tmp_path / "run", progress=False, **{**GIVEN, "data": data})
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_is_too_small_for_z0():
    with pytest.raises(ValueError, match="loop.batch_size = 1 leaves no other prompt for z0; set at least 2, or kl"):
        check(replace(KTO(), batch_size=1))
    check(replace(KTO(kl=False), batch_size=1))


def test_a_cache_that_is_not_read_is_refused():
    with pytest.raises(ValueError, match="reference_cache = 'x' is not read with reference = 'frozen'; leave it out"):
        check(KTO(reference_cache="x"))
    check(KTO(reference="cached", reference_cache="x"))


def test_one_prompt_is_enough_without_z0(tmp_path):
    config = replace(COURSE, kl=False, max_updates=1)
    made = run(config, 0, tmp_path / "run", **QUICK, **{**GIVEN, "data": ONE_PROMPT})
    assert "z0" not in made.figures and math.isfinite(made.figures["first_rows_loss"])


def test_a_cached_reference_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reference = 'cached' .* computed before"):
        program(replace(COURSE, reference="cached"), **GIVEN)


def test_rewards_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="rewards start at nan"):
        COURSE.check_start({"rewards/chosen": math.nan, "rewards/rejected": math.nan, "loss": math.nan})


def test_no_rows_at_all_are_refused():
    with pytest.raises(ValueError, match="there are no buckets"):
        program(COURSE, **{**GIVEN, "data": Data(())})


if __name__ == "__main__":
    killed_run(COURSE, GIVEN, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")


def test_a_prompt_and_anothers_completion_end_with_the_context():
    # rows of 3 + 1 and 1 + 3 tokens: the long prompt with the long completion is 6, of which the context holds 5
    tokens = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
    rows = Completions(tokens, np.array([3, 1]), np.array([4, 4]), None, np.arange(2))
    other = jnp.array([1, 0])
    whole, cut = (kto.cross(rows, other, None, context) for context in (None, 5))
    np.testing.assert_array_equal(whole.tokens[0][:6], [1, 2, 3, 6, 7, 8])
    assert whole.length.tolist() == [6, 2] and cut.length.tolist() == [5, 2] and cut.tokens.shape == (2, 5)
    np.testing.assert_array_equal(cut.tokens[0], [1, 2, 3, 6, 7])
