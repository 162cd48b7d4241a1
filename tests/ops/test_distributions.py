import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax.test_util import check_grads

from jaxrl.ops.distributions import Beta, Categorical, DiagGaussian, MultiCategorical, TanhDiagGaussian

INF = float("inf")
LOGITS = [[0.0, 1.0, -1.0, 2.0], [3.0, 0.5, 0.0, -2.0]]
MEAN, STD = [[0.3, -1.0], [0.0, 0.8]], [0.5, 1.2]


def gaussian(kind, mean=MEAN, std=STD, low=-2.0, high=3.0):
    mean, std = jnp.asarray(mean), jnp.asarray(std)
    return kind(mean, std, jnp.full(std.shape[-1:], low), jnp.full(std.shape[-1:], high))


def make(name, shift=0.0):
    """A distribution over a batch of two; another shift makes another distribution of the same family."""
    logits = jnp.asarray(LOGITS) + 2 * shift * jnp.array([1.0, -1.0, 0.5, 1.0])
    return {
        "categorical": lambda: Categorical(logits),
        "multicategorical": lambda: MultiCategorical((Categorical(logits), Categorical(logits[:, :3] * 2))),
        "gaussian": lambda: gaussian(DiagGaussian, jnp.asarray(MEAN) + shift, jnp.asarray(STD) * (1 + shift)),
        "beta": lambda: gaussian(Beta, 1 + jnp.exp(jnp.asarray(MEAN) + shift), 1.5 + jnp.asarray(STD) * (1 - shift)),
        "tanh": lambda: gaussian(TanhDiagGaussian, jnp.asarray(MEAN) + shift, jnp.asarray(STD) * (1 + shift)),
    }[name]()


FAMILIES = ("categorical", "multicategorical", "gaussian", "tanh", "beta")
every_family = pytest.mark.parametrize("name", FAMILIES)


def draw(distribution, num, seed=0):
    return jax.jit(jax.vmap(distribution.sample))(jax.random.split(jax.random.key(seed), num))


def z_score(samples, expected):
    """How many standard errors the mean over the first axis lies from what is expected."""
    samples = np.asarray(samples, np.float64)
    return np.abs(samples.mean(0) - np.asarray(expected)) / (samples.std(0) / math.sqrt(len(samples)))


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_categorical_by_hand():
    # logits log 1, log 3 give p = 1/4, 3/4: H = ¼ log 4 + ¾ log 4/3 = 0.5623; against ½, ½: KL = log 2 - H = 0.1308
    d = Categorical(jnp.log(jnp.array([1.0, 3.0])))
    np.testing.assert_allclose(d.log_prob(jnp.array(1)), math.log(0.75), rtol=1e-6)
    np.testing.assert_allclose(d.entropy(), 0.562335, rtol=1e-5)
    np.testing.assert_allclose(d.kl(Categorical(jnp.zeros(2))), 0.130812, rtol=1e-5)
    assert d.mode() == 1


def test_multicategorical_by_hand():
    # p = (1/4, 3/4) and (1/2, 1/2): log p(1, 0) = log ¾ + log ½; H = 0.562335 + log 2
    d = MultiCategorical((Categorical(jnp.log(jnp.array([1.0, 3.0]))), Categorical(jnp.zeros(2))))
    np.testing.assert_allclose(d.log_prob(jnp.array([1, 0])), math.log(0.75) + math.log(0.5), rtol=1e-6)
    np.testing.assert_allclose(d.entropy(), 0.562335 + math.log(2), rtol=1e-5)


def test_gaussian_by_hand():
    # N(1, 2²) at 3: -½(2/2)² - log 2 - ½ log 2π = -2.112086; H = ½(1 + log 2π) + log 2 = 2.112086
    # KL to N(0, 1): ½(4 + 1 - 1) - log 2 = 1.306853
    d = gaussian(DiagGaussian, [1.0], [2.0])
    np.testing.assert_allclose(d.log_prob(jnp.array([3.0])), -2.112086, rtol=1e-6)
    np.testing.assert_allclose(d.entropy(), 2.112086, rtol=1e-6)
    np.testing.assert_allclose(d.kl(gaussian(DiagGaussian, [0.0], [1.0])), 1.306853, rtol=1e-6)


def test_tanh_gaussian_by_hand():
    # u = artanh ½ = 0.549306 under N(0, 1): -½u² - ½ log 2π = -1.069807; minus log(1 - ¼) = -0.287682 gives -0.782125
    d = gaussian(TanhDiagGaussian, [0.0], [1.0], low=10.0, high=20.0)
    np.testing.assert_allclose(d.log_prob(jnp.array([0.5493061])), -0.782125, rtol=1e-5)
    np.testing.assert_allclose(d.env_action(jnp.array([0.5493061])), [17.5], rtol=1e-6)  # 10 + 10·(½ + 1)/2


# --- densities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [0, 1, 3])
def test_categorical_log_prob_is_scipys(action):
    d = make("categorical")
    expected = [scipy.stats.multinomial(1, scipy.special.softmax(row)).logpmf(np.eye(4)[action]) for row in LOGITS]
    np.testing.assert_allclose(d.log_prob(jnp.full(2, action)), expected, rtol=1e-5)


def test_gaussian_log_prob_and_entropy_are_scipys():
    d = gaussian(DiagGaussian)
    action = jnp.array([[2.0, -7.0], [0.1, 0.2]])
    oracle = scipy.stats.norm(np.array(MEAN), np.array(STD))
    np.testing.assert_allclose(d.log_prob(action), oracle.logpdf(action).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(d.entropy(), oracle.entropy().sum(-1), rtol=1e-5)


def test_tanh_gaussian_log_prob_is_scipys_with_the_jacobian():
    with jax.enable_x64(True):
        u = jnp.array([[2.0, -3.0], [0.1, 0.2]])
        expected = scipy.stats.norm(np.array(MEAN), np.array(STD)).logpdf(u) - np.log1p(-(np.tanh(u) ** 2))
        np.testing.assert_allclose(gaussian(TanhDiagGaussian).log_prob(u), expected.sum(-1), rtol=1e-9)


def test_beta_is_scipys():
    # the uniform: density 1, entropy 0, and its middle for a mode
    uniform = Beta(jnp.ones(1), jnp.ones(1), jnp.full(1, -2.0), jnp.full(1, 4.0))
    np.testing.assert_allclose(uniform.log_prob(jnp.array([0.3])), 0, atol=1e-6)
    np.testing.assert_allclose(uniform.entropy(), 0, atol=1e-6)
    assert uniform.env_action(uniform.mode()) == 1.0 and uniform.env_action(jnp.array([0.75])) == 2.5
    alpha, beta, x = (np.array(v) for v in ([2.0, 1.5], [3.0, 1.0], [0.2, 0.9]))
    d, oracle = Beta(*map(jnp.asarray, (alpha, beta)), jnp.zeros(2), jnp.ones(2)), scipy.stats.beta(alpha, beta)
    np.testing.assert_allclose(d.log_prob(jnp.asarray(x)), oracle.logpdf(x).sum(), rtol=1e-5)
    np.testing.assert_allclose(d.entropy(), oracle.entropy().sum(), rtol=1e-5)
    np.testing.assert_allclose(d.mode(), [1 / 3, 1 - 1e-6], rtol=1e-6)
    samples = np.asarray(draw(d, 20_000))
    assert all(scipy.stats.kstest(samples[:, i], scipy.stats.beta(alpha[i], beta[i]).cdf).pvalue > 1e-3 for i in (0, 1))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.7, 0.3), (-0.2, 0.6)])
def test_the_density_of_the_squashed_action_integrates_to_one(mean, std):
    with jax.enable_x64(True):
        d = gaussian(TanhDiagGaussian, [mean], [std])
        y = np.linspace(-1, 1, 200_001)[1:-1]
        density = np.exp(jax.vmap(d.log_prob)(jnp.arctanh(y)[:, None]))
    np.testing.assert_allclose(np.trapezoid(density, y), 1.0, rtol=1e-6)


@pytest.mark.parametrize("u", [20.0, -20.0, 60.0, 0.0, 1e-6])
def test_tanh_gaussian_log_prob_and_its_gradient_are_right_far_beyond_float32s_tanh(u):
    # at |u| = 20, 1 - tanh²u underflows; its log is 2(log 2 - |u|) to 17 digits
    d = gaussian(TanhDiagGaussian, [0.5], [2.0])
    log_det = 2 * (math.log(2) - abs(u) - math.log1p(math.exp(-2 * abs(u))))
    expected = scipy.stats.norm(0.5, 2.0).logpdf(u) - log_det
    np.testing.assert_allclose(d.log_prob(jnp.array([u])), expected, rtol=1e-5)
    slope = -(u - 0.5) / 4 + 2 * math.tanh(u)
    np.testing.assert_allclose(jax.grad(lambda u: d.log_prob(u))(jnp.array([u])), [slope], rtol=1e-5)


@every_family
def test_log_prob_and_kl_have_the_gradients_of_finite_differences(name):
    with jax.enable_x64(True):
        p, q = make(name), make(name, 0.3)
        action = p.sample(jax.random.key(1))

        def both(p, q):
            return p.log_prob(action), p.kl(q)

        check_grads(jax.jit(both), (p, q), order=1, modes=["rev"])


# --- entropy ----------------------------------------------------------------------------------------------------------


def entropy_of_squashed_action(mean, std):
    """-∫ p log p dy over (-1, 1), on a fine grid in float64, with y = tanh u."""
    u = np.linspace(mean - 10 * std, mean + 10 * std, 100_001)
    log_density = scipy.stats.norm(mean, std).logpdf(u) - 2 * (math.log(2) - u - np.logaddexp(0, -2 * u))
    return -np.trapezoid(scipy.stats.norm(mean, std).pdf(u) * log_density, u)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.4), (-0.5, 3.0)])
def test_the_entropy_of_tanh_gaussian_and_its_gradient_are_unbiased(mean, std):
    def entropy(params, key):
        return gaussian(TanhDiagGaussian, params[:1], params[1:]).entropy(key)

    keys = jax.random.split(jax.random.key(2), 20_000)
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(entropy), (None, 0)))(jnp.array([mean, std]), keys)
    assert z_score(values, entropy_of_squashed_action(mean, std)) < 4
    h = 1e-3
    slopes = [
        (entropy_of_squashed_action(mean + h, std) - entropy_of_squashed_action(mean - h, std)) / (2 * h),
        (entropy_of_squashed_action(mean, std + h) - entropy_of_squashed_action(mean, std - h)) / (2 * h),
    ]
    assert (z_score(grads, slopes) < 4).all()


@pytest.mark.parametrize("name", ["categorical", "multicategorical", "gaussian", "beta"])
def test_entropy_is_the_mean_of_minus_log_prob(name):
    d = make(name)
    surprise = -jax.jit(jax.vmap(d.log_prob))(draw(d, 20_000))
    assert (z_score(surprise, d.entropy(jax.random.key(0))) < 4).all()


def test_the_uniform_categorical_has_the_most_entropy():
    np.testing.assert_allclose(Categorical(jnp.zeros(5)).entropy(), math.log(5), rtol=1e-6)
    assert (make("categorical").entropy() < math.log(4)).all()


# --- forbidden actions ------------------------------------------------------------------------------------------------


def test_a_forbidden_action_leaves_entropy_kl_and_gradients_as_if_it_were_not_there():
    masked, allowed = jnp.array([0.5, -INF, 2.0, -1.0]), jnp.array([0.5, 2.0, -1.0])

    @jax.jit
    def numbers(logits, other, action):
        p, q = Categorical(logits), Categorical(other)
        return jnp.stack([p.entropy(), p.kl(q), p.log_prob(action)])

    with_mask = numbers(masked, 2 * masked, jnp.array(2))
    np.testing.assert_allclose(with_mask, numbers(allowed, 2 * allowed, jnp.array(1)), rtol=1e-6)
    jacobian = jax.jacobian(lambda x: numbers(x, 2 * masked, jnp.array(2)))(masked)
    expected = jax.jacobian(lambda x: numbers(x, 2 * allowed, jnp.array(1)))(allowed)
    np.testing.assert_allclose(jacobian, np.insert(expected, 1, 0.0, axis=1), atol=1e-6)
    jacobian = jax.jacobian(lambda x: numbers(masked, x, jnp.array(2)))(2 * masked)
    assert np.isfinite(jacobian).all() and np.abs(jacobian).max() > 0.01


def test_a_forbidden_action_is_never_drawn_and_has_no_probability():
    d = Categorical(jnp.array([0.0, -INF, 0.0]))
    assert set(np.unique(draw(d, 1000))) == {0, 2}
    assert d.log_prob(jnp.array(1)) == -INF


@pytest.mark.parametrize("action", [-1, 4, 2**31 - 1])
def test_what_is_no_action_has_no_probability(action):
    # an action in the environment's numbers, say, which start elsewhere
    assert jax.jit(Categorical.log_prob)(Categorical(jnp.asarray(LOGITS)), jnp.full(2, action)).tolist() == [-INF, -INF]


def test_kl_is_infinite_where_the_other_forbids_what_is_possible():
    assert Categorical(jnp.zeros(2)).kl(Categorical(jnp.array([0.0, -INF]))) == INF


def test_vanishing_probabilities_give_finite_entropy_and_gradients():
    value, grad = jax.value_and_grad(lambda x: Categorical(x).entropy())(jnp.array([0.0, -200.0, 3.0]))
    assert np.isfinite(value) and np.isfinite(grad).all() and grad[1] == 0


# --- samples, kl, mode ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 1])
def test_categorical_samples_have_the_right_frequencies(row):
    d = make("categorical")
    counts = np.bincount(draw(d, 20_000)[:, row], minlength=4)
    assert scipy.stats.chisquare(counts, 20_000 * scipy.special.softmax(LOGITS[row])).pvalue > 1e-3


def test_multicategorical_samples_are_independent_with_the_right_frequencies():
    d = make("multicategorical")
    first, second = np.asarray(draw(d, 20_000)[:, 0]).T
    counts = np.bincount(first * 3 + second, minlength=12)
    joint = np.outer(scipy.special.softmax(LOGITS[0]), scipy.special.softmax(2 * np.array(LOGITS[0][:3])))
    assert scipy.stats.chisquare(counts, 20_000 * joint.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("kind", [DiagGaussian, TanhDiagGaussian])
def test_gaussian_samples_are_independent_normals_before_any_squashing(kind):
    samples = np.asarray(draw(gaussian(kind), 20_000))
    for i, j in np.ndindex(2, 2):
        assert scipy.stats.kstest(samples[:, i, j], scipy.stats.norm(MEAN[i][j], STD[j]).cdf).pvalue > 1e-3
    correlation = np.corrcoef(samples.reshape(-1, 4).T) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(20_000)


@every_family
def test_kl_is_the_mean_log_ratio_and_zero_to_itself(name):
    p, q = make(name), make(name, 0.3)
    log_ratio = jax.jit(jax.vmap(lambda a: p.log_prob(a) - q.log_prob(a)))(draw(p, 20_000))
    assert (z_score(log_ratio, p.kl(q)) < 4).all()
    assert (p.kl(q) > 0.01).all() and (q.kl(p) > 0.01).all()
    np.testing.assert_allclose(p.kl(p), 0, atol=1e-6)


@pytest.mark.parametrize("name", ["categorical", "multicategorical", "gaussian", "beta"])
def test_no_sample_is_likelier_than_the_mode(name):
    d = make(name)
    log_prob = jax.jit(jax.vmap(d.log_prob))(draw(d, 20_000))
    best = d.log_prob(d.mode())
    assert (log_prob <= best + 1e-5).all() and (np.ptp(log_prob, axis=0) > 0.5).all()


def test_the_mode_of_tanh_gaussian_is_the_median_action():
    d = gaussian(TanhDiagGaussian)
    below = jax.jit(jax.vmap(d.env_action))(draw(d, 20_000)) < d.env_action(d.mode())
    assert (z_score(below, 0.5) < 4).all()


@every_family
def test_what_is_sampled_can_be_scored_in_any_batch(name):
    d = make(name)
    action = d.sample(jax.random.key(0))
    log_prob, entropy, kl = d.log_prob(action), d.entropy(jax.random.key(1)), d.kl(d)
    assert log_prob.shape == entropy.shape == kl.shape == (2,)
    assert d.mode().shape == action.shape and d.mode().dtype == action.dtype
    one = jax.tree.map(lambda x: x[1] if x.ndim == 2 else x, d)
    np.testing.assert_allclose(one.log_prob(action[1]), log_prob[1], rtol=1e-6)


# --- what the environment executes ------------------------------------------------------------------------------------


def test_gaussian_actions_are_clipped_for_the_environment_but_scored_as_drawn():
    d = gaussian(DiagGaussian, [0.0, 0.0], [1.0, 1.0], low=-0.5, high=0.25)
    action = jnp.array([-3.0, 0.1])
    np.testing.assert_allclose(d.env_action(action), [-0.5, 0.1])
    assert d.log_prob(action) < d.log_prob(d.env_action(action)) - 4


@pytest.mark.parametrize("kind", [DiagGaussian, TanhDiagGaussian])
def test_the_environment_gets_actions_within_its_bounds_whatever_they_are(kind):
    rng = np.random.default_rng(0)
    low = rng.uniform(-3, 3, 5000).astype(np.float32)
    high = low + rng.uniform(0, 3, 5000).astype(np.float32)
    d = kind(jnp.zeros(5000), jnp.ones(5000), jnp.asarray(low), jnp.asarray(high))
    for u in (-INF, -30.0, -8.0, 0.1, 8.0, 30.0, INF):
        action = np.asarray(jax.jit(lambda d, u: d.env_action(u))(d, jnp.full(5000, u)))
        assert (action >= low).all() and (action <= high).all()


def test_tanh_gaussian_reaches_both_bounds_and_the_middle_and_rises_between():
    d = gaussian(TanhDiagGaussian, [0.0], [1.0], low=-1.0, high=3.0)
    np.testing.assert_allclose(d.env_action(jnp.array([-20.0]))[0], -1.0)
    np.testing.assert_allclose(d.env_action(jnp.array([20.0]))[0], 3.0)
    np.testing.assert_allclose(d.env_action(jnp.array([0.0]))[0], 1.0)
    assert (np.diff(d.env_action(jnp.linspace(-3, 3, 100)[:, None])[:, 0]) > 0).all()


@pytest.mark.parametrize("name", ["categorical", "multicategorical"])
def test_discrete_actions_are_executed_as_drawn(name):
    action = make(name).sample(jax.random.key(0))
    np.testing.assert_array_equal(make(name).env_action(action), action)


# --- transformations and precision ------------------------------------------------------------------------------------


def everything(d, q, key):
    action = d.sample(key)
    return action, d.log_prob(action), d.entropy(key), d.kl(q), d.mode(), d.env_action(action)


@every_family
def test_jit_changes_nothing(name, key):
    p, q = make(name), make(name, 0.3)
    for a, b in zip(everything(p, q, key), jax.jit(everything)(p, q, key), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_family
def test_vmap_over_distributions_equals_a_loop(name):
    shifts, keys = [0.1, 0.2, 0.3], jax.random.split(jax.random.key(0), 3)
    ps, qs = [make(name, s) for s in shifts], [make(name, -s) for s in shifts]
    stacked = [jax.tree.map(lambda *x: jnp.stack(x), *ds) for ds in (ps, qs)]
    looped = [jax.jit(everything)(p, q, k) for p, q, k in zip(ps, qs, keys, strict=True)]
    for mapped, one in zip(jax.jit(jax.vmap(everything))(*stacked, keys), zip(*looped, strict=True), strict=True):
        np.testing.assert_allclose(mapped, np.stack(one), rtol=1e-5, atol=1e-6)


@every_family
def test_float64_in_gives_float64_out(name):
    with jax.enable_x64(True):
        p, q = make(name), make(name, 0.3)
        assert jax.tree.leaves(p)[0].dtype == jnp.float64
        floats = [x for x in everything(p, q, jax.random.key(0)) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert len(floats) >= 3 and all(x.dtype == jnp.float64 for x in floats)
