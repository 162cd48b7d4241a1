"""The next token: what is left out, and the frequencies of what is drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm.sampling.choice import _invert, categorical, truncate
from tests.helpers.drawing import frequencies_fit, softmax, sorted_out

VOCAB = 97

# --- what is left out


P = [0.5, 0.25, 0.125, 0.125]
BY_HAND = [
    ({}, [1, 1, 1, 1]),
    ({"top_k": 1}, [1, 0, 0, 0]),
    ({"top_k": 2}, [1, 1, 0, 0]),
    ({"top_k": 3}, [1, 1, 1, 1]),  # the third and the fourth are tied
    ({"top_k": 4}, [1, 1, 1, 1]),
    ({"top_k": 1000}, [1, 1, 1, 1]),
    ({"top_p": 1e-9}, [1, 0, 0, 0]),  # never nothing
    ({"top_p": 0.49}, [1, 0, 0, 0]),
    ({"top_p": 0.51}, [1, 1, 0, 0]),
    ({"top_p": 0.74}, [1, 1, 0, 0]),
    ({"top_p": 0.76}, [1, 1, 1, 1]),  # three would do, but two are tied
    ({"min_p": 0.2}, [1, 1, 1, 1]),  # of 0.5: 0.1
    ({"min_p": 0.3}, [1, 1, 0, 0]),
    ({"min_p": 1.0}, [1, 0, 0, 0]),
    ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),  # of two, the first has 2/3; before, it had less than 0.6
    ({"top_p": 0.51, "min_p": 0.6}, [1, 0, 0, 0]),
]


@pytest.mark.parametrize(("settings", "stay"), BY_HAND)
def test_truncation_by_hand(settings, stay):
    order = np.array([2, 0, 3, 1])
    logits = (jnp.log(jnp.array(P)) + 3)[order]
    found = truncate(logits, **{"top_k": 0, "top_p": 1.0, "min_p": 0.0, **settings})
    np.testing.assert_array_equal(jnp.isfinite(found), np.array(stay, bool)[order])
    np.testing.assert_array_equal(found[jnp.isfinite(found)], logits[jnp.isfinite(found)])


@pytest.mark.parametrize("top_k", [1, 3])
def test_equal_logits_all_stay(top_k):
    for value in (0.0, -50.0, 1e4):
        assert jnp.isfinite(truncate(jnp.full(7, value), top_k, 0.5, 1.0)).all()


CASES = [
    (1, 1.0, 0.0), (7, 1.0, 0.0), (96, 1.0, 0.0), (0, 0.05, 0.0), (0, 0.5, 0.0), (0, 0.99, 0.0), (0, 1.0, 0.02),
    (0, 1.0, 0.5), (40, 0.9, 0.01),
]  # fmt: skip
ROWS = np.concatenate([np.random.default_rng(1).normal(size=(10, VOCAB)) * s for s in (0.1, 1, 4, 10)]).astype("f4")


@pytest.mark.parametrize(("top_k", "top_p", "min_p"), CASES)
def test_truncation_against_sorting(top_k, top_p, min_p):
    found = jax.jit(jax.vmap(partial(truncate, top_k=top_k, top_p=top_p, min_p=min_p)))(ROWS)
    np.testing.assert_array_equal(np.isfinite(found), [sorted_out(row, top_k, top_p, min_p) for row in ROWS])


def test_truncation_of_float64_keeps_as_many():
    # compared as float32, the last of the top k lay above its own threshold half of the time
    with jax.enable_x64(True):
        wide = ROWS[:20].astype(np.float64) + 1e-9
        for top_k, top_p in ((1, 1.0), (7, 1.0), (0, 0.5)):
            found = jax.vmap(partial(truncate, top_k=top_k, top_p=top_p, min_p=0.0))(wide)
            np.testing.assert_array_equal(np.isfinite(found), [sorted_out(row, top_k, top_p) for row in wide])


# --- frequencies


def draw(sampler, logits, count=20_000, seed=0):
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(sampler, (0, None)))(keys, jnp.asarray(logits)))


def uneven(size):
    return 2 * np.random.default_rng(size).normal(size=size).astype(np.float32)


def holes(size):
    """Nothing at either end, nowhere in the second block of 256, and at every third place."""
    logits = uneven(size)
    logits[[0, -1]] = logits[256:512] = logits[::3] = -np.inf
    return logits


DISTRIBUTIONS = {
    "one": np.zeros(1, np.float32),
    "97": uneven(97),
    "257": uneven(257),
    "1000": uneven(1000),
    "holes": holes(700),
    "offset": uneven(300) + 1e4,
    "peaked": np.where(np.arange(600) == 599, 200.0, uneven(600)).astype(np.float32),
    "two far apart": np.where(np.isin(np.arange(600), (0, 599)), 0.0, -1e4).astype(np.float32),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_categorical_draws_at_the_frequencies_of_the_softmax(name):
    assert frequencies_fit(draw(categorical, DISTRIBUTIONS[name]), softmax(DISTRIBUTIONS[name]))


@pytest.mark.parametrize("number", [0.0, 2.0**-24, 0.5, 1 - 2.0**-24, 1.0])
def test_no_number_draws_a_token_of_probability_zero(number, monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key: jnp.float32(number))
    for logits in (holes(700), np.array([-np.inf, 0.0, -np.inf], np.float32)):
        assert np.isfinite(logits[categorical(jax.random.key(0), jnp.asarray(logits))])


@pytest.mark.parametrize("wrong", ["the blocks as if equal", "a key used twice", "its last block"])
def test_a_wrong_sampler_would_be_noticed(wrong):
    def sample(key, logits):
        p = jnp.pad(jnp.exp(logits - logits.max()), (0, -len(logits) % 256)).reshape(-1, 256)
        a, b = jax.random.split(key)
        sums = (p.sum(1) > 0).astype(p.dtype) if wrong == "the blocks as if equal" else p.sum(1)
        block = _invert(a, sums)
        block = jnp.minimum(block, 1) if wrong == "its last block" else block
        return block * 256 + _invert(a if wrong == "a key used twice" else b, p[block])

    assert not frequencies_fit(draw(sample, uneven(1000)), softmax(uneven(1000)))
