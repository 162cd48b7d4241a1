"""The one door through which losses see a language model: right, the same in every chunk size, and small."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.lm import log_probs
from jaxrl.lm.log_probs import TokenStats, completion_stats, per_token_log_probs, token_stats
from jaxrl.lm.transformer import language_model
from tests.helpers.families import config_of, params_of

CONFIG = config_of("llama", vocab_size=97, num_hidden_layers=2)
MODEL, PARAMS = language_model(CONFIG), params_of(CONFIG)

# A model whose hidden states are its parameters; the logits are their products with a kernel.
GIVEN = MODEL._replace(hidden=lambda p, tokens: p["hidden"], unembed=lambda p, hidden: hidden @ p["kernel"])


def given(rows=3, length=9, width=5, vocab=11, dtype=np.float32):
    """(parameters, tokens) for GIVEN."""
    rng = np.random.default_rng(0)
    params = {"hidden": rng.normal(size=(rows, length, width)), "kernel": rng.normal(size=(width, vocab))}
    return jax.tree.map(lambda x: x.astype(dtype), params), rng.integers(0, vocab, (rows, length), np.int32)


def in_numpy(logits, target):
    """Log-probability, entropy and Σp² in float64, by their definitions."""
    logits = np.asarray(logits, np.float64)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, np.asarray(target)[..., None], -1)[..., 0]
    return TokenStats(np.log(chosen), -np.sum(p * np.log(p), -1), np.sum(p**2, -1))


def close(a, b, atol=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=atol)


# --- by hand


def test_token_stats_by_hand():
    # p = (1/2, 1/4, 1/4), from logits with 7 added: entropy ½ ln 2 + ½ ln 4 = 1.5 ln 2, Σp² = 1/4 + 1/16 + 1/16
    stats = token_stats(jnp.log(jnp.array([0.5, 0.25, 0.25])) + 7, jnp.array(1))
    np.testing.assert_allclose(stats, [-np.log(4), 1.5 * np.log(2), 0.375], rtol=1e-5)


@pytest.mark.parametrize("chunk", [None, 1, 3, 4, 128])
def test_golden_vector_c(chunk):
    # preference.md §3 C; hidden states are the logits, and the kernel the identity
    logits = [
        [0.126, -0.132, 0.64, 0.105],
        [-0.536, 0.362, 1.304, 0.947],
        [-0.704, -1.265, -0.623, 0.041],
        [-2.325, -0.219, -1.246, -0.732],
        [-0.544, -0.316, 0.412, 1.043],
    ]
    params = {"hidden": jnp.array([logits]), "kernel": jnp.eye(4)}
    rows = SimpleNamespace(
        tokens=jnp.array([[2, 1, 3, 0, 2]]), prompt_length=jnp.array([2]), length=jnp.array([4])
    )  # of which the mask is [0, 0, 1, 1, 0]
    stats, where = completion_stats(GIVEN, params, rows, chunk)
    expected = [-1.7449945108, -1.1672354346, -1.5605523428, -1.7586466099]
    every = per_token_log_probs(GIVEN, params, rows.tokens, chunk=chunk).log_prob[0]
    np.testing.assert_allclose(every, expected, rtol=1e-6)
    np.testing.assert_allclose(stats.log_prob[0], [0, *expected[1:3], 0], rtol=1e-6)
    np.testing.assert_array_equal(where, [[False, True, True, False]])
    np.testing.assert_allclose(jnp.sum(stats.log_prob, where=where), -2.7277877774, rtol=1e-6)
    np.testing.assert_allclose(jnp.mean(stats.log_prob, where=where), -1.3638938887, rtol=1e-6)


def test_the_mask_by_hand():
    # Entry t is about token t + 1. Of five tokens: a prompt of 2 and a completion of 2 whose last is the EOS (trained)
    # and then padding; no completion; all but the first; all but the first, with nothing after it.
    rows = SimpleNamespace(
        tokens=jnp.zeros((4, 5), jnp.int32), prompt_length=jnp.array([2, 3, 1, 1]), length=jnp.array([4, 3, 5, 2])
    )
    params = {"hidden": jnp.zeros((4, 5, 2)), "kernel": jnp.zeros((2, 3))}
    stats, where = completion_stats(GIVEN, params, rows)
    expected = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(where, np.array(expected, bool))
    np.testing.assert_allclose(stats.log_prob, -np.log(3) * np.array(expected), rtol=1e-6)


# --- properties


def test_all_three_numbers_against_numpy():
    params, tokens = given(vocab=50)
    expected = in_numpy((params["hidden"] @ params["kernel"])[:, :-1], tokens[:, 1:])
    for chunk in (None, 7):
        close(per_token_log_probs(GIVEN, params, tokens, chunk=chunk), expected)


def test_large_logits_are_no_trouble():
    np.testing.assert_array_equal(token_stats(jnp.array([1e4, -1e4, 0.0]), jnp.array(1)), [-2e4, 0, 1])


def test_a_number_added_to_all_logits_changes_nothing():
    # both exactly representable: multiples of 1/512 below 8192 + 64
    logits = np.round(512 * np.random.default_rng(0).normal(size=200)).astype(np.float32) / 512
    for offset in (64, 8192):
        close(token_stats(logits + np.float32(offset), jnp.array(3)), token_stats(logits, jnp.array(3)))


def test_bfloat16_logits_are_reduced_in_float32():
    logits = (4 * jax.random.normal(jax.random.key(0), (5, 300))).astype(jnp.bfloat16)
    stats = token_stats(logits, jnp.arange(5))
    assert {x.dtype for x in stats} == {jnp.dtype(jnp.float32)}
    close(stats, in_numpy(logits.astype(jnp.float32), jnp.arange(5)), 1e-4)


WEIGHTS = np.random.default_rng(1).normal(size=(3, 3, 8)).astype(np.float32)


def objective(model, params, tokens, chunk, where=None):
    """A number that all three statistics of all tokens enter, each with a weight of its own."""
    stats = per_token_log_probs(model, params, tokens, where=where, chunk=chunk)
    return sum(jnp.sum(w * x) for w, x in zip(WEIGHTS, stats, strict=True)), stats


differentiated = jax.jit(jax.value_and_grad(objective, argnums=1, has_aux=True), static_argnums=(0, 3))


@pytest.mark.parametrize("chunk", [1, 4, 7, 23, 24, 128])
@pytest.mark.device
def test_every_chunk_gives_the_dense_values_and_gradients(chunk):
    # 24 tokens: of these, 1, 4 and 24 divide them, 7 and 23 do not, and 128 is more than there are
    params, tokens = given()
    (value, stats), grads = differentiated(GIVEN, params, tokens, chunk)
    (dense_value, dense_stats), dense = differentiated(GIVEN, params, tokens, None)
    close((value, stats, grads), (dense_value, dense_stats, dense))
    assert stats.log_prob.shape == (3, 8) and all(jnp.abs(g).max() > 0.1 for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("chunk", [None, 1, 4, 128])
def test_tokens_that_nobody_asks_about_are_zero_and_have_no_gradient(chunk):
    params, tokens = given()
    where = np.array([[0, 0, 1, 1, 0, 1, 0, 0], [0] * 8, [1, 0, 0, 0, 0, 0, 0, 1]], bool)
    (_, stats), grads = differentiated(GIVEN, params, tokens, chunk, where)
    every = per_token_log_probs(GIVEN, params, tokens, chunk=None)
    close(stats, jax.tree.map(lambda x: np.where(where, x, 0), every))

    def masked(params):
        stats = per_token_log_probs(GIVEN, params, tokens, chunk=None)
        return sum(jnp.sum(w * x, where=where) for w, x in zip(WEIGHTS, stats, strict=True))

    close(grads, jax.grad(masked)(params))
    assert not jnp.any(grads["hidden"][:, :-1][~where])


@pytest.mark.parametrize(("asked", "chunks"), [(0, 0), (1, 1), (4, 1), (5, 2), (24, 6)])
def test_only_chunks_with_a_token_asked_for_are_computed(asked, chunks):
    params, tokens = given()
    calls = []

    def unembed(p, hidden):
        jax.debug.callback(lambda: calls.append(1))
        return hidden @ p["kernel"]

    where = jax.random.permutation(jax.random.key(0), jnp.arange(24) < asked).reshape(3, 8)
    f = jax.jit(lambda p, where: per_token_log_probs(GIVEN._replace(unembed=unembed), p, tokens, where=where, chunk=4))
    jax.block_until_ready(f(params, where))
    jax.effects_barrier()
    assert len(calls) == chunks


def test_rows_of_a_vmap_are_each_their_own():
    params, tokens = given()
    where = np.arange(8) < np.array([1, 5, 8])[:, None]
    f = jax.jit(jax.grad(lambda p, w: objective(GIVEN, p, tokens, 4, jnp.broadcast_to(w, (3, 8)))[0]))
    for i, each in enumerate(zip(*jax.tree.leaves(jax.vmap(f, (None, 0))(params, where)), strict=True)):
        close(each, f(params, where[i]))


def test_of_a_frozen_kernel_no_gradient_is_formed():
    params, tokens = given(width=5, vocab=97)

    def forms_it(changes):
        f = jax.grad(lambda p: objective(GIVEN, params | p, tokens, 4)[0])
        return "-> tensor<5x97xf32>" in jax.jit(f).lower({name: params[name] for name in changes}).as_text()

    assert forms_it(("hidden", "kernel")) and not forms_it(("hidden",))


def test_a_real_models_gradient_is_the_dense_one():
    tokens = given(vocab=97)[1]
    (_, stats), grads = differentiated(MODEL, PARAMS, tokens, 7)
    (_, dense_stats), dense = differentiated(MODEL, PARAMS, tokens, None)
    close(stats, dense_stats)
    largest = {jax.tree_util.keystr(p): jnp.abs(x).max() for p, x in jax.tree_util.tree_leaves_with_path(dense)}
    assert all(x > 1e-3 for x in largest.values()), largest
    close(grads, dense, 1e-5 * max(1.0, *map(float, largest.values())))


def test_a_row_is_judged_alike_in_any_batch_order_and_padding():
    rows, lengths = given(4, 10, vocab=97)[1], [10, 3, 7, 5]
    stats = jax.jit(lambda t: per_token_log_probs(MODEL, PARAMS, t, chunk=8))
    first = stats(rows)
    order = np.array([2, 0, 3, 1])
    padded = np.pad(np.where(np.arange(10) < np.array(lengths)[:, None], rows, 96), ((0, 0), (0, 6)))
    for found, row in zip(zip(*stats(padded[order]), strict=True), order, strict=True):
        for x, y in zip(found, first, strict=True):
            np.testing.assert_allclose(x[: lengths[row] - 1], y[row, : lengths[row] - 1], rtol=0, atol=1e-5)


def test_float64_in_gives_float64_out():
    with jax.enable_x64(True):
        params, tokens = given(dtype=np.float64)
        expected = in_numpy((params["hidden"] @ params["kernel"])[:, :-1], tokens[:, 1:])
        for chunk in (None, 7):
            found = per_token_log_probs(GIVEN, params, tokens, chunk=chunk)
            assert {x.dtype for x in found} == {jnp.dtype(jnp.float64)}
            close(found, expected, 1e-13)


@pytest.mark.parametrize("chunk", [None, 5])
def test_gradients_are_those_of_finite_differences(chunk):
    with jax.enable_x64(True):
        params, tokens = given(2, 4, 3, 6, dtype=np.float64)
        f = jax.jit(lambda p: per_token_log_probs(GIVEN, p, tokens, chunk=chunk))
        check_grads(f, (params,), order=1, modes=["rev"])


# --- memory

SHAPES = {"hidden": (8, 256, 64), "kernel": (64, 49152)}  # a batch of 8·256 tokens of SmolLM2's vocabulary


def compiled(chunk):
    """The gradient of a mean log-probability, compiled but not run."""
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in SHAPES.items()}
    tokens = jax.ShapeDtypeStruct((8, 256), jnp.int32)
    f = jax.jit(jax.grad(lambda p, t: jnp.mean(per_token_log_probs(GIVEN, p, t, chunk=chunk).log_prob)))
    return f.lower(params, tokens).compile()


@pytest.fixture(scope="module")
def dense():
    return compiled(None)


def check_small(program, dense):
    """No array of all tokens by the vocabulary, and a sixth of the dense program's memory."""
    all_tokens = ("8,255,49152", "2040,49152", "2048,49152", "16,128,49152")
    assert any(f"[{shape}]" in dense.as_text() for shape in all_tokens)
    assert not any(f"[{shape}]" in program.as_text() for shape in all_tokens)
    small, large = (p.memory_analysis().temp_size_in_bytes for p in (program, dense))
    assert large > 8 * 255 * 49152 * 4 and small < large / 6, (small, large)


def test_the_logits_of_a_batch_are_never_formed(dense):
    check_small(compiled(128), dense)


def test_logits_kept_for_the_backward_pass_would_be_noticed(dense, monkeypatch):
    def keeping(unembed, chunk, hidden, target, count, weights):
        def reduced(part):
            return token_stats(unembed(part[0], *weights), part[1])

        parts = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), (hidden, target))
        return jax.tree.map(lambda x: x.reshape(-1), jax.lax.map(reduced, parts))

    monkeypatch.setattr(log_probs, "_in_chunks", keeping)
    with pytest.raises(AssertionError):
        check_small(compiled(128), dense)
