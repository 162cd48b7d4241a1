"""Losses trained to the end on a model whose answers can be enumerated must reach the optimum that theory gives them."""

import functools
import math
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, sigmoid

from jaxrl.losses import preference

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))
import enumerable as e  # noqa: E402
import label_noise  # noqa: E402
from exact_alignment import desirable, frontier  # noqa: E402

sys.path.pop(0)

EXACT = 1e-6  # total variation; trained policies come within 1e-8


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


class World(NamedTuple):
    start: jax.Array
    ref: jax.Array
    reward: jax.Array
    prefer: jax.Array
    share: jax.Array


@pytest.fixture
def world():
    start = e.MODEL.init(jax.random.key(0))
    ref, reward = e.log_probs(start), e.rewards()
    prefer = e.preferences(reward)
    return World(start, ref, reward, prefer, e.all_pairs(ref, prefer))


def train(objective, settings, start, updates, inner=1):
    """log π for each setting, [k, n]."""
    return jax.jit(jax.vmap(lambda x: e.fit(objective(x), start, updates, inner)))(jnp.array(settings))


def distances(log_p, optimum, settings):
    return np.array([e.total_variation(p, optimum(x)) for p, x in zip(log_p, settings, strict=True)])


# --- the world --------------------------------------------------------------------------------------------------------


def test_answers_and_their_probabilities(world):
    logits = np.asarray(world.start)
    tokens = np.asarray(e.answers())
    assert tokens.shape == (64, 3) and len({tuple(t) for t in tokens}) == 64
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # Prefixes in breadth-first order: (), then (a) at 1 + a, then (a, b) at 5 + 4a + b
    by_hand = [p[0, a] * p[1 + a, b] * p[5 + 4 * a + b, c] for a, b, c in tokens]
    np.testing.assert_allclose(np.exp(world.ref), by_hand, rtol=1e-12)
    np.testing.assert_allclose(np.sum(by_hand), 1, rtol=1e-12)
    by_hand = [sum(t == 0) - 0.5 * sum(t == 3) for t in tokens]
    np.testing.assert_allclose(world.reward, by_hand)


def test_pairs_are_distributions_and_samples_come_from_them(world):
    np.testing.assert_allclose(jnp.sum(world.share), 1, rtol=1e-12)
    draw = jax.jit(jax.vmap(lambda key: e.sampled_pairs(key, world.ref, world.prefer, 20_000)))
    sampled = np.asarray(draw(jax.random.split(jax.random.key(1), 20)))
    # Counts of cells are binomial: their standardised errors have mean square 1
    share = np.asarray(world.share)
    z = (sampled.mean(0) - share) / np.sqrt(share * (1 - share) / 400_000)
    assert abs(np.mean(z**2) - 1) < 5 * math.sqrt(2 / z.size)


def test_the_frontier_is_the_most_reward_for_its_divergence(world):
    for beta in (0.3, 1.0, 4.0):
        best = e.reward_optimum(world.ref, world.reward, beta)
        kl = e.divergence(best, world.ref)
        np.testing.assert_allclose(frontier(world.ref, world.reward, kl), jnp.exp(best) @ world.reward, rtol=1e-9)
        other = e.ipo_optimum(world.ref, world.prefer, beta / 4)
        assert frontier(world.ref, world.reward, e.divergence(other, world.ref)) > jnp.exp(other) @ world.reward


# --- optima -----------------------------------------------------------------------------------------------------------


def test_two_answers_by_hand():
    # Uniform reference, P(y1 ≻ y2) = 0.8, β = 0.5: Δ = ln 4/0.5 = 2.772589, so π(y1) = 16/17
    ref, share = jnp.log(jnp.full(2, 0.5)), jnp.array([[0.0, 0.8], [0.2, 0.0]])
    for log_p in (e.bradley_terry_optimum(ref, share, 0.5), e.reward_optimum(ref, jnp.array([math.log(4), 0]), 0.5)):
        np.testing.assert_allclose(log_p[0] - log_p[1], 2.772589, rtol=1e-6)
        np.testing.assert_allclose(jnp.exp(log_p[0]), 16 / 17, rtol=1e-12)
    # P = 1: y1 wins against a draw of the reference with p = (1/2 + 1)/2, y2 with 1/4; Δ = (p1 - p2)/τ = 1 at τ = 0.5
    certain = e.ipo_optimum(ref, jnp.array([[0.5, 1.0], [0.0, 0.5]]), 0.5)
    np.testing.assert_allclose(jnp.exp(certain[0]), 0.7310586, rtol=1e-6)

    def slope(loss, share, hyper, log_p):
        return jax.grad(lambda z: e.pair_objective(loss, ref, share, hyper)(log_softmax(z), ref))(log_p)

    assert np.abs(slope(preference.dpo_loss, share, 0.5, log_p)).max() < 1e-12
    share = jnp.array([[0.25, 0.5], [0.0, 0.25]])
    assert np.abs(slope(preference.ipo_loss, share, 0.5, certain)).max() < 1e-12


def dpo_distance(world, betas=(0.5, 2.0), updates=700, ref=None):
    def objective(beta):
        return e.pair_objective(preference.dpo_loss, world.ref if ref is None else ref, world.share, beta)

    log_p = train(objective, betas, world.start, updates)
    return distances(log_p, lambda beta: e.reward_optimum(world.ref, world.reward, beta), betas)


def test_dpo_reaches_the_tilted_reference(world):
    assert dpo_distance(world).max() < EXACT


def ipo_distance(world, taus=(0.1, 0.5), updates=700):
    log_p = train(lambda tau: e.pair_objective(preference.ipo_loss, world.ref, world.share, tau), taus, world.start, updates)
    return distances(log_p, lambda tau: e.ipo_optimum(world.ref, world.prefer, tau), taus)


def test_ipo_reaches_the_reference_tilted_by_the_rate_of_winning(world):
    assert ipo_distance(world).max() < EXACT


def test_ipo_needs_no_bradley_terry():
    # Rock, paper, scissors and a fourth answer that beats them 3 to 1; π_ref uneven
    ref = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    prefer = jnp.array([[0.5, 0.9, 0.1, 0.25], [0.1, 0.5, 0.9, 0.25], [0.9, 0.1, 0.5, 0.25], [0.75, 0.75, 0.75, 0.5]])
    objective = e.pair_objective(preference.ipo_loss, ref, e.all_pairs(ref, prefer), 0.3)
    log_p = e.ipo_optimum(ref, prefer, 0.3)
    slope = jax.grad(lambda z: objective(log_softmax(z), ref))(log_p)
    assert np.abs(slope).max() < 1e-12 < np.abs(jax.grad(lambda z: objective(log_softmax(z), ref))(ref)).max()


def test_ppo_on_exact_advantages_reaches_the_optimum_of_reward_less_divergence(world):
    betas = (0.5, 2.0)
    log_p = train(lambda beta: e.ppo_objective(world.ref, world.reward, beta), betas, world.start, 4000, 4)
    found = distances(log_p, lambda beta: e.reward_optimum(world.ref, world.reward, beta), betas)
    assert found.max() < EXACT


# --- KTO's fixed point ------------------------------------------------------------------------------------------------


def kto_distance(world, settings=((0.5, 1.0), (0.9, 0.5)), z0=0.0, updates=6000):
    thumb_up = desirable(world.ref, world.reward)
    log_p = train(lambda x: e.kto_objective(world.ref, thumb_up, *x), settings, world.start, updates)
    return distances(log_p, lambda x: e.kto_optimum(world.ref, thumb_up, *x, z0), settings)


def test_kto_reaches_its_fixed_point(world):
    assert kto_distance(world).max() < EXACT


def test_kto_reaches_its_fixed_point_for_another_z0(world, monkeypatch):
    monkeypatch.setattr(preference, "kto_z0", lambda total, count: jnp.array(1.0))
    assert kto_distance(world, z0=1.0).max() < EXACT
    assert kto_distance(world, z0=0.0).max() > 1e-3


@pytest.mark.parametrize("z0", [0.0, 1.0])
def test_the_fixed_point_of_kto_is_stationary(world, z0):
    d, beta, weight = desirable(world.ref, world.reward), 0.3, 0.7
    log_p = e.kto_optimum(world.ref, d, beta, weight, z0)
    c, h = d - weight * (1 - d), log_p - world.ref
    np.testing.assert_allclose(jnp.sum(jnp.exp(log_p)), 1, rtol=1e-12)
    np.testing.assert_array_equal(c > 0, jnp.exp(log_p) > 0)
    # c σ'(β(h - z0)) e^{-h} is the same for every answer that survives
    win = sigmoid(beta * (h - z0))
    multiplier = (c * win * (1 - win) * jnp.exp(-h))[c > 0]
    np.testing.assert_allclose(multiplier, multiplier[0], rtol=1e-9)


def test_the_fixed_point_of_kto_where_it_can_be_written_down(world):
    d = desirable(world.ref, world.reward)
    # β = 1, z0 = 0: σ'(h)e^{-h} = (1 + e^h)^{-2}, so π = w·max(a√(2d - 1) - 1, 0) for the a that normalises it
    log_p = e.kto_optimum(world.ref, d, 1.0)
    alive = np.asarray(jnp.exp(log_p) > 1e-12)
    a = (jnp.exp(log_p - world.ref)[alive] + 1) / jnp.sqrt(2 * d[alive] - 1)
    np.testing.assert_allclose(a, a[0], rtol=1e-9)
    assert np.all(a[0] ** 2 * (2 * d[~alive] - 1) <= 1 + 1e-9)
    # β → 0: σ' is constant, so π ∝ w·max(2d - 1, 0)
    share = jnp.exp(world.ref) * jnp.maximum(2 * d - 1, 0)
    np.testing.assert_allclose(jnp.exp(e.kto_optimum(world.ref, d, 1e-7)), share / jnp.sum(share), atol=1e-6)


def test_z0_of_answers_from_the_reference_is_clamped(world):
    # E_ref[h] = -KL(π_ref ‖ π) <= 0, whatever π
    for key in jax.random.split(jax.random.key(1), 5):
        h = e.log_probs(e.MODEL.init(key)) - world.ref
        total = jnp.sum(jnp.exp(world.ref) * h)
        assert total < 0 and preference.kto_z0(total, jnp.array(1.0)) == 0


# --- mistakes that this notices ---------------------------------------------------------------------------------------


def no_last_token(f, rows):
    return f(rows).at[:, -1].set(False)


MUTANTS = {
    # name: (module, function, what is done instead of f(*args), least distance)
    "averages for sums": (preference, "dpo_loss", lambda f, c, r, rc, rr, *b: f(*(x / 3 for x in (c, r, rc, rr)), *b), 0.1),
    "no reference": (preference, "dpo_loss", lambda f, c, r, rc, rr, *b: f(c, r, 0 * rc, 0 * rr, *b), 0.1),
    "sides swapped": (preference, "dpo_loss", lambda f, c, r, rc, rr, *b: f(r, c, rr, rc, *b), 0.1),
    "smoothed": (preference, "dpo_loss", lambda f, *args: f(*args, 0.01), 1e-3),
    "last token masked": (e.door, "completion_mask", no_last_token, 0.1),
}


@pytest.mark.parametrize(("module", "name", "change", "least"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_dpo_misses_the_optimum(world, monkeypatch, module, name, change, least):
    monkeypatch.setattr(module, name, functools.partial(change, getattr(module, name)))
    if module is e.door:  # both models are seen through the same mask
        world = world._replace(ref=e.log_probs(world.start))
        monkeypatch.undo()
        truth = e.log_probs(world.start)
        monkeypatch.setattr(module, name, functools.partial(change, getattr(module, name)))
    assert dpo_distance(world, betas=(0.5,), updates=300).min() > least
