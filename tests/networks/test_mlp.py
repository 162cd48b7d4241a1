import functools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.networks import actor_critic
from jaxrl.networks.mlp import ACTIVATIONS, features, num_features
from jaxrl.ops.distributions import Beta, Categorical, DiagGaussian, MultiCategorical, TanhDiagGaussian
from jaxrl.ops.losses import policy_gradient_loss, value_loss
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Spaces
from jaxrl.types import InputError

VECTOR, BOUNDED = Box((3,)), Box((2,), -1.0, 2.0)
SPACES = {
    "box to discrete": (Spaces(VECTOR, Discrete(4)), "auto", Categorical, ()),
    "box to multidiscrete": (Spaces(VECTOR, MultiDiscrete((2, 3, 4))), "auto", MultiCategorical, (3,)),
    "box to normal": (Spaces(VECTOR, Box((2,))), "auto", DiagGaussian, (2,)),
    "box to tanh_normal": (Spaces(VECTOR, BOUNDED), "tanh_normal", TanhDiagGaussian, (2,)),
    "box to state_normal": (Spaces(VECTOR, Box((2,))), "state_normal", DiagGaussian, (2,)),
    "box to beta": (Spaces(VECTOR, BOUNDED), "beta", Beta, (2,)),
    "multidiscrete to discrete": (Spaces(MultiDiscrete((3, 2)), Discrete(2)), "auto", Categorical, ()),
    "one-hot to discrete": (Spaces(Discrete(5), Discrete(4)), "auto", Categorical, ()),
    "scalar to normal": (Spaces(Box(()), BOUNDED), "normal", DiagGaussian, (2,)),
    "image to discrete": (Spaces(Box((4, 4, 2), 0, 255, np.uint8), Discrete(3)), "auto", Categorical, ()),
    "pytree to discrete": (Spaces({"a": Discrete(3), "b": (VECTOR, Box(()))}, Discrete(2)), "auto", Categorical, ()),
}
every_space = pytest.mark.parametrize(("spaces", "head", "kind", "action_shape"), SPACES.values(), ids=SPACES)


TO_BOX = Spaces(VECTOR, Box((2,), -1.0, 1.0))
TO_DISCRETE = Spaces(VECTOR, Discrete(4))
KEY = jax.random.key(0)


def small(spaces, **options):
    return actor_critic(spaces, **{"hidden": (8, 7), **options})


@functools.cache
def started(spaces, **options):
    """A small network and its first parameters."""
    network = small(spaces, **options)
    return network._replace(apply=jax.jit(network.apply)), jax.jit(network.init)(KEY)


def observations(space, shape, seed=0):
    rng = np.random.default_rng(seed)
    if isinstance(space, dict | tuple):
        return jax.tree.map(lambda part: observations(part, shape, seed), space)
    if isinstance(space, Discrete):
        return jnp.asarray(rng.integers(space.n, size=shape))
    if isinstance(space, MultiDiscrete):
        return jnp.asarray(rng.integers(space.nvec, size=(*shape, len(space.nvec))))
    return jnp.asarray(rng.normal(size=(*shape, *space.shape)), jnp.float32)


# --- shapes and heads -------------------------------------------------------------------------------------------------


@every_space
@pytest.mark.parametrize("batch", [(), (5,), (3, 5)], ids=str)
def test_every_batch_of_observations_has_a_distribution_and_a_value(spaces, head, kind, action_shape, batch):
    def act(key, obs):
        network = small(spaces, head=head)
        distribution, value = network.apply(network.init(key), obs)
        action = distribution.sample(key)
        return distribution, action, distribution.log_prob(action), value

    distribution, action, log_prob, value = jax.eval_shape(act, KEY, observations(spaces.observation, batch))
    assert type(distribution) is kind
    assert value.shape == log_prob.shape == batch
    assert action.shape == (*batch, *action_shape)


def test_each_part_of_a_multidiscrete_action_has_its_own_logits():
    network, bias = small(Spaces(VECTOR, MultiDiscrete((2, 3, 1)))), jnp.arange(6.0)
    params = jax.tree.map(
        lambda x: bias if x.shape == bias.shape else jnp.zeros(x.shape), jax.eval_shape(network.init, KEY)
    )
    parts = network.apply(params, jnp.ones(3))[0].parts
    for part, expected in zip(parts, ([0, 1], [2, 3, 4], [5]), strict=True):
        np.testing.assert_allclose(part.logits, expected)


def test_entries_of_an_action_are_counted_from_their_start():
    space = MultiDiscrete((2, 3), (5, -1))
    network = small(Spaces(VECTOR, space))
    distribution = network.apply(network.init(KEY), jnp.ones((500, 3)))[0]
    action = distribution.sample(KEY)
    given = np.asarray(distribution.env_action(action))
    np.testing.assert_array_equal(given - np.asarray(action), np.broadcast_to([5, -1], (500, 2)))
    drawn = np.asarray(jax.vmap(space.sample)(jax.random.split(KEY, 500)))
    for actions in (given, drawn):
        assert {tuple(x) for x in actions.tolist()} == {(a, b) for a in (5, 6) for b in (-1, 0, 1)}
    assert space.zero().tolist() == [5, -1] and MultiDiscrete((2, 3)) == MultiDiscrete((2, 3), (0, 0))
    with pytest.raises(InputError, match=r"start = \(1,\) has 1 entries for the 2 of nvec"):
        MultiDiscrete((2, 3), (1,))


def test_the_widths_of_actor_and_critic_are_those_asked_for():
    def kernels(**options):
        params = jax.eval_shape(actor_critic(TO_DISCRETE, **options).init, KEY)
        return [[layer.kernel.shape for layer in mlp.layers] for mlp in (params.actor, params.critic)]

    hidden = [(3, 8), (8, 6)]
    assert kernels(hidden=(8, 6), critic_hidden=(5,)) == [[*hidden, (6, 4)], [(3, 5), (5, 1)]]
    assert kernels(hidden=(8, 6)) == [[*hidden, (6, 4)], [*hidden, (6, 1)]]
    assert kernels(hidden=(8, 6), critic_hidden=()) == [[*hidden, (6, 4)], [(3, 1)]]


def test_no_hidden_layers_give_a_linear_policy():
    network, params = started(TO_DISCRETE, hidden=())
    x = jnp.array([1.0, -2.0, 3.0])
    logits = lambda x: network.apply(params, x)[0].logits  # noqa: E731
    np.testing.assert_allclose(logits(2 * x), 2 * logits(x), rtol=1e-5)
    assert np.ptp(logits(x)) > 1e-3


def test_the_bounds_of_the_action_space_reach_the_distribution():
    network = small(Spaces(VECTOR, Box((2,), np.array([-1.0, -2.0]), np.array([3.0, 0.5]))), head="tanh_normal")
    act = lambda key: network.apply(network.init(key), jnp.zeros(3))[0].env_action(jnp.array([-50.0, 50.0]))  # noqa: E731
    np.testing.assert_allclose(jax.jit(act)(KEY), [-1.0, 0.5])


# --- the forward pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_mlp_is_the_matrix_products_it_says(name):
    mlp = jax.tree.map(lambda x: x + 0.1, started(TO_DISCRETE)[1].actor)
    mlp.activation = name
    expected = x = jnp.array([0.5, -1.0, 2.0])
    for i, layer in enumerate(mlp.layers):
        expected = expected @ layer.kernel[...] + layer.bias[...]
        expected = ACTIVATIONS[name](expected) if i < 2 else expected
    np.testing.assert_allclose(mlp(x), expected, rtol=1e-5)


def test_layers_start_orthogonal_with_their_scales_and_without_bias():
    _, params = started(TO_DISCRETE)
    for mlp, last in ((params.actor, 0.01), (params.critic, 1.0)):
        for layer, scale in zip(mlp.layers, (2**0.5, 2**0.5, last), strict=True):
            singular = np.linalg.svd(layer.kernel[...], compute_uv=False)
            np.testing.assert_allclose(singular, scale, rtol=1e-4)
            assert (layer.bias[...] == 0).all()


def test_the_first_policy_is_nearly_uniform_whatever_it_sees():
    network, params = started(TO_DISCRETE)
    d = network.apply(params, 3 * observations(VECTOR, (50,)))[0]
    np.testing.assert_allclose(d.entropy(), math.log(4), atol=1e-3)


@functools.cache
def first_policies(head):
    """(mean, std) of the first policies over some observations, for any vector of `init_std`."""

    def first(init_std):
        network = small(TO_BOX, head=head, init_std=init_std)
        d = network.apply(network.init(KEY), observations(VECTOR, (20,)))[0]
        return d.mean, jnp.broadcast_to(d.std, d.mean.shape)

    return jax.jit(jax.vmap(first))


@pytest.mark.parametrize("head", ["normal", "tanh_normal"])
def test_init_std_is_that_of_the_first_policy_and_may_be_swept_under_vmap(head):
    init_std = jnp.array([0.05, 0.5, 1.0, 4.0])
    mean, std = first_policies(head)(init_std)
    np.testing.assert_allclose(std, jnp.broadcast_to(init_std[:, None, None], std.shape), rtol=0.05)
    np.testing.assert_allclose(mean, 0, atol=0.05)


@pytest.mark.parametrize(
    "head",
    [
        "normal",
        "tanh_normal",
    ],
)
def test_a_large_init_std_is_finite(head):
    _, std = first_policies(head)(jnp.array([1.0, 1.0, 1.0, 200.0]))
    np.testing.assert_allclose(std[3], 200.0, rtol=0.05)


def first_gaussian(space, init_std=1.0):
    network = small(Spaces(VECTOR, space), init_std=init_std)
    return jax.jit(lambda: network.apply(network.init(KEY), observations(VECTOR, (20,)))[0])()


def test_a_gaussian_starts_in_the_middle_of_its_bounds_with_a_std_in_units_of_half_the_range():
    # [12, 30]: middle 21, half 9. [0, ∞) starts a unit inside, the unbounded at 0. A range of nothing is harmless
    d = first_gaussian(Box((4,), np.array([12.0, 0.0, -np.inf, 3.0]), np.array([30.0, np.inf, np.inf, 3.0])), 0.5)
    np.testing.assert_allclose(d.mean, np.broadcast_to([21.0, 1.0, 0.0, 2.0], (20, 4)), atol=0.5)
    np.testing.assert_allclose(d.std, [4.5, 0.5, 0.5, 0.5], rtol=1e-6)
    assert 0.3 < float(jnp.mean((d.env_action(d.sample(KEY)) > 21)[:, 0])) < 0.7


def test_a_gaussian_on_the_unit_box_has_the_very_numbers_of_one_without_bounds():
    for a, b in zip(first_gaussian(Box((2,), -1.0, 1.0))[:2], first_gaussian(Box((2,)))[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_policy_counts_actions_from_the_start_of_the_space_and_stores_them_from_zero():
    network = small(Spaces(VECTOR, Discrete(3, start=5)))
    d = network.apply(network.init(KEY), observations(VECTOR, (200,)))[0]
    action = d.sample(KEY)
    assert set(action.tolist()) == {0, 1, 2} and set(d.env_action(action).tolist()) == {5, 6, 7}


@pytest.mark.parametrize(("head", "depends"), [("normal", False), ("tanh_normal", True)])
def test_only_tanh_normal_has_a_std_that_depends_on_the_state(head, depends):
    _, std = first_policies(head)(jnp.ones(4))
    assert (np.ptp(std, axis=1) > 1e-5).all() == depends


# --- features ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "obs", "expected"),
    [
        (Discrete(3), jnp.array(1), [0, 1, 0]),
        (Discrete(3), jnp.array([2, 0]), [[0, 0, 1], [1, 0, 0]]),
        (Discrete(3, start=-1), jnp.array([1, -1]), [[0, 0, 1], [1, 0, 0]]),
        (
            {"b": Box(()), "a": Discrete(2)},
            {"b": jnp.array([5.0, 6.0]), "a": jnp.array([1, 0])},
            [[0, 1, 5], [1, 0, 6]],
        ),
        ((Box((1,)), [Box((2,))]), (jnp.array([1.0]), [jnp.array([2.0, 3.0])]), [1, 2, 3]),
        (Box(()), jnp.array([1.5, 2.5]), [[1.5], [2.5]]),
        (Box((2,)), jnp.array([1.5, 2.5]), [1.5, 2.5]),
        (Box((2, 2)), jnp.arange(4.0).reshape(1, 2, 2), [[0, 1, 2, 3]]),
        (Box((2,), 0, 255, np.uint8), jnp.array([7, 255], jnp.uint8), [7.0, 255.0]),
        (MultiDiscrete((2, 3)), jnp.array([1, 0]), [0.0, 1.0, 1.0, 0.0, 0.0]),
        (MultiDiscrete((2, 3), (5, -1)), jnp.array([6, -1]), [0.0, 1.0, 1.0, 0.0, 0.0]),
    ],
    ids=repr,
)
def test_features_are_one_float_vector_per_observation(space, obs, expected):
    result = features(space, obs)
    np.testing.assert_allclose(result, expected)
    assert result.dtype == jnp.float32 and num_features(space) == result.shape[-1]


@pytest.mark.parametrize(
    ("head", "init_std", "spread"), [("state_normal", 0.4, 0.4), ("beta", 0.3, 0.3), ("beta", 5.0, 3**-0.5)]
)
def test_the_first_policy_spreads_as_asked_in_units_of_half_the_range(head, init_std, spread):
    # BOUNDED is [-1, 2]: half its range is 1.5, its middle 0.5
    network = small(Spaces(VECTOR, BOUNDED), head=head, init_std=init_std)
    d = network.apply(network.init(KEY), jnp.ones((4000, 3)))[0]
    action = np.asarray(d.env_action(d.sample(jax.random.key(1)))) if head == "beta" else np.asarray(d.sample(KEY))
    assert action.std() == pytest.approx(1.5 * spread, rel=0.05) and action.mean() == pytest.approx(0.5, abs=0.08)


def test_what_is_privileged_only_the_critic_sees():
    seen = {"state": VECTOR, "privileged_state": Box((5,))}
    network = small(Spaces(seen, Discrete(3)))
    params = network.init(KEY)
    assert params.actor.layers[0].kernel.shape[0] == 3 and params.critic.layers[0].kernel.shape[0] == 8
    obs = {"state": jnp.ones(3), "privileged_state": jnp.ones(5)}
    other = {**obs, "privileged_state": jnp.full(5, 2.0)}
    (d, value), (also, higher) = network.apply(params, obs), network.apply(params, other)
    np.testing.assert_array_equal(d.logits, also.logits)
    assert value != higher
    with pytest.raises(InputError, match="shows nothing to see"):
        small(Spaces({"privileged_state": VECTOR}, Discrete(3)))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spaces", "options", "words"),
    [
        (Spaces(VECTOR, Discrete(2)), {"activation": "tahn"}, "activation = 'tahn'.*tanh, relu"),
        (Spaces(VECTOR, BOUNDED), {"head": "gaussian"}, "head = 'gaussian'.*tanh_normal"),
        (Spaces(VECTOR, Discrete(2)), {"head": "gaussian"}, "head = 'gaussian'"),
        (Spaces(VECTOR, Box((2,))), {"head": "tanh_normal"}, "finite action bounds.*'normal'"),
        (Spaces(VECTOR, Box((2,), -1.0, np.array([1.0, np.inf]))), {"head": "tanh_normal"}, "finite action bounds"),
        (Spaces(VECTOR, Box((2,))), {"head": "beta"}, "'beta' needs finite action bounds.*'normal'"),
        (Spaces(VECTOR, Discrete(2)), {"torso": "cnn"}, "torso = 'cnn' is not one of auto, flat, minatar"),
        (Spaces(VECTOR, Discrete(2)), {"torso": "nature"}, r"'nature' is for pictures.*leave it out"),
        (Spaces(Box((9, 9, 3)), Discrete(2)), {"torso": "nature"}, r"at least 36 × 36.*9 × 9.*'minatar'"),
        (Spaces(VECTOR, Discrete(2)), {"core": "rnn"}, "core = 'rnn' is not one of none, gru, lstm, linear"),
        (Spaces({"action_mask": Box((2,))}, Discrete(2)), {}, "shows nothing to see.*Network of your own"),
        (Spaces((), Discrete(2)), {}, r"observation space \(\).*Network of your own"),
        (Spaces(VECTOR, Discrete(2)), {"head": "tanh_normal"}, "'tanh_normal' is for continuous actions.*use 'auto'"),
        (Spaces(VECTOR, Discrete(2)), {"hidden": (0,)}, r"hidden = \(0,\): each width must be at least 1"),
        (Spaces(VECTOR, Discrete(2)), {"critic_hidden": [8, -1]}, r"critic_hidden = \(8, -1\): each width"),
        (Spaces(VECTOR, Box((2, 2), -1, 1)), {}, r"no policy head for actions of Box.*Network of your own"),
        (Spaces(VECTOR, Box((2,), 0, 5, np.int32)), {}, "whole numbers in Box.*declare MultiDiscrete"),
    ],
)
def test_what_cannot_be_built_is_an_error_with_a_remedy(spaces, options, words):
    with pytest.raises(ValueError, match=words):
        actor_critic(spaces, **options)


# --- separate actor and critic ----------------------------------------------------------------------------------------


def largest(tree):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("head", ["normal", "tanh_normal"])
def test_the_value_loss_moves_only_the_critic_and_the_policy_loss_only_the_actor(head):
    network, params = started(TO_BOX, head=head)
    obs = observations(VECTOR, (20,))
    action = network.apply(params, obs)[0].sample(KEY)
    by_value = jax.jit(jax.grad(lambda p: value_loss(network.apply(p, obs)[1], jnp.ones(20)).mean()))(params)
    log_prob = lambda p: network.apply(p, obs)[0].log_prob(action)  # noqa: E731
    by_policy = jax.jit(jax.grad(lambda p: policy_gradient_loss(log_prob(p), jnp.linspace(-1, 2, 20)).mean()))(params)
    assert largest(by_value.critic) > 1e-3 and largest((by_value.actor, by_value.log_std)) == 0
    assert largest(by_policy.actor) > 1e-3 and largest(by_policy.critic) == 0
    assert head == "tanh_normal" or largest(by_policy.log_std) > 1e-3


def test_actor_and_critic_start_from_different_weights():
    _, params = started(TO_BOX, head="normal")
    assert np.abs(params.actor.layers[0].kernel[...] - params.critic.layers[0].kernel[...]).max() > 0.1


# --- params are a plain pytree ----------------------------------------------------------------------------------------


@every_space
def test_params_are_a_pytree_of_float32_arrays(spaces, head, kind, action_shape):
    leaves, tree = jax.tree.flatten(jax.eval_shape(small(spaces, head=head).init, KEY))
    assert all(x.dtype == jnp.float32 for x in leaves)
    assert jax.tree.structure(jax.tree.unflatten(tree, leaves)) == tree
    of_torso = 4 if spaces.observation == SPACES["image to discrete"][0].observation else 0
    of_std = kind is DiagGaussian and head != "state_normal"
    assert len(leaves) == 12 + of_std + of_torso  # six layers, and perhaps a log_std


def test_jit_changes_nothing():
    network = small(TO_BOX, hidden=(4,))
    params, compiled = network.init(KEY), jax.jit(small(TO_BOX, hidden=(4,)).init)(KEY)
    assert jax.tree.structure(compiled) == jax.tree.structure(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, compiled)
    obs = observations(VECTOR, (6,))
    for a, b in zip(
        *map(jax.tree.leaves, (network.apply(params, obs), jax.jit(network.apply)(params, obs))), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_vmap_over_seeds_equals_a_loop():
    network, keys = small(TO_BOX, hidden=(4,), head="tanh_normal"), jax.random.split(KEY, 3)

    def run(key):
        distribution, value = network.apply(network.init(key), observations(VECTOR, (5,)))
        return distribution.mean, distribution.std, value

    looped = zip(*map(jax.jit(run), keys), strict=True)
    for mapped, one in zip(jax.jit(jax.vmap(run))(keys), looped, strict=True):
        np.testing.assert_allclose(mapped, np.stack(one), atol=1e-5)
        assert np.abs(mapped[0] - mapped[1]).max() > 1e-4


def test_params_are_carried_by_a_scan_of_gradient_steps_that_learn():
    network, start = started(TO_DISCRETE)
    obs = observations(VECTOR, (64,))
    target = 2.0 * jnp.sin(obs[:, 0]) + obs[:, 1]

    def step(params, _):
        loss, grads = jax.value_and_grad(lambda p: value_loss(network.apply(p, obs)[1], target).mean())(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss

    params, losses = jax.jit(lambda p: jax.lax.scan(step, p, length=200))(start)
    assert losses[-1] < 0.1 * losses[0]
    assert jax.tree.structure(params) == jax.tree.structure(start)


@pytest.mark.parametrize(
    ("low", "high", "start"),
    [(5.0, math.inf, 6.0), (-math.inf, -5.0, -6.0), (-9.0, math.inf, 0.0), (-3.4e38, 3.4e38, 0)],
)
def test_actions_bounded_on_one_side_start_inside_and_huge_bounds_are_none(low, high, start):
    spaces = Spaces(Box((2,)), Box((1,), low, high))
    network = actor_critic(spaces)
    distribution, _ = network.apply(network.init(jax.random.key(0)), jnp.zeros((1, 2)))
    np.testing.assert_allclose(distribution.mode(), [[start]], atol=1e-5)
    np.testing.assert_allclose(distribution.std, [1.0])


@pytest.mark.parametrize("core", ["none", "gru"])
def test_parameters_can_be_pickled(core, key):
    params = small(TO_DISCRETE, core=core).init(key)
    again = pickle.loads(pickle.dumps(params))
    assert jax.tree.structure(again) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, again, params)
