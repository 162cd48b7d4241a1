import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.ops.losses import alpha_link, forward_kl_link, implicit_reward, jensen_shannon_link, wpo_weight
from jaxrl.ops.losses import preference as P

# --- golden vectors, computed in float64 NumPy ------------------------------------------------------------------------

# Three pairs: h_w = (0, 0.1, -0.9), h_l = (0, -9.9, -20.9), Δ = (0, 10, 20)
CHOSEN, REJECTED = jnp.array([-0.5, -10.0, -1.0]), jnp.array([-0.1, -30.0, -21.0])
REF_CHOSEN, REF_REJECTED = jnp.array([-0.5, -10.1, -0.1]), jnp.array([-0.1, -20.1, -0.1])
PAIRS = (CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED)
LENGTHS = (jnp.array([1, 4, 2]), jnp.array([1, 10, 7]))
MEANS = (CHOSEN / LENGTHS[0], REJECTED / LENGTHS[1])

GOLDEN = {
    # name: (function, arrays, hyper-parameters, value per pair)
    "dpo": ("dpo_loss", PAIRS, (0.1,), [0.69314718, 0.31326169, 0.12692801]),
    "cdpo": ("dpo_loss", PAIRS, (0.1, 0.2), [0.69314718, 0.51326169, 0.52692801]),
    "robust": ("robust_dpo_loss", PAIRS, (0.1, 0.2), [0.69314718, -0.02007165, -0.53973866]),
    "hinge": ("hinge_loss", PAIRS, (0.1,), [1.0, 0.0, 0.0]),
    "ipo": ("ipo_loss", PAIRS, (0.1,), [25.0, 25.0, 225.0]),
    "ipo_mean": ("ipo_mean_loss", PAIRS + LENGTHS, (0.1,), [25.0, 15.88022500, 6.07270408]),
    "dpo_norm": ("dpo_norm_loss", PAIRS + LENGTHS, (0.1,), [0.69314718, 0.64368441, 0.57437733]),
    "apo_zero": ("apo_zero_loss", PAIRS, (0.1,), [1.0, 0.76841210, 0.63255740]),
    "apo_down": ("apo_down_loss", PAIRS, (0.1,), [1.0, 0.77144140, 0.59671810]),
    "bco": ("bco_loss", PAIRS, (0.1, 0.0), [1.38629436, 1.00412063, 0.85577470]),
    "nca": ("nca_loss", PAIRS, (0.1,), [1.38629436, 1.19521999, 1.12204669]),
    "sppo": ("sppo_loss", PAIRS, (0.1,), [50.0, 48.02, 287.62]),
    "exo": ("exo_loss", PAIRS, (0.1, 1e-3), [2.76123071, 1.27630984, 0.45897200]),
    "discopop": ("discopop_loss", PAIRS, (0.1, 0.05), [0.84657359, 0.36787944, 0.13533528]),
    "f_dpo_js": ("f_dpo_loss", PAIRS, (0.1, jensen_shannon_link), [0.69314718, 0.33383111, 0.13105630]),
    "simpo": ("simpo_loss", MEANS, (2.0, 1.0), [1.95297761, 0.69314718, 0.01814993]),
    "orpo": ("orpo_loss", MEANS, (0.1,), [0.69696626, 2.54611613, 0.50334253]),
}

# Four answers with h = (1.5, -1, 0, -4), and four mismatched ones whose mean log-ratio is 0.4
KTO_LOG_PROB, KTO_REF = jnp.array([-12.0, -20.0, -8.0, -30.0]), jnp.array([-13.5, -19.0, -8.0, -26.0])
KTO_LABEL = jnp.array([True, False, True, False])
KTO_POLICY_KL, KTO_REF_KL = jnp.array([-22.0, -15.0, -31.0, -11.5]), jnp.array([-22.5, -15.2, -30.7, -12.7])


def kto(log_prob=KTO_LOG_PROB, policy_kl=KTO_POLICY_KL, beta=0.1, undesirable_weight=1.0):
    z0 = P.kto_z0(jnp.sum(policy_kl - KTO_REF_KL), jnp.array(4))
    return P.kto_loss(log_prob - KTO_REF, KTO_LABEL, z0, beta, 1.0, undesirable_weight)


GOLDEN_KTO = {
    "kto": (lambda: kto(), [0.4725276957, 0.4650570548, 0.5099986669, 0.3917409693]),
    "kto_mean": (lambda: kto().mean(), 0.4598310967),
    "kto_weighted": (lambda: kto(undesirable_weight=1.33).mean(), 0.5305169336),
    "kto_beta": (lambda: kto(beta=0.5).mean(), 0.3368152808),
    "kto_clamped": (lambda: kto(policy_kl=KTO_POLICY_KL - 3).mean(), 0.4597258268),
    "kto_z0": (lambda: P.kto_z0(jnp.sum(KTO_POLICY_KL - KTO_REF_KL), jnp.array(4)), 0.4),
}


def value(case):
    if case in GOLDEN_KTO:
        return GOLDEN_KTO[case][0]()
    name, arrays, hypers, _ = GOLDEN[case]
    return getattr(P, name)(*arrays, *hypers)


def error(case):
    """Largest |difference| to the golden value, in units of max(1, |value|)."""
    expected = np.asarray((GOLDEN_KTO | GOLDEN)[case][-1])
    got = value(case)
    assert got.dtype == jnp.float32 and got.shape == expected.shape
    return float(np.max(np.abs(np.asarray(got, np.float64) - expected) / np.maximum(1, np.abs(expected))))


@pytest.mark.parametrize("case", GOLDEN | GOLDEN_KTO)
@pytest.mark.device
def test_golden(case):
    assert error(case) <= 1e-6


def test_golden_gradient_of_dpo():
    grads = jax.grad(lambda *pairs: P.dpo_loss(*pairs, 0.1).sum(), (0, 1, 2, 3))(*PAIRS)
    expected = np.array([-0.05, -0.02689414, -0.01192029])  # -βσ(-βΔ)
    for grad, sign in zip(grads, (1, -1, -1, 1), strict=True):
        np.testing.assert_allclose(grad, sign * expected, rtol=0, atol=1e-7)


def test_golden_gradient_of_kto():
    grad = jax.grad(lambda x: kto(x).mean())(KTO_LOG_PROB)
    expected = [-0.0062311318, 0.0062194748, -0.0062475007, 0.0059569996]
    np.testing.assert_allclose(grad, expected, rtol=1e-5)


@pytest.mark.parametrize(("label_smoothing", "expected"), [(0.0, 0.7530593503), (0.3, 0.9254464726)])
def test_golden_of_random_pairs(label_smoothing, expected):
    draw = np.random.RandomState(0)
    policy, ref = (jnp.asarray(draw.normal(0, 5, (8, 4)).sum(-1), jnp.float32) for _ in range(2))
    loss = P.dpo_loss(policy[:4], policy[4:], ref[:4], ref[4:], 0.1, label_smoothing)
    np.testing.assert_allclose(loss.mean(), expected, rtol=0, atol=1e-6)


# --- the golden table notices what peers got wrong --------------------------------------------------------------------


NO_REF = (0 * CHOSEN, 0 * CHOSEN)
MUTANTS = {
    # name: (function, the case that must fail, what is done instead of f(*args)); c, r, rc, rr are the four log-probs
    "averages for sums": ("dpo_loss", "dpo", lambda f, c, r, *rest: f(c / LENGTHS[0], r / LENGTHS[1], *rest)),
    "reference added": ("dpo_loss", "dpo", lambda f, c, r, rc, rr, *rest: f(c, r, -rc, -rr, *rest)),
    "reference in bfloat16": ("dpo_loss", "dpo", lambda f, c, r, rc, rr, *rest: f(c, r, low(rc), low(rr), *rest)),
    "beta missing": ("dpo_loss", "dpo", lambda f, c, r, rc, rr, beta, *rest: f(c, r, rc, rr, 1.0, *rest)),
    "smoothing lost": ("dpo_loss", "cdpo", lambda f, c, r, rc, rr, beta, *_: f(c, r, rc, rr, beta)),
    "robust clamped": ("robust_dpo_loss", "robust", lambda f, *args: jnp.maximum(f(*args), 0)),
    "ipo averaged": ("ipo_loss", "ipo", lambda f, c, r, *rest: f(c / LENGTHS[0], r / LENGTHS[1], *rest)),
    "ipo summed": ("ipo_mean_loss", "ipo_mean", lambda f, c, r, rc, rr, n, m, tau: P.ipo_loss(c, r, rc, rr, tau)),
    "lengths swapped": ("dpo_norm_loss", "dpo_norm", lambda f, c, r, rc, rr, n, m, beta: f(c, r, rc, rr, m, n, beta)),
    "gamma times beta": ("simpo_loss", "simpo", lambda f, c, r, beta, gamma: f(c, r, beta, gamma * beta)),
    "nll lost": ("orpo_loss", "orpo", lambda f, c, r, odds_coef: f(c, r, odds_coef) + c),
    "class weights lost": ("kto_loss", "kto_weighted", lambda f, h, label, z0, beta, *_: f(h, label, z0, beta)),
    "z0 lost": ("kto_loss", "kto", lambda f, h, label, z0, *rest: f(h, label, 0 * z0, *rest)),
    "labels inverted": ("kto_loss", "kto", lambda f, h, label, *rest: f(h, ~label, *rest)),
    "z0 not clamped": ("kto_z0", "kto_clamped", lambda f, total, count: total / count),
    "z0 not divided": ("kto_z0", "kto_z0", lambda f, total, count: f(total, jnp.array(1))),
}


def low(x):
    return x.astype(jnp.bfloat16).astype(x.dtype)


@pytest.mark.parametrize(("name", "case", "change"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_noticed(monkeypatch, name, case, change):
    monkeypatch.setattr(P, name, functools.partial(change, getattr(P, name)))
    assert not error(case) <= 1e-6


GENERIC = {
    "sides swapped": lambda arrays, hypers: ([arrays[i ^ 1] for i in range(len(arrays))], hypers),
    "scale halved": lambda arrays, hypers: (arrays, (hypers[0] / 2, *hypers[1:])),
    "log-probs positive": lambda arrays, hypers: ([-a if i < 4 else a for i, a in enumerate(arrays)], hypers),
    "reference dropped": lambda arrays, hypers: ([*arrays[:2], *NO_REF, *arrays[4:]], hypers),
}


@pytest.mark.parametrize(
    ("case", "change"),
    [(c, g) for c in GOLDEN for g in GENERIC if c not in ("simpo", "orpo") or g != "reference dropped"],
)
def test_every_golden_vector_notices(monkeypatch, case, change):
    name, arrays, _, _ = GOLDEN[case]
    loss = getattr(P, name)

    def mutated(*args):
        arrays_, hypers = GENERIC[change](args[: len(arrays)], args[len(arrays) :])
        return loss(*arrays_, *hypers)

    monkeypatch.setattr(P, name, mutated)
    assert not error(case) <= 1e-6


# --- all losses: gradients, precision, extremes, structure ------------------------------------------------------------


def lengths(x):
    return jnp.full(x.shape, 3), jnp.full(x.shape, 6)


WITH_REF = {
    "dpo": lambda *a: P.dpo_loss(*a, 0.1),
    "cdpo": lambda *a: P.dpo_loss(*a, 0.1, 0.2),
    "robust": lambda *a: P.robust_dpo_loss(*a, 0.1, 0.2),
    "hinge": lambda *a: P.hinge_loss(*a, 0.1),
    "ipo": lambda *a: P.ipo_loss(*a, 0.1),
    "ipo_mean": lambda *a: P.ipo_mean_loss(*a, *lengths(a[0]), 0.1),
    "dpo_norm": lambda *a: P.dpo_norm_loss(*a, *lengths(a[0]), 5.0),
    "apo_zero": lambda *a: P.apo_zero_loss(*a, 0.1),
    "apo_down": lambda *a: P.apo_down_loss(*a, 0.1),
    "bco": lambda *a: P.bco_loss(*a, 0.1, 0.3),
    "nca": lambda *a: P.nca_loss(*a, 0.1),
    "sppo": lambda *a: P.sppo_loss(*a, 0.1),
    "exo": lambda *a: P.exo_loss(*a, 0.1),
    "discopop": lambda *a: P.discopop_loss(*a, 0.1),
    "f_dpo_fkl": lambda *a: P.f_dpo_loss(*a, 0.1, forward_kl_link),
    "f_dpo_js": lambda *a: P.f_dpo_loss(*a, 0.1, jensen_shannon_link),
    "f_dpo_alpha": lambda *a: P.f_dpo_loss(*a, 0.1, functools.partial(alpha_link, alpha=0.5)),
}
WITHOUT_REF = {
    "slic": lambda *a: P.slic_loss(*a, 1.0, 0.1),
    "cpo": lambda *a: P.cpo_loss(*a, 0.1, 1.0),
    "simpo": lambda *a: P.simpo_loss(*a, 2.0, 0.5),
    "odds_ratio": lambda *a: P.odds_ratio_loss(*a),
    "orpo": lambda *a: P.orpo_loss(*a, 0.1),
}
SINGLE = {
    "kto_desirable": lambda h: P.kto_loss(h, jnp.ones(h.shape, bool), 0.4, 0.1, 1.0, 1.33),
    "kto_undesirable": lambda h: P.kto_loss(h, jnp.zeros(h.shape, bool), 0.4, 0.1, 1.0, 1.33),
    "jensen_shannon": jensen_shannon_link,
    "forward_kl": forward_kl_link,
    "alpha": lambda h: alpha_link(h, 0.5),
}
LOSSES = WITH_REF | WITHOUT_REF | SINGLE
every_loss = pytest.mark.parametrize("name", LOSSES)
every_loss_with_ref = pytest.mark.parametrize("name", WITH_REF)


def sample(name):
    """Log-probs (negative), or log-ratios of either sign."""
    draw = np.random.default_rng(1)
    if name in SINGLE:
        return (draw.normal(0, 2, 3),)
    return tuple(-draw.uniform(0.5, 6, 3) for _ in range(4 if name in WITH_REF else 2))


def as_dtype(arrays, dtype):
    return tuple(jnp.asarray(x, dtype) for x in arrays)


@every_loss
def test_gradients_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        check_grads(
            lambda *arrays: LOSSES[name](*map(jnp.asarray, arrays)), as_dtype(sample(name), jnp.float64), order=1
        )


@every_loss
def test_precision_is_kept(name):
    with jax.enable_x64(True):
        double = LOSSES[name](*as_dtype(sample(name), jnp.float64))
        single = LOSSES[name](*as_dtype(sample(name), jnp.float32))
    assert double.dtype == jnp.float64 and single.dtype == jnp.float32 and double.shape == single.shape == (3,)
    np.testing.assert_allclose(single, double, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("case", GOLDEN)
def test_jit_and_vmap_change_nothing_and_coefficients_may_be_traced(case):
    name, arrays, hypers, expected = GOLDEN[case]
    floats, rest = [h for h in hypers if not callable(h)], [h for h in hypers if callable(h)]
    loss = jax.vmap(lambda arrays, floats: getattr(P, name)(*arrays, *floats, *rest), in_axes=(0, None))
    np.testing.assert_allclose(jax.jit(loss)(arrays, floats), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["slic", "cpo", "odds_ratio", *SINGLE])
def test_jit_and_vmap_change_nothing(name):
    arrays = as_dtype(sample(name), jnp.float32)
    loss = LOSSES[name](*arrays)
    np.testing.assert_allclose(jax.jit(jax.vmap(LOSSES[name]))(*arrays), loss, rtol=1e-5, atol=1e-6)


@every_loss
def test_rows_do_not_see_each_other(name):
    arrays, order = as_dtype(sample(name), jnp.float32), np.array([2, 0, 1])
    np.testing.assert_array_equal(LOSSES[name](*(x[order] for x in arrays)), LOSSES[name](*arrays)[order])


@every_loss
def test_extremes_have_finite_values_and_gradients(name):
    # |βΔ| up to 2e4; per-token means from -1e5 to 0
    means = [0.0, -1e-8, -2e-7, -1e-3, -1.0, -20.0, -90.0, -1e4, -1e5]
    ratios = [0.0, 1.0, -1.0, 80.0, -80.0, 3e3, -3e3, 1e5, -1e5]
    arrays = np.meshgrid(*[means if name in WITHOUT_REF else ratios] * 2)[: 1 if name in SINGLE else 2]
    arrays = as_dtype((x.ravel() for x in arrays), jnp.float32)
    if name in WITH_REF:
        arrays += tuple(jnp.zeros_like(x) for x in arrays)
    loss, pullback = jax.vjp(LOSSES[name], *arrays)
    assert jnp.isfinite(loss).all()
    assert all(jnp.isfinite(grad).all() for grad in pullback(jnp.ones_like(loss)))


@every_loss_with_ref
def test_only_log_ratios_count(name):
    # the same shift of an answer under both models changes nothing
    with jax.enable_x64(True):
        chosen, rejected, ref_chosen, ref_rejected = as_dtype(sample(name), jnp.float64)
        shifted = LOSSES[name](chosen + 3, rejected - 7, ref_chosen + 3, ref_rejected - 7)
        np.testing.assert_allclose(shifted, LOSSES[name](chosen, rejected, ref_chosen, ref_rejected), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "dpo": math.log(2),
        "cdpo": math.log(2),
        "robust": math.log(2),
        "hinge": 1.0,
        "ipo": 1 / (4 * 0.1**2),
        "ipo_mean": 1 / (4 * 0.1**2),
        "dpo_norm": math.log(2),
        "apo_zero": 1.0,
        "apo_down": 1.0,
        "nca": 2 * math.log(2),
        "sppo": 1 / (2 * 0.1**2),
        "exo": -math.log(2) - math.log(1 - 1e-3) / 2 - math.log(1e-3) / 2,
        "discopop": math.log(2) / 2 + 0.5,
        "f_dpo_fkl": math.log(2),
        "f_dpo_js": math.log(2),
        "f_dpo_alpha": math.log(2),
    }.items(),
)
def test_the_value_at_the_start(name, expected):
    chosen, rejected, _, _ = as_dtype(sample(name), jnp.float32)
    np.testing.assert_allclose(LOSSES[name](chosen, rejected, chosen, rejected), expected, rtol=1e-6)


# --- DPO and its relatives --------------------------------------------------------------------------------------------


def test_far_wrong_pairs_have_the_full_gradient_and_far_right_ones_none():
    # Δ = ±1e5, β = 0.1: -log σ(-1e4) = 1e4 with slope -β
    zero, far = jnp.zeros(2), jnp.array([-1e5, 1e5])
    loss, pullback = jax.vjp(lambda w: P.dpo_loss(w, zero, zero, zero, 0.1), far)
    np.testing.assert_allclose(loss, [1e4, 0.0])
    np.testing.assert_allclose(pullback(jnp.ones(2))[0], [-0.1, 0.0])


def test_without_smoothing_cdpo_and_robust_are_dpo_exactly():
    loss = P.dpo_loss(*PAIRS, 0.1)
    np.testing.assert_array_equal(P.dpo_loss(*PAIRS, 0.1, 0.0), loss)
    np.testing.assert_array_equal(P.robust_dpo_loss(*PAIRS, 0.1, 0.0), loss)


@pytest.mark.parametrize(("label_smoothing", "beta"), [(0.2, 0.1), (0.01, 0.5), (0.45, 2.0)])
def test_cdpo_is_stationary_where_the_model_is_as_sure_as_the_labels(label_smoothing, beta):
    # σ(βΔ) = 1-ε, and the loss there is the labels' entropy
    with jax.enable_x64(True):
        zero, margin = jnp.zeros(()), jnp.log((1 - label_smoothing) / label_smoothing) / beta
        loss, slope = jax.value_and_grad(P.dpo_loss)(margin, zero, zero, zero, beta, label_smoothing)
        entropy = -label_smoothing * math.log(label_smoothing) - (1 - label_smoothing) * math.log(1 - label_smoothing)
        np.testing.assert_allclose([loss, slope], [entropy, 0.0], atol=1e-12)


def test_robust_dpo_is_unbiased_under_flips():
    flipped = (REJECTED, CHOSEN, REF_REJECTED, REF_CHOSEN)
    mean = 0.8 * P.robust_dpo_loss(*PAIRS, 0.1, 0.2) + 0.2 * P.robust_dpo_loss(*flipped, 0.1, 0.2)
    np.testing.assert_allclose(mean, P.dpo_loss(*PAIRS, 0.1), rtol=1e-5)


def test_robust_dpo_is_not_clamped():
    zero = jnp.zeros(2)
    loss, pullback = jax.vjp(lambda w: P.robust_dpo_loss(w, zero, zero, zero, 0.1, 0.2), jnp.array([30.0, 1e5]))
    assert (loss < 0).all() and (pullback(jnp.ones(2))[0] < 0).all()


def test_lengths_of_one_or_none_leave_sums_alone():
    for length in (jnp.ones(3, int), jnp.zeros(3, int), jnp.ones(3)):
        np.testing.assert_array_equal(P.ipo_mean_loss(*PAIRS, length, length, 0.1), P.ipo_loss(*PAIRS, 0.1))
        np.testing.assert_array_equal(P.dpo_norm_loss(*PAIRS, length, length, 0.1), P.dpo_loss(*PAIRS, 0.1))


def test_the_hinge_lets_go_of_settled_pairs():
    grad = jax.grad(lambda w: P.hinge_loss(w, *PAIRS[1:], 0.1).sum())(CHOSEN)
    np.testing.assert_allclose(grad, [-0.1, 0.0, 0.0])


def test_exo_is_the_divergence_to_smoothed_labels():
    # q = (1-ε, ε) costs nothing; q = (½, ½), ε = 0.2: ½ ln(½/0.8) + ½ ln(½/0.2) = 0.223144
    zero = jnp.zeros(2)
    loss = P.exo_loss(jnp.array([math.log(4), 0.0]), zero, zero, zero, 1.0, 0.2)
    np.testing.assert_allclose(loss, [0.0, 0.223144], atol=1e-6)


def test_bco_shifts_both_rewards_and_holds_the_shift():
    # βh_w = 0.3, βh_l = -0.1, δ = 0.1: -log σ(0.2) - log σ(0.2) = 2·0.598139
    args = (jnp.array(3.0), jnp.array(-1.0), jnp.array(0.0), jnp.array(0.0), 0.1)
    np.testing.assert_allclose(P.bco_loss(*args, 0.1), 1.196278, rtol=1e-6)
    assert jax.grad(P.bco_loss, 5)(*args, jnp.array(0.1)) == 0


def test_discopop_by_hand_on_both_sides_of_its_switch():
    # m = σ(20 l): at l = -1, 0, where -log σ(-1) = 1.313262; at l = 1, 1, where e^-1 = 0.367879;
    # at l = 0.05, σ(1) = 0.731059: 0.268941·0.668460 + 0.731059·0.951229 = 0.875181
    zero = jnp.zeros(3)
    loss = P.discopop_loss(jnp.array([-1.0, 1.0, 0.05]), zero, zero, zero, 1.0)
    np.testing.assert_allclose(loss, [1.313262, 0.367879, 0.875181], rtol=1e-5)


def descend(loss, size, steps=600):
    """Log-probs of two answers under a softmax policy that starts uniform, as its reference is."""
    ref = jnp.log(jnp.full(2, 0.5))

    def step(logits, _):
        return logits - size * jax.grad(lambda z: loss(jax.nn.log_softmax(z), ref))(logits), None

    return jax.nn.log_softmax(jax.lax.scan(step, jnp.zeros(2), length=steps)[0])


def test_the_optimum_of_dpo():
    # P(y1 ≻ y2) = 0.8, β = 0.5: Δ = ln 4/0.5 = 2.772589, so π(y1) = 16/17
    def loss(p, ref):
        won, lost = (P.dpo_loss(p[i], p[1 - i], ref[i], ref[1 - i], 0.5) for i in range(2))
        return 0.8 * won + 0.2 * lost

    with jax.enable_x64(True):
        log_p = descend(loss, 10.0)
        np.testing.assert_allclose(log_p[0] - log_p[1], 2.772589, rtol=1e-6)
        np.testing.assert_allclose(jnp.exp(log_p[0]), 16 / 17, rtol=1e-9)


def test_the_optimum_of_ipo_is_finite_even_where_labels_are_certain():
    # P(y1 ≻ y2) = 1, τ = 0.5: π(y1) = σ(1/(2τ)) = σ(1)
    with jax.enable_x64(True):
        log_p = descend(lambda p, ref: P.ipo_loss(p[0], p[1], ref[0], ref[1], 0.5), 0.2)
        np.testing.assert_allclose(jnp.exp(log_p[0]), 0.7310585786, rtol=1e-9)


# --- other divergences ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "f"),
    [
        (forward_kl_link, lambda u: -jnp.log(u)),
        (jensen_shannon_link, lambda u: u * jnp.log(u) - (u + 1) * jnp.log((u + 1) / 2)),
        (functools.partial(alpha_link, alpha=0.3), lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.3 * -0.7)),
        (lambda h: h, lambda u: u * jnp.log(u)),
    ],
    ids=["forward_kl", "jensen_shannon", "alpha", "reverse_kl"],
)
def test_links_are_derivatives_of_their_divergence(link, f):
    # up to a constant, with which they are 0 at h = 0
    with jax.enable_x64(True):
        h = jnp.array([-3.0, 0.5, 2.0])
        slope = jax.jit(jax.vmap(jax.grad(f)))
        np.testing.assert_allclose(link(h), slope(jnp.exp(h)) - slope(jnp.ones(3)), rtol=1e-9, atol=1e-12)


def test_reverse_kl_is_plain_dpo():
    np.testing.assert_array_equal(P.f_dpo_loss(*PAIRS, 0.1, lambda h: h), P.dpo_loss(*PAIRS, 0.1))
    with jax.enable_x64(True):
        near = P.f_dpo_loss(*as_dtype(PAIRS, float), 0.1, lambda h: alpha_link(h, 1e-9))
        np.testing.assert_allclose(near, P.dpo_loss(*as_dtype(PAIRS, float), 0.1), rtol=1e-6)


def test_beyond_its_bound_the_exponential_goes_on_as_its_tangent():
    with jax.enable_x64(True):
        h = jnp.array([-39.999, -40.001, -100.0])
        value, slope = jax.vmap(jax.value_and_grad(forward_kl_link))(h)
    bound = math.exp(40)
    np.testing.assert_allclose(value, [1 - math.exp(39.999), -1.001 * bound, -61 * bound], rtol=1e-9)
    np.testing.assert_allclose(slope, [math.exp(39.999), bound, bound], rtol=1e-9)


# --- without a reference ----------------------------------------------------------------------------------------------


def test_slic_by_hand():
    # δ = 2, λ = 0.5: max(0, 2+1-3) + 0.5 = 0.5, max(0, 2+1-0.5) + 0.5 = 3, and max(0, 2+3-1) + 1.5 = 5.5
    chosen, rejected = jnp.array([-1.0, -1.0, -3.0]), jnp.array([-3.0, -0.5, -1.0])
    np.testing.assert_allclose(P.slic_loss(chosen, rejected, 2.0, 0.5), [0.5, 3.0, 5.5])


def test_cpo_by_hand():
    # β = 0.1 on log π_w - log π_l = (-0.4, 20, 20); -log σ(-0.04) = 0.713347, -log σ(2) = 0.126928
    np.testing.assert_allclose(P.cpo_loss(CHOSEN, REJECTED, 0.1, 1.0), [1.213347, 10.126928, 1.126928], rtol=1e-6)
    np.testing.assert_allclose(P.cpo_loss(CHOSEN, REJECTED, 0.1, 0.0), P.simpo_loss(CHOSEN, REJECTED, 0.1, 0.0))
    zero = jnp.zeros(3)
    np.testing.assert_allclose(P.cpo_loss(CHOSEN, REJECTED, 0.1, 0.0), P.dpo_loss(CHOSEN, REJECTED, zero, zero, 0.1))


def test_odds_by_hand():
    # p_w = ½ (odds 1), p_l = ¼ (odds ⅓): -log σ(ln 3) = -ln ¾
    loss = P.odds_ratio_loss(jnp.log(jnp.array(0.5)), jnp.log(jnp.array(0.25)))
    np.testing.assert_allclose(loss, -math.log(0.75), rtol=1e-6)


def test_odds_of_a_certain_answer_are_finite_and_precise_near_it():
    # 1-p = 1e-5 in float32: log odds = 11.51292, which log1p(-exp(ā)) would miss in the third digit
    near = jnp.log1p(jnp.array(-1e-5))
    np.testing.assert_allclose(P.odds_ratio_loss(jnp.log(jnp.array(0.5)), near), 11.512925, rtol=1e-5)
    chosen, rejected = jnp.array([0.0, 0.0, -1.0]), jnp.array([-1.0, 0.0, 0.0])
    loss, pullback = jax.vjp(lambda *means: P.orpo_loss(*means, 0.1), chosen, rejected)
    by_chosen, by_rejected = pullback(jnp.ones(3))
    assert jnp.isfinite(jnp.stack([loss, by_chosen, by_rejected])).all()
    np.testing.assert_array_equal(by_chosen[:2], [-1.0, -1.0])  # clamped odds have no slope; the NLL still has


# --- KTO --------------------------------------------------------------------------------------------------------------


def test_z0_is_averaged_before_it_is_clamped():
    # terms (2, 1 | -4, -1) on two micro-batches: the mean of all is -0.5, so 0; clamped in parts it would be 0.75
    terms = jnp.array([[2.0, 1.0], [-4.0, -1.0]])
    assert P.kto_z0(jnp.sum(terms), jnp.array(4)) == 0
    parts = jnp.array([P.kto_z0(jnp.sum(part), jnp.array(2)) for part in terms])
    np.testing.assert_allclose(parts.mean(), 0.75)
    assert P.kto_z0(jnp.array(0.0), jnp.array(0)) == 0


def test_z0_has_no_gradient():
    grad = jax.grad(lambda kl: kto(policy_kl=kl).sum())(KTO_POLICY_KL)
    np.testing.assert_array_equal(grad, jnp.zeros(4))
    assert jax.grad(lambda total: P.kto_z0(total, jnp.array(4)))(jnp.array(2.0)) == 0
    h = KTO_LOG_PROB - KTO_REF
    assert jax.grad(lambda z0: P.kto_loss(h, KTO_LABEL, z0, 0.1).sum())(jnp.array(0.4)) == 0


@pytest.mark.parametrize("labels", [[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
def test_kto_at_the_start_with_any_mix_of_labels(labels):
    # (λ_D n_D + λ_U n_U)/(2n), also where a class is empty
    desirable = jnp.array(labels, bool)
    loss, grad = jax.value_and_grad(lambda h: P.kto_loss(h, desirable, 0.0, 0.1, 1.5, 0.8).mean())(jnp.zeros(5))
    np.testing.assert_allclose(loss, (1.5 * sum(labels) + 0.8 * (5 - sum(labels))) / 10, rtol=1e-6)
    np.testing.assert_allclose(grad, jnp.where(desirable, -1.5, 0.8) * 0.1 / 4 / 5, rtol=1e-6)


def test_kto_rows_do_not_see_each_other():
    h, order = KTO_LOG_PROB - KTO_REF, np.array([3, 1, 0, 2])
    loss = P.kto_loss(h, KTO_LABEL, 0.4, 0.1)
    np.testing.assert_array_equal(P.kto_loss(h[order], KTO_LABEL[order], 0.4, 0.1), loss[order])
    mapped = jax.jit(jax.vmap(lambda h, label: P.kto_loss(h, label, 0.4, 0.1)))(h, KTO_LABEL)
    np.testing.assert_allclose(mapped, loss, rtol=1e-6)


def test_apo_zero_is_kto_of_both_answers_with_z0_at_zero():
    up, down = jnp.ones(3, bool), jnp.zeros(3, bool)
    unpaired = P.kto_loss(CHOSEN - REF_CHOSEN, up, 0.0, 0.1) + P.kto_loss(REJECTED - REF_REJECTED, down, 0.0, 0.1)
    np.testing.assert_array_equal(unpaired, P.apo_zero_loss(*PAIRS, 0.1))


# --- weights and metrics ----------------------------------------------------------------------------------------------


def test_the_weight_of_wpo_by_hand_and_held_constant():
    # p = (½, ¼, ¼): Σp² = ⅜; the first token is 4/3 as likely as a token of the policy's own, the second ⅔
    p = jnp.array([0.5, 0.25])
    np.testing.assert_allclose(wpo_weight(jnp.log(p), jnp.log(jnp.full(2, 0.375))), [4 / 3, 2 / 3], rtol=1e-6)
    assert (jax.grad(lambda x: wpo_weight(x, x / 2).sum())(p) == 0).all()


def test_metrics_by_hand():
    metrics = P.preference_metrics(*PAIRS, 0.1)
    np.testing.assert_allclose(metrics["rewards/chosen"], [0.0, 0.01, -0.09], atol=1e-6)
    np.testing.assert_allclose(metrics["rewards/rejected"], [0.0, -0.99, -2.09], atol=1e-6)
    np.testing.assert_allclose(metrics["rewards/margin"], [0.0, 1.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(metrics["rewards/accuracy"], [0.0, 1.0, 1.0])
    assert len(metrics) == 4 and all(x.dtype == jnp.float32 for x in metrics.values())
    np.testing.assert_allclose(P.dpo_loss(*PAIRS, 0.1), -jax.nn.log_sigmoid(metrics["rewards/margin"]), rtol=1e-6)
    np.testing.assert_array_equal(implicit_reward(CHOSEN, REF_CHOSEN, 0.1), metrics["rewards/chosen"])
