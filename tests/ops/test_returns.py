import functools
import math
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrl.ops.returns import discounted_returns, gae, lambda_returns, vtrace

SEEDS = range(5)


class Rollout(NamedTuple):
    reward: jax.Array
    value: jax.Array
    next_value: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    log_ratio: jax.Array


def example(seed, shape=(11, 7), dtype=np.float32):
    """A rollout with every mix of the two flags, and values that know nothing of each other."""
    rng = np.random.default_rng(seed)
    reward, value, next_value, log_ratio = jnp.asarray(rng.normal(size=(4, *shape)), dtype)
    terminated, truncated = jnp.asarray(rng.random((2, *shape)) < 0.25)
    return Rollout(reward, value, next_value, terminated, truncated, 0.7 * log_ratio)


def connected(x):
    """The same with V(next_obs_t) = V(obs_{t+1}) within an episode, as one critic would have it."""
    done = (x.terminated | x.truncated)[:-1]
    return x._replace(next_value=x.next_value.at[:-1].set(jnp.where(done, x.next_value[:-1], x.value[1:])))


def eager_gae(x, gamma=0.9, lam=0.8):
    return gae(x.reward, x.value, x.next_value, x.terminated, x.truncated, gamma, lam)


def eager_lambda_returns(x, gamma=0.9, lam=0.8):
    return lambda_returns(x.reward, x.next_value, x.terminated, x.truncated, gamma, lam)


def eager_discounted_returns(x, gamma=0.9):
    return discounted_returns(x.reward, x.next_value, x.terminated, x.truncated, gamma)


def eager_vtrace(x, gamma=0.9, lam=0.8, rho_clip=1.2, c_clip=0.9):
    """[2, T, ...]: targets and advantages."""
    args = (x.reward, x.value, x.next_value, x.terminated, x.truncated, x.log_ratio)
    return jnp.stack(vtrace(*args, gamma, lam, rho_clip=rho_clip, c_clip=c_clip))


run_gae, run_lambda_returns, run_discounted_returns, run_vtrace = (
    jax.jit(f) for f in (eager_gae, eager_lambda_returns, eager_discounted_returns, eager_vtrace)
)
NAMES = ("gae", "lambda_returns", "discounted_returns", "vtrace")
RUNS = (run_gae, run_lambda_returns, run_discounted_returns, run_vtrace)
every_return = pytest.mark.parametrize("run", RUNS, ids=NAMES)


# --- by hand ----------------------------------------------------------------------------------------------------------


def rollout(reward, value, next_value, terminated=(), truncated=(), log_ratio=None):
    """One environment; the flags are given as the steps at which they are raised."""
    steps = range(len(reward))
    flags = [jnp.array([t in raised for t in steps]) for raised in (terminated, truncated)]
    log_ratio = [0.0] * len(reward) if log_ratio is None else log_ratio
    return Rollout(*map(jnp.asarray, (reward, value, next_value)), *flags, jnp.asarray(log_ratio))


def three_steps(**flags):
    """γ = λ = ½ throughout."""
    return rollout([1.0, 2.0, 3.0], [4.0, 2.0, 6.0], [2.0, 8.0, 4.0], **flags)


# No flag:   δ = 1 + ½·2 - 4, 2 + ½·8 - 2, 3 + ½·4 - 6 = -2, 4, -1;  A₂ = -1, A₁ = 4 - ¼ = 3.75, A₀ = -2 + ¼·3.75
# Terminated at 1: δ₁ = 2 - 2 = 0, A₁ = 0, A₀ = -2
# Truncated at 1:  δ₁ = 4 = A₁ (nothing of A₂), A₀ = -2 + ¼·4 = -1
HAND = [
    ({}, [-1.0625, 3.75, -1.0]),
    ({"terminated": [1]}, [-2.0, 0.0, -1.0]),
    ({"truncated": [1]}, [-1.0, 4.0, -1.0]),
    ({"terminated": [1], "truncated": [1]}, [-2.0, 0.0, -1.0]),
    ({"terminated": [2]}, [-1.1875, 3.25, -3.0]),
    ({"truncated": [2]}, [-1.0625, 3.75, -1.0]),
]


@pytest.mark.parametrize(("flags", "expected"), HAND)
@pytest.mark.device
def test_gae_by_hand(flags, expected):
    np.testing.assert_allclose(run_gae(three_steps(**flags), 0.5, 0.5), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [2.8125, 5.25, 5.0]),  # 3 + ½·4, 2 + ½(½·8 + ½·5), 1 + ½(½·2 + ½·5.25)
        ({"terminated": [1]}, [2.0, 2.0, 5.0]),  # 1 + ½(½·2 + ½·2)
        ({"truncated": [1]}, [3.0, 6.0, 5.0]),  # 2 + ½·8, 1 + ½(½·2 + ½·6)
        ({"terminated": [1], "truncated": [1]}, [2.0, 2.0, 5.0]),
        ({"terminated": [2]}, [2.6875, 4.75, 3.0]),  # 2 + ½(½·8 + ½·3), 1 + ½(½·2 + ½·4.75)
        ({"truncated": [2]}, [2.8125, 5.25, 5.0]),
    ],
)
def test_lambda_returns_by_hand(flags, expected):
    np.testing.assert_allclose(run_lambda_returns(three_steps(**flags), 0.5, 0.5), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, [3.25, 4.5, 5.0]),  # 3 + ½·4, 2 + ½·5, 1 + ½·4.5
        ({"terminated": [1]}, [2.0, 2.0, 5.0]),  # 1 + ½·2
        ({"truncated": [1]}, [4.0, 6.0, 5.0]),  # 2 + ½·8, 1 + ½·6
        ({"terminated": [1], "truncated": [1]}, [2.0, 2.0, 5.0]),
        ({"terminated": [2]}, [2.75, 3.5, 3.0]),
    ],
)
def test_discounted_returns_by_hand(flags, expected):
    np.testing.assert_allclose(run_discounted_returns(three_steps(**flags), 0.5), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("flags", "target", "advantage"),
    [
        # π/μ = 2, ½, 4 with both clips at 1: ρ = c = 1, ½, 1; δ = -2, ½·4, -1 after ρ
        # v₂ = 6 - 1 = 5; v₁ = 2 + 2 + ½·½·(5 - 6) = 3.75; v₀ = 4 - 2 + ½·1·(3.75 - 2) = 2.875
        # A₂ = 3 + ½·4 - 6 = -1; A₁ = ½(2 + ½·5 - 2) = 1.25; A₀ = 1 + ½·3.75 - 4 = -1.125
        ({}, [2.875, 3.75, 5.0], [-1.125, 1.25, -1.0]),
        # v₁ = 2 + ½(2 - 2) = 2; v₀ = 4 - 2 + ½(2 - 2) = 2; A₁ = ½(2 - 2) = 0; A₀ = 1 + ½·2 - 4 = -2
        ({"terminated": [1]}, [2.0, 2.0, 5.0], [-2.0, 0.0, -1.0]),
        # v₁ = 2 + ½·4 = 4; v₀ = 4 - 2 + ½(4 - 2) = 3; A₁ = ½(2 + ½·8 - 2) = 2; A₀ = 1 + ½·4 - 4 = -1
        ({"truncated": [1]}, [3.0, 4.0, 5.0], [-1.0, 2.0, -1.0]),
        ({"terminated": [1], "truncated": [1]}, [2.0, 2.0, 5.0], [-2.0, 0.0, -1.0]),
    ],
)
def test_vtrace_by_hand(flags, target, advantage):
    x = three_steps(log_ratio=[math.log(2), math.log(0.5), math.log(4)], **flags)
    np.testing.assert_allclose(run_vtrace(x, 0.5, 1.0, 1.0, 1.0), [target, advantage], atol=1e-6)


# --- NumPy loops, forwards from the definitions -----------------------------------------------------------------------


def loop(one):
    """Apply a function of one environment's arrays and a starting step to every step of every environment."""

    def many(x, *args):
        x = jax.tree.map(lambda a: np.asarray(a, np.float64), x)
        out = np.zeros(x.reward.shape)
        for t, n in np.ndindex(out.shape):
            out[t, n] = one(Rollout(*(a[:, n] for a in x)), t, *args)
        return out

    return many


@loop
def gae_from_definition(x, t, gamma, lam):
    """Σ_k (γλ)^k δ_{t+k}, up to and including the first step that ends the episode."""
    total, weight = 0.0, 1.0
    for k in range(t, len(x.reward)):
        bootstrap = 0.0 if x.terminated[k] else x.next_value[k]
        total += weight * (x.reward[k] + gamma * bootstrap - x.value[k])
        weight *= gamma * lam
        if x.terminated[k] or x.truncated[k]:
            break
    return total


@loop
def lambda_return_from_definition(x, t, gamma, lam):
    """Σ_n (1-λ)λ^{n-1} G_{t:t+n}, with all remaining weight on the last n-step return of the episode."""
    total, rewards, weight = 0.0, 0.0, 1.0
    for k in range(t, len(x.reward)):
        rewards += gamma ** (k - t) * x.reward[k]
        bootstrap = 0.0 if x.terminated[k] else gamma ** (k - t + 1) * x.next_value[k]
        if x.terminated[k] or x.truncated[k] or k == len(x.reward) - 1:
            return total + weight * (rewards + bootstrap)
        total += weight * (1 - lam) * (rewards + bootstrap)
        weight *= lam


@loop
def vtrace_target_from_definition(x, t, gamma, lam, rho_clip, c_clip):
    """Espeholt et al. 2018, eq. 1: V_t + Σ_k γ^k (Π c) ρ_k δ_k."""
    total, weight = x.value[t], 1.0
    for k in range(t, len(x.reward)):
        ratio = math.exp(x.log_ratio[k])
        bootstrap = 0.0 if x.terminated[k] else x.next_value[k]
        total += weight * min(rho_clip, ratio) * (x.reward[k] + gamma * bootstrap - x.value[k])
        weight *= gamma * lam * min(c_clip, ratio)
        if x.terminated[k] or x.truncated[k]:
            break
    return total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("gamma", "lam"), [(0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
@pytest.mark.device
def test_gae_and_lambda_returns_equal_their_definitions(seed, gamma, lam):
    x = example(seed)
    np.testing.assert_allclose(run_gae(x, gamma, lam), gae_from_definition(x, gamma, lam), atol=1e-5)
    expected = lambda_return_from_definition(x, gamma, lam)
    np.testing.assert_allclose(run_lambda_returns(x, gamma, lam), expected, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_discounted_returns_equal_their_definition(seed):
    x = example(seed)
    np.testing.assert_allclose(run_discounted_returns(x), lambda_return_from_definition(x, 0.9, 1.0), atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("rho_clip", "c_clip", "lam"), [(1.0, 1.0, 1.0), (2.0, 0.5, 0.7), (math.inf, math.inf, 0.9)])
def test_vtrace_equals_its_definition(seed, rho_clip, c_clip, lam):
    x = example(seed)
    target, advantage = run_vtrace(x, 0.9, lam, rho_clip, c_clip)
    expected = vtrace_target_from_definition(x, 0.9, lam, rho_clip, c_clip)
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-4)

    following = np.concatenate([expected[1:], np.asarray(x.next_value)[-1:]])
    following = np.where(x.truncated, x.next_value, following)
    td = x.reward + 0.9 * np.where(x.terminated, 0.0, following) - x.value
    np.testing.assert_allclose(advantage, np.minimum(rho_clip, np.exp(x.log_ratio)) * td, rtol=1e-4, atol=1e-4)


# --- relations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_gae_plus_value_is_the_lambda_return(seed, lam):
    x = connected(example(seed))
    np.testing.assert_allclose(run_gae(x, 0.9, lam) + x.value, run_lambda_returns(x, 0.9, lam), atol=1e-5)


def test_gae_at_lambda_zero_is_the_td_error():
    x = example(0)
    td = x.reward + 0.9 * np.where(x.terminated, 0.0, x.next_value) - x.value
    np.testing.assert_allclose(run_gae(x, lam=0.0), td, atol=1e-6)


@pytest.mark.parametrize("lam", [0.5, 1.0])
def test_vtrace_on_policy_is_the_lambda_return(lam):
    x = connected(example(0))._replace(log_ratio=jnp.zeros((11, 7)))
    target, advantage = run_vtrace(x, 0.9, lam, 1.0, 1.0)
    np.testing.assert_allclose(target, run_lambda_returns(x, 0.9, lam), atol=1e-5)
    is_gae = np.allclose(advantage, run_gae(x, 0.9, lam), atol=1e-5)
    assert is_gae == (lam == 1.0)  # at smaller λ the paper's advantage is another one


# --- the truth at episode ends ----------------------------------------------------------------------------------------


@every_return
def test_a_nan_that_does_not_count_spreads_nowhere(run):
    x = example(0)
    x = x._replace(terminated=x.terminated.at[-1, :4].set(True))
    poisoned = jnp.where(x.terminated, jnp.nan, x.next_value)
    np.testing.assert_array_equal(run(x._replace(next_value=poisoned)), run(x))


@every_return
@pytest.mark.parametrize("flag", ["terminated", "truncated"])
def test_a_nan_after_an_episodes_end_does_not_reach_back_into_it(run, flag):
    quiet = jnp.zeros((6, 1), bool)
    x = example(0, (6, 1))._replace(terminated=quiet, truncated=quiet)._replace(**{flag: quiet.at[2].set(True)})
    result, clean = run(x._replace(reward=x.reward.at[4].set(jnp.nan), value=x.value.at[3].set(jnp.nan))), run(x)
    np.testing.assert_array_equal(result[..., :3, :], clean[..., :3, :])
    assert np.isnan(result[..., 3:5, :]).all()


@every_return
@pytest.mark.device
def test_a_nan_in_one_environment_reaches_no_other(run):
    x = example(0)
    reward, value, next_value = (a.at[:, 2].set(jnp.nan) for a in x[:3])
    result = run(x._replace(reward=reward, value=value, next_value=next_value))
    others = np.arange(7) != 2
    np.testing.assert_array_equal(result[..., others], run(x)[..., others])


@functools.cache
def sensitivity(run):
    """x -> by input, [..., step of the result, step of the input]: how the one moves with the other."""

    def result(floats, x):
        return run(x._replace(**floats))

    return jax.jit(lambda x: jax.jacobian(result)({k: getattr(x, k) for k in ("reward", "value", "next_value")}, x))


@every_return
@pytest.mark.device
def test_truncation_keeps_the_sample_bootstraps_from_the_successor_and_cuts_the_trace(run):
    x = example(0, (4,))._replace(terminated=jnp.zeros(4, bool), truncated=jnp.array([False, True, False, False]))
    moves = sensitivity(run)(x)
    assert (np.abs(moves["reward"][..., :2, 1]) > 1e-3).all()
    assert (np.abs(moves["next_value"][..., :2, 1]) > 1e-3).all()
    assert all((move[..., :2, 2:] == 0).all() for move in moves.values())


@every_return
@pytest.mark.parametrize("also_truncated", [False, True])
@pytest.mark.device
def test_termination_bootstraps_from_nothing_and_cuts_the_trace(run, also_truncated):
    ends = jnp.array([False, True, False, False])
    moves = sensitivity(run)(example(0, (4,))._replace(terminated=ends, truncated=ends & also_truncated))
    assert (np.abs(moves["reward"][..., :2, 1]) > 1e-3).all()
    assert (moves["next_value"][..., 1] == 0).all()
    assert all((move[..., :2, 2:] == 0).all() for move in moves.values())


@every_return
@pytest.mark.device
def test_both_flags_count_as_terminated(run):
    x = example(1)
    both = x.terminated & x.truncated
    assert both.any()
    np.testing.assert_array_equal(run(x), run(x._replace(truncated=x.truncated & ~both)))


@every_return
def test_a_rollout_that_stops_inside_an_episode_counts_as_truncated_there(run):
    quiet = jnp.zeros(4, bool)
    x = example(0, (4,))._replace(terminated=quiet, truncated=quiet)
    np.testing.assert_allclose(run(x), run(x._replace(truncated=quiet.at[-1].set(True))), rtol=1e-6)
    assert (np.abs(run(x) - run(x._replace(terminated=quiet.at[-1].set(True)))).max(axis=-1) > 1e-2).all()


# --- transformations and precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "eager"),
    list(zip(RUNS, (eager_gae, eager_lambda_returns, eager_discounted_returns, eager_vtrace), strict=True)),
    ids=NAMES,
)
def test_jit_changes_nothing(run, eager):
    np.testing.assert_allclose(run(example(0)), eager(example(0)), atol=1e-6)


@every_return
def test_vmap_over_environments_equals_the_batch_and_a_loop(run):
    x = example(0)
    batch = np.asarray(run(x))
    np.testing.assert_allclose(jax.vmap(run, in_axes=1, out_axes=-1)(x), batch, atol=1e-6)
    for n in range(7):
        np.testing.assert_allclose(run(jax.tree.map(lambda a, n=n: a[:, n], x)), batch[..., n], atol=1e-6)


def test_gamma_and_lambda_may_be_mapped_over():
    x, gammas, lams = example(0), jnp.array([0.5, 0.99]), jnp.array([1.0, 0.3])
    mapped = jax.vmap(run_gae, (None, 0, 0))(x, gammas, lams)
    np.testing.assert_allclose(mapped[0], run_gae(x, 0.5, 1.0), atol=1e-6)
    np.testing.assert_allclose(mapped[1], run_gae(x, 0.99, 0.3), atol=1e-6)


@every_return
def test_float64_in_gives_float64_out(run):
    with jax.enable_x64(True):
        assert run(example(0, dtype=np.float64)).dtype == jnp.float64


def test_float64_gae_is_exact_to_float64():
    with jax.enable_x64(True):
        x = example(0, dtype=np.float64)
        np.testing.assert_allclose(run_gae(x), gae_from_definition(x, 0.9, 0.8), rtol=1e-12, atol=1e-13)


@every_return
def test_the_gradients_are_those_of_finite_differences(run):
    with jax.enable_x64(True):
        x = example(0, (5, 2), dtype=np.float64)

        def f(reward, value, next_value):
            return run(x._replace(reward=reward, value=value, next_value=next_value))

        check_grads(f, (x.reward, x.value, x.next_value), order=1, modes=["rev"])


@pytest.mark.parametrize(
    "run",
    [
        run_gae,
        run_vtrace,
        pytest.param(run_lambda_returns),
        pytest.param(run_discounted_returns),
    ],
)
def test_a_critic_of_lower_precision_than_the_rewards_will_do(run):
    x = example(0)
    result = run(x._replace(value=x.value.astype(jnp.bfloat16), next_value=x.next_value.astype(jnp.bfloat16)))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, run(x), atol=0.1)


# --- mistakes seen elsewhere: each is caught by the arithmetic above --------------------------------------------------


def mistaken_gae(x, gamma, lam, *, bootstrap=None, cut=None, drop=None):
    """GAE backwards in NumPy, with the bootstrap value, the trace's end or the dropped samples changed."""
    x = jax.tree.map(np.asarray, x)
    bootstrap = np.where(x.terminated, 0.0, x.next_value) if bootstrap is None else bootstrap(x)
    cut = x.terminated | x.truncated if cut is None else cut(x)
    drop = np.zeros_like(x.terminated) if drop is None else drop(x)
    delta = x.reward + gamma * bootstrap - x.value
    out, following = np.zeros_like(delta), np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        following = np.where(drop[t], 0.0, delta[t] + gamma * lam * np.where(cut[t], 0.0, following))
        out[t] = following
    return out


def no_mistake(x, gamma, lam):
    return mistaken_gae(x, gamma, lam)


def bootstraps_nothing_at_time_limits(x, gamma, lam):
    return mistaken_gae(x, gamma, lam, bootstrap=lambda x: np.where(x.terminated | x.truncated, 0.0, x.next_value))


def drops_the_truncated_sample(x, gamma, lam):
    return mistaken_gae(x, gamma, lam, drop=lambda x: x.truncated)


def bootstraps_from_the_state_itself_at_time_limits(x, gamma, lam):
    value = lambda x: np.where(x.truncated, x.value, x.next_value)  # noqa: E731
    return mistaken_gae(x, gamma, lam, bootstrap=lambda x: np.where(x.terminated, 0.0, value(x)))


def leaks_across_truncations(x, gamma, lam):
    return mistaken_gae(x, gamma, lam, cut=lambda x: x.terminated)


def bootstraps_where_both_flags_are_raised(x, gamma, lam):
    return mistaken_gae(x, gamma, lam, bootstrap=lambda x: np.where(x.terminated & ~x.truncated, 0.0, x.next_value))


def has_the_form_of_vtrace(x, gamma, lam):
    return run_vtrace(x._replace(log_ratio=jnp.zeros_like(x.reward)), gamma, lam, 1.0, 1.0)[1]


MISTAKES = [
    bootstraps_nothing_at_time_limits,
    drops_the_truncated_sample,
    bootstraps_from_the_state_itself_at_time_limits,
    leaks_across_truncations,
    bootstraps_where_both_flags_are_raised,
    has_the_form_of_vtrace,
]


def check_by_hand(advantages, tolerance):
    """All of HAND."""
    results = [advantages(three_steps(**flags), 0.5, 0.5) for flags, _ in HAND]
    np.testing.assert_allclose(results, [expected for _, expected in HAND], rtol=0, atol=tolerance)


def check_by_definition(advantages, tolerance):
    """All kinds of random rollouts."""
    results = [advantages(example(seed), 0.9, 0.8) for seed in SEEDS]
    np.testing.assert_allclose(
        results, [gae_from_definition(example(seed), 0.9, 0.8) for seed in SEEDS], rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("check", [check_by_hand, check_by_definition])
def test_the_checks_pass_for_gae(check):
    check(run_gae, 1e-5)
    check(no_mistake, 1e-5)


@pytest.mark.parametrize("check", [check_by_hand, check_by_definition])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checks_fail_clearly_for_each_mistake(check, mistake):
    with pytest.raises(AssertionError):
        check(mistake, 0.2)


# --- a random MDP, solved exactly -------------------------------------------------------------------------------------

STATES, ACTIONS, GAMMA = 6, 3, 0.9


@pytest.fixture(scope="module")
def mdp():
    """Transition probabilities [s, a, s'], rewards, terminal transitions, a policy [s, a]; exact V and Q.

    V = Σ_a π Σ_s' P (r + γ(1-terminal) V'), so (I - γ P_π) V = r_π; Q follows.
    """
    rng = np.random.default_rng(7)
    chances = rng.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    rewards = rng.normal(size=(STATES, ACTIONS, STATES))
    terminal = rng.random((STATES, ACTIONS, STATES)) < 0.15
    policy = rng.dirichlet(np.ones(ACTIONS), STATES)
    onward = np.einsum("sa,sat->st", policy, chances * ~terminal)
    value = np.linalg.solve(np.eye(STATES) - GAMMA * onward, np.einsum("sa,sat,sat->s", policy, chances, rewards))
    q = np.sum(chances * (rewards + GAMMA * ~terminal * value), axis=-1)
    return SimpleNamespace(chances=chances, rewards=rewards, terminal=terminal, policy=policy, value=value, q=q)


@pytest.fixture(scope="module")
def experience(mdp):
    """A rollout of 40 steps of 8000 environments with a time limit of 4 steps, reset to random states."""
    rng, envs, limit = np.random.default_rng(8), 8000, 4
    draw = lambda p: (p.cumsum(-1) < rng.random((envs, 1))).sum(-1).clip(max=p.shape[-1] - 1)  # noqa: E731
    state, clock, steps = rng.integers(STATES, size=envs), rng.integers(limit, size=envs), []
    for _ in range(40):
        action = draw(mdp.policy[state])
        successor = draw(mdp.chances[state, action])
        clock = clock + 1
        terminated, truncated = mdp.terminal[state, action, successor], clock >= limit
        steps.append((state, action, mdp.rewards[state, action, successor], successor, terminated, truncated))
        done = terminated | truncated
        state = np.where(done, rng.integers(STATES, size=envs), successor)
        clock = np.where(done, 0, clock)
    state, action, reward, successor, terminated, truncated = (np.stack(x) for x in zip(*steps, strict=True))
    return SimpleNamespace(
        state=state,
        action=action,
        rollout=Rollout(
            reward=jnp.asarray(reward, jnp.float32),
            value=jnp.asarray(mdp.value[state], jnp.float32),
            next_value=jnp.asarray(mdp.value[successor], jnp.float32),
            terminated=jnp.asarray(terminated),
            truncated=jnp.asarray(truncated),
            log_ratio=jnp.zeros(reward.shape),
        ),
    )


def errors_in_standard_errors(mdp, experience, advantages, lam):
    """[S, A]: the mean of (estimate - true advantage), in standard errors over independent environments."""
    true = mdp.q - mdp.value[:, None]
    error = (
        np.asarray(advantages(experience.rollout, GAMMA, lam), np.float64) - true[experience.state, experience.action]
    )
    pair = experience.state * ACTIONS + experience.action
    sums = np.stack([np.where(pair == i, error, 0.0).sum(axis=0) for i in range(STATES * ACTIONS)])
    z = sums.mean(axis=1) / (sums.std(axis=1) / math.sqrt(sums.shape[1]))
    return z.reshape(STATES, ACTIONS)


def test_the_mdp_has_every_kind_of_step(mdp, experience):
    x = experience.rollout
    kinds = [
        ~x.terminated & ~x.truncated,
        x.terminated & ~x.truncated,
        ~x.terminated & x.truncated,
        x.terminated & x.truncated,
    ]
    assert all(kind.sum() > 1000 for kind in kinds)
    assert np.abs(mdp.q - mdp.value[:, None]).max() > 0.5
    np.testing.assert_allclose(np.sum(mdp.policy * mdp.q, axis=1), mdp.value, atol=1e-12)


@pytest.mark.parametrize("lam", [1.0, 0.8, 0.0])
def test_gae_with_the_true_values_averages_to_the_true_advantage(mdp, experience, lam):
    assert np.abs(errors_in_standard_errors(mdp, experience, run_gae, lam)).max() < 4


@pytest.mark.parametrize(
    "mistake",
    [
        bootstraps_nothing_at_time_limits,
        drops_the_truncated_sample,
        bootstraps_from_the_state_itself_at_time_limits,
        bootstraps_where_both_flags_are_raised,
    ],
)
def test_mistaken_advantages_are_biased(mdp, experience, mistake):
    assert np.abs(errors_in_standard_errors(mdp, experience, mistake, 1.0)).max() > 8
