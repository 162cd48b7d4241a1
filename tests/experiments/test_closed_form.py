"""Losses trained to the end, on a model whose answers can be enumerated, must reach the optimum that theory gives."""

import functools
import math
from typing import NamedTuple

import enumerable as e
import jax
import jax.numpy as jnp
import label_noise
import numpy as np
import pytest
from exact_alignment import desirable, frontier
from jax.nn import log_softmax, sigmoid

from jaxrl.ops.losses import preference

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


@jax.jit
def make_world(key):
    start = e.MODEL.init(key)
    ref, reward = e.log_probs(start), e.rewards()
    prefer = e.preferences(reward)
    return World(start, ref, reward, prefer, e.all_pairs(ref, prefer))


@pytest.fixture
def world():
    return make_world(jax.random.key(0))


def train(objective, settings, start, updates, inner=1):
    """Trained parameters for each setting."""
    return jax.jit(jax.vmap(lambda x: e.fit(objective(x), start, updates, inner)))(jnp.array(settings))


def distances(params, optimum, settings):
    """Total variation between trained policies and what they should be."""

    @jax.jit
    @jax.vmap
    def distance(params, x):
        return e.total_variation(e.log_probs(params), optimum(x))

    return np.asarray(distance(params, jnp.array(settings)))


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
    sampled = np.asarray(draw(jax.random.split(jax.random.key(1), 5)))
    # Counts of cells are binomial: their standardised errors have mean square 1
    share = np.asarray(world.share)
    z = (sampled.mean(0) - share) / np.sqrt(share * (1 - share) / 100_000)
    assert abs(np.mean(z**2) - 1) < 5 * math.sqrt(2 / z.size)


def test_the_frontier_is_the_most_reward_for_its_divergence(world):
    most = jax.jit(lambda log_p: frontier(world.ref, world.reward, e.divergence(log_p, world.ref)))
    for beta in (0.3, 1.0, 4.0):
        best = e.reward_optimum(world.ref, world.reward, beta)
        np.testing.assert_allclose(most(best), jnp.exp(best) @ world.reward, rtol=1e-9)
        other = e.ipo_optimum(world.ref, world.prefer, beta / 4)
        assert most(other) > jnp.exp(other) @ world.reward + 1e-4


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


def test_dpo_reaches_the_tilted_reference(world):
    betas = (0.5, 1.0, 4.0)
    params = train(
        lambda beta: e.pair_objective(preference.dpo_loss, world.ref, world.share, beta), betas, world.start, 1200
    )
    found = distances(params, lambda beta: e.reward_optimum(world.ref, world.reward, beta), betas)
    assert found.max() < EXACT


def test_ipo_reaches_the_reference_tilted_by_the_rate_of_winning(world):
    taus = (0.1, 0.3, 1.0)
    params = train(
        lambda tau: e.pair_objective(preference.ipo_loss, world.ref, world.share, tau), taus, world.start, 600
    )
    assert distances(params, lambda tau: e.ipo_optimum(world.ref, world.prefer, tau), taus).max() < EXACT


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
    params = train(lambda beta: e.ppo_objective(world.ref, world.reward, beta), betas, world.start, 4000, 4)
    found = distances(params, lambda beta: e.reward_optimum(world.ref, world.reward, beta), betas)
    assert found.max() < EXACT


# --- KTO's fixed point ------------------------------------------------------------------------------------------------


def kto_distance(world, settings=((0.5, 1.0), (0.9, 0.5)), z0=0.0, updates=4000):
    thumb_up = desirable(world.ref, world.reward)
    params = train(lambda x: e.kto_objective(world.ref, thumb_up, *x), settings, world.start, updates)
    return distances(params, lambda x: e.kto_optimum(world.ref, thumb_up, *x, z0), settings)


def test_kto_reaches_its_fixed_point(world):
    assert kto_distance(world).max() < EXACT


def test_kto_reaches_its_fixed_point_for_another_z0(world, monkeypatch):
    monkeypatch.setattr(preference, "kto_z0", lambda total, count: jnp.array(1.0))
    assert kto_distance(world, z0=1.0).max() < EXACT
    assert kto_distance(world, z0=0.0).max() > 1e-3


@pytest.mark.parametrize("z0", [0.0, 1.0])
def test_the_fixed_point_of_kto_is_stationary(world, z0):
    d, beta, weight = desirable(world.ref, world.reward), 0.3, 0.7
    log_p = jax.jit(e.kto_optimum)(world.ref, d, beta, weight, z0)
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
    optimum = jax.jit(e.kto_optimum)
    log_p = optimum(world.ref, d, 1.0)
    alive = np.asarray(jnp.exp(log_p) > 1e-12)
    a = (jnp.exp(log_p - world.ref)[alive] + 1) / jnp.sqrt(2 * d[alive] - 1)
    np.testing.assert_allclose(a, a[0], rtol=1e-9)
    assert np.all(a[0] ** 2 * (2 * d[~alive] - 1) <= 1 + 1e-9)
    # β → 0: σ' is constant, so π ∝ w·max(2d - 1, 0)
    share = jnp.exp(world.ref) * jnp.maximum(2 * d - 1, 0)
    np.testing.assert_allclose(jnp.exp(optimum(world.ref, d, 1e-7)), share / jnp.sum(share), atol=1e-6)


def test_z0_of_answers_from_the_reference_is_clamped(world):
    # E_ref[h] = -KL(π_ref ‖ π) <= 0, whatever π
    for key in jax.random.split(jax.random.key(1), 5):
        h = make_world(key).ref - world.ref
        total = jnp.sum(jnp.exp(world.ref) * h)
        assert total < 0 and preference.kto_z0(total, jnp.array(1.0)) == 0


# --- mistakes that this notices ---------------------------------------------------------------------------------------


def low(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


def averaged(f, *args, **how):
    scores = f(*args, **how)
    return scores._replace(log_prob=scores.mean_log_prob)


MUTANTS = {
    # name: (module, function, what is done instead of f(*args), least distance)
    "averages for sums": (e.door, "completion_scores", averaged, 0.1),
    "last token masked": (e.door, "completion_mask", lambda f, rows: f(rows).at[:, -1].set(False), 0.1),
    "no reference": (preference, "dpo_loss", lambda f, c, r, rc, rr, *rest: f(c, r, 0 * rc, 0 * rr, *rest), 0.1),
    "bfloat16 reference": (
        preference,
        "dpo_loss",
        lambda f, c, r, rc, rr, *rest: f(c, r, low(rc), low(rr), *rest),
        1e-4,
    ),
    "sides swapped": (preference, "dpo_loss", lambda f, c, r, rc, rr, *rest: f(r, c, rr, rc, *rest), 0.1),
    "smoothed": (preference, "dpo_loss", lambda f, *args: f(*args, 0.01), 1e-3),
}


def dpo(world):
    """As the tests above, with the reference scored by the same code as the policy."""
    ref = jax.jit(lambda start: e.log_probs(start))(world.start)
    return train(lambda beta: e.pair_objective(preference.dpo_loss, ref, world.share, beta), (1.0,), world.start, 400)


@pytest.mark.parametrize(("module", "name", "change", "least"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_dpo_misses_the_optimum(world, monkeypatch, module, name, change, least):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, functools.partial(change, getattr(module, name)))
        params = dpo(world)
    wrong = distances(params, lambda beta: e.reward_optimum(world.ref, world.reward, beta), (1.0,))
    assert wrong > least > 100 * EXACT


def test_without_a_mutation_the_same_training_hits_it(world):
    assert distances(dpo(world), lambda beta: e.reward_optimum(world.ref, world.reward, beta), (1.0,)) < EXACT


KTO_MUTANTS = {
    "labels inverted": ("kto_loss", lambda f, h, label, *rest: f(h, ~label, *rest)),
    "z0 not clamped": ("kto_z0", lambda f, total, count: jax.lax.stop_gradient(total / count)),
    "class weight lost": ("kto_loss", lambda f, h, label, z0, beta, *_: f(h, label, z0, beta)),
}


@pytest.mark.parametrize(("name", "change"), KTO_MUTANTS.values(), ids=KTO_MUTANTS)
def test_a_mutant_of_kto_misses_its_fixed_point(world, monkeypatch, name, change):
    monkeypatch.setattr(preference, name, functools.partial(change, getattr(preference, name)))
    assert kto_distance(world, settings=((0.9, 0.5),)) > 1e-3


# --- finitely many pairs ----------------------------------------------------------------------------------------------


def test_dpo_on_sampled_pairs_reaches_their_regression_and_with_more_pairs_the_truth(world):
    @jax.jit
    def solve(keys_of_few, keys_of_many):
        shares = [
            jax.vmap(lambda key, count=count: e.sampled_pairs(key, world.ref, world.prefer, count))(keys)
            for keys, count in ((keys_of_few, 20_000), (keys_of_many, 180_000))
        ]
        return jax.vmap(both)(jnp.concatenate(shares))

    def both(share):
        objective = e.pair_objective(preference.dpo_loss, world.ref, share, 1.0)
        trained = e.log_probs(e.fit(objective, world.start, 400))
        return trained, e.bradley_terry_optimum(world.ref, share, 1.0, 12)

    log_p, regression = solve(*(jax.random.split(jax.random.key(i), 4) for i in range(2)))
    assert jnp.max(jax.vmap(e.total_variation)(log_p, regression)) < EXACT

    truth = e.reward_optimum(world.ref, world.reward, 1.0)
    error = np.asarray(jax.vmap(e.total_variation, (0, None))(log_p, truth))
    assert error[:4].max() < 0.08  # a tenth of the labels flipped would make it 0.11
    assert 2 < error[:4].mean() / error[4:].mean() < 4.5  # √9 = 3


def test_robust_dpo_has_no_minimum_where_an_answer_wins_too_often(world):
    # Slope as h_i → ∞: β[(1 - ε)L - εW]/(1 - 2ε), W and L the shares of pairs that i wins and loses
    flip, beta, i = 0.3, 0.5, 7
    flipped = e.all_pairs(world.ref, e.preferences(world.reward, flip))
    lucky = flipped.at[i].multiply(10.0)  # in a sample an answer may win more than a share 1 - ε

    def slope(loss, share):
        objective = e.pair_objective(loss, world.ref, share, beta, flip)
        at = jnp.array([1e3, 2e3])
        low, high = (objective(world.ref.at[i].add(h), world.ref) for h in at)
        return (high - low) / 1e3

    for share in (flipped, lucky):
        pairs = share.at[i, i].set(0.0)
        wins, losses = jnp.sum(pairs[i]), jnp.sum(pairs[:, i])
        expected = beta * ((1 - flip) * losses - flip * wins) / (1 - 2 * flip)
        np.testing.assert_allclose(slope(preference.robust_dpo_loss, share), expected, rtol=1e-6)
        assert (expected < 0) == (wins / (wins + losses) > 1 - flip)
        assert slope(preference.dpo_loss, share) > 0  # cDPO
    assert expected < 0 < slope(preference.robust_dpo_loss, flipped)


# --- flipped labels ---------------------------------------------------------------------------------------------------


def test_flipped_labels_bias_dpo_and_cdpo_more_but_robust_not_and_ipo_along_its_curve(world):
    flips = np.array([0.0, 0.1, 0.25, 0.4])
    shares = jax.vmap(lambda flip: e.all_pairs(world.ref, e.preferences(world.reward, flip)))(jnp.array(flips))
    bias = {}
    for name, method in label_noise.methods(world.ref, world.reward).items():
        log_p = label_noise.solve(method, shares[None], jnp.array(flips), world.start, 500)[0]
        theory = jax.jit(jax.vmap(method.optimum))(jnp.array(flips))
        assert jnp.max(jax.vmap(e.total_variation)(log_p, theory)) < EXACT, name
        bias[name] = np.asarray(jax.vmap(e.total_variation, (0, None))(log_p, theory[0]))
    assert bias["robust DPO"].max() < EXACT
    assert np.all(np.diff(bias["DPO"]) > 0.05) and np.all(np.diff(bias["IPO"]) > 0.05)
    assert np.all(bias["cDPO"][1:] > bias["DPO"][1:] + 0.02)


def test_smoothing_flips_labels_once_more(world):
    def expected(flip, smoothing, log_p):
        share = e.all_pairs(world.ref, e.preferences(world.reward, flip))
        return e.pair_objective(preference.dpo_loss, world.ref, share, 0.7, smoothing)(log_p, log_p)

    log_p = make_world(jax.random.key(3)).ref
    for flip, smoothing in ((0.0, 0.2), (0.2, 0.2), (0.3, 0.1)):
        once = expected(flip + smoothing - 2 * flip * smoothing, 0.0, log_p)
        np.testing.assert_allclose(expected(flip, smoothing, log_p), once, rtol=1e-12)


def test_ipo_under_flips_is_ipo_with_a_larger_tau(world):
    for flip in (0.1, 0.4):
        noisy = e.ipo_optimum(world.ref, e.preferences(world.reward, flip), 0.2)
        weaker = e.ipo_optimum(world.ref, world.prefer, 0.2 / (1 - 2 * flip))
        np.testing.assert_allclose(noisy, weaker, rtol=1e-12)
