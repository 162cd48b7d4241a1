"""Divergences against sums over everything that could be said, and log-probabilities that a file keeps."""

import functools
import itertools
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.data import Completions, Pairs
from jaxrl.lm import reference
from jaxrl.lm.log_probs import TokenRows, completion_scores
from jaxrl.lm.reference import exact_kl, sampled_kl, with_reference
from jaxrl.lm.transformer import language_model
from tests.helpers.families import config_of, params_of

CONFIG = config_of("llama", vocab_size=4, num_hidden_layers=2)
MODEL, PARAMS, OTHER = language_model(CONFIG), params_of(CONFIG, 0), params_of(CONFIG, 1)

# --- divergences

PROMPT, SAID = (2, 0), 3
ALL = [(*PROMPT, *answer) for answer in itertools.product(range(4), repeat=SAID)]
ROWS = TokenRows(
    np.array([[*row, 3, 3] for row in ALL], np.int32), np.full(64, 2, np.int32), np.full(64, 5, np.int32)
)  # fmt: skip


def log_softmax(params, tokens):
    logits = np.asarray(MODEL.apply(params, jnp.asarray(tokens)), np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@functools.cache
def by_definition():
    """Of all 64 answers of three tokens: ln π and ln ref [64, 3], and of every place the KL over the next token."""
    p, q = (log_softmax(params, ROWS.tokens)[:, 1:4] for params in (PARAMS, OTHER))
    said = ROWS.tokens[:, 2:5, None]
    log_p, log_q = (np.take_along_axis(x, said, -1)[..., 0] for x in (p, q))
    return log_p, log_q, (np.exp(p) * (p - q)).sum(-1)


def test_the_estimators_token_by_token():
    log_p, log_q, _ = by_definition()
    delta = log_p - log_q
    k1, k3 = sampled_kl(MODEL, PARAMS, OTHER, ROWS)
    np.testing.assert_allclose(k1, delta.sum(1), atol=1e-5)
    np.testing.assert_allclose(k3, (np.exp(-delta) - 1 + delta).sum(1), rtol=1e-5, atol=1e-5)
    assert (k1 < 0).any() and (k3 >= 0).all()


def test_their_expectation_is_the_divergence():
    # all 64 answers, each as often as π says it: no chance is involved
    log_p, log_q, _ = by_definition()
    often = np.exp(log_p.sum(1))
    np.testing.assert_allclose(often.sum(), 1, rtol=1e-6)
    kl = (often * (log_p - log_q).sum(1)).sum()
    assert kl > 0.05
    for estimate in (*sampled_kl(MODEL, PARAMS, OTHER, ROWS), exact_kl(MODEL, PARAMS, OTHER, ROWS)):
        np.testing.assert_allclose((often * np.asarray(estimate)).sum(), kl, rtol=1e-5)


@pytest.mark.parametrize("chunk", [128, 7])
def test_the_exact_divergence_sums_over_the_vocabulary(chunk):
    expected = by_definition()[2].sum(1)
    np.testing.assert_allclose(exact_kl(MODEL, PARAMS, OTHER, ROWS, chunk), expected, rtol=1e-5)


def test_only_the_completion_counts():
    length = np.where(np.arange(64) % 2 == 0, 4, 2).astype(np.int32)  # two tokens, or none
    rows = ROWS._replace(length=length)
    log_p, log_q, kl = (x[:, :2] for x in by_definition())
    some = length > 2
    for found, per_token in [
        (sampled_kl(MODEL, PARAMS, OTHER, rows)[0], log_p - log_q),
        (exact_kl(MODEL, PARAMS, OTHER, rows), kl),
    ]:
        np.testing.assert_allclose(found, np.where(some, per_token.sum(1), 0), rtol=1e-5, atol=1e-5)
        assert (found[~some] == 0).all()


def test_a_model_does_not_differ_from_itself():
    for estimate in (*sampled_kl(MODEL, PARAMS, PARAMS, ROWS), exact_kl(MODEL, PARAMS, PARAMS, ROWS)):
        assert (estimate == 0).all()


# --- the file


def completions(count, width, seed):
    rng = np.random.default_rng(seed)
    tokens, length = rng.integers(0, 4, (count, width)).astype(np.int32), rng.integers(3, width + 1, count)
    return Completions(tokens, rng.integers(1, 3, count), length, np.ones(count, np.float32), np.arange(count))


BUCKETS = (Pairs(completions(5, 6, 0), completions(5, 6, 1)), completions(7, 9, 2), completions(1, 4, 3))


def sides(buckets):
    return [buckets[0].chosen, buckets[0].rejected, *buckets[1:]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "deep" / "reference.npz"
    return path, with_reference(BUCKETS, path, "one", MODEL, PARAMS, 3)


def test_every_row_has_its_own_log_probability(made):
    _, buckets = made
    assert [type(rows) for rows in buckets] == [Pairs, Completions, Completions]
    for given, filled in zip(sides(BUCKETS), sides(buckets), strict=True):
        expected = completion_scores(MODEL, PARAMS, given).log_prob
        np.testing.assert_allclose(filled.ref_log_prob, expected, rtol=1e-5, atol=1e-5)
        assert filled.ref_log_prob.dtype == np.float32
        for name in ("tokens", "prompt_length", "length", "label", "prompt_id"):
            assert getattr(filled, name) is getattr(given, name)


def test_what_was_written_is_read_without_a_model(made, monkeypatch):
    path, first = made
    written = path.read_bytes()
    monkeypatch.setattr(reference, "_compute", None)
    again = with_reference(BUCKETS, path, "one", None, None, 3)
    for a, b in zip(sides(first), sides(again), strict=True):
        np.testing.assert_array_equal(a.ref_log_prob, b.ref_log_prob)
    assert path.read_bytes() == written and [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_size_of_its_batches_changes_nothing(made, tmp_path):
    other = with_reference(BUCKETS, tmp_path / "c.npz", "one", MODEL, PARAMS, 8)
    for a, b in zip(sides(made[1]), sides(other), strict=True):
        np.testing.assert_allclose(a.ref_log_prob, b.ref_log_prob, rtol=1e-5, atol=1e-5)


def test_numbers_of_another_identity_are_refused(made):
    path, _ = made
    written = path.read_bytes()
    with pytest.raises(ValueError, match="was made with other weights, rows or settings; remove it, or name another"):
        with_reference(BUCKETS, path, "two", MODEL, PARAMS, 3)
    assert path.read_bytes() == written


DAMAGES = ["cut", "one byte", "text", "empty", "one array", "fewer rows"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_and_kept(made, tmp_path, damage):
    whole = made[0].read_bytes()
    path = tmp_path / "reference.npz"
    if damage == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage == "fewer rows":
        with np.load(made[0]) as file:
            np.savez(path, **{name: x if name == "identity" else x[:-1] for name, x in file.items()})
    else:
        place = whole.index(b"NUMPY", whole.index(b"0.npy")) + 130
        flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        path.write_bytes({"cut": whole[:-30], "one byte": flipped, "text": b"hello", "empty": b""}[damage])
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"the reference cache .* is damaged \(.*\); remove it"):
        with_reference(BUCKETS, path, "one", MODEL, PARAMS, 3)
    assert path.read_bytes() == content


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    def interrupted(path, **arrays):
        path.write_bytes(b"half of it")
        raise InterruptedError

    monkeypatch.setattr(np, "savez", interrupted)
    path = tmp_path / "reference.npz"
    with pytest.raises(InterruptedError):
        with_reference(BUCKETS[2:], path, "one", MODEL, PARAMS, 3)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with_reference(BUCKETS[2:], path, "one", MODEL, PARAMS, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["reference.npz"]


def test_two_that_score_at_once_both_end_with_the_file(tmp_path, monkeypatch):
    # as seeds of a sweep do: both have written before either renames
    save, both_wrote, failed = np.savez, threading.Barrier(2), []

    def slowly(*arguments, **arrays):
        save(*arguments, **arrays)
        both_wrote.wait(timeout=60)

    def score():
        try:
            with_reference(BUCKETS[2:], tmp_path / "reference.npz", "one", MODEL, PARAMS, 3)
        except Exception as error:
            failed.append(error)

    monkeypatch.setattr(np, "savez", slowly)
    workers = [threading.Thread(target=score) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed and [p.name for p in tmp_path.iterdir()] == ["reference.npz"]
    with_reference(BUCKETS[2:], tmp_path / "reference.npz", "one", None, None, 3)
