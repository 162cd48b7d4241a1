"""The decoder's own properties; that it computes what transformers does is held by test_parity.py."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.lm import transformer
from jaxrl.lm.rope import DynamicScaling, Llama3Scaling, YarnScaling
from jaxrl.lm.sampling import stream
from jaxrl.lm.transformer import (
    Decoder,
    Linear,
    ModelConfig,
    RMSNorm,
    language_model,
    rotary,
    rotate,
    unstack,
)
from jaxrl.ops.platform import tuned
from tests.helpers.families import config_of, params_of

LAYERS = 2
CONFIG = config_of("llama", vocab_size=97, num_hidden_layers=LAYERS)
MODEL, PARAMS = language_model(CONFIG), params_of(CONFIG)
hidden = jax.jit(MODEL.hidden)


def tokens(*shape, seed=0, vocab=97):
    return np.random.default_rng(seed).integers(0, vocab, shape, np.int32)


def close(a, b, atol=1e-5):
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=atol)


def trees_close(a, b, atol):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        close(x, y, atol)


# --- by hand


def test_rms_norm_by_hand():
    # mean square of (3, 4) is 12.5: (3, 4)/√12.5·(1, 2) = (0.848528, 2.262742)
    norm = RMSNorm(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(norm(jnp.array([3.0, 4.0]), 0.0), [0.848528, 2.262742], rtol=1e-6)
    # ε joins the mean square: 3/√(12.5 + 3.5) = 0.75
    np.testing.assert_allclose(norm(jnp.array([3.0, 4.0]), 3.5), [0.75, 2.0], rtol=1e-6)


def test_rms_norm_of_bfloat16_rounds_once_at_the_end():
    x = jax.random.normal(jax.random.key(0), (64, 32)).astype(jnp.bfloat16)
    found, exact = RMSNorm(jnp.ones(32))(x, 0.0), np.asarray(x, np.float64)
    exact /= np.sqrt((exact**2).mean(-1, keepdims=True))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=1.01 * 2**-8)


def test_a_linear_layer_by_hand():
    # (1, 2)·[[1, 2], [3, 4]] + (10, 20) = (17, 30)
    layer = Linear(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([10.0, 20.0]))
    np.testing.assert_array_equal(layer(jnp.array([1.0, 2.0])), [17.0, 30.0])


SMALLEST = ModelConfig(3, 2, 2, 1, 1, 1, 2, 8, rms_norm_eps=0.0, tie_word_embeddings=True)


def averaging(config):
    """One layer that adds the mean of the embeddings a token attends to: q = 0, v = o = identity, no MLP."""

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        if "embed" in name:  # of mean square 1: normalisation keeps them
            return np.array([[1, 1], [1, -1], [-1, 1]], np.float32)
        if "norm" in name:
            return np.ones(leaf.shape, np.float32)
        return np.eye(2, dtype=np.float32)[None] * ("v_proj" in name or "o_proj" in name)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(language_model(config).init, jax.random.key(0)))


A = 1 / math.sqrt(2.5)
WINDOWS = [
    # Tokens (1, 1), (1, -1), (-1, 1). With all before: (1, 1) + (1, 1); (1, -1) + (1, 0) = (2, -1), of mean square 2.5;
    # (-1, 1) + (1/3, 1/3) = (-2/3, 4/3), of direction (-1, 2). A window of two leaves (-1, 1) + (0, 0).
    (None, [[1, 1], [2 * A, -A], [-A, 2 * A]]),
    (3, [[1, 1], [2 * A, -A], [-A, 2 * A]]),
    (2, [[1, 1], [2 * A, -A], [-1, 1]]),
    (1, [[1, 1], [1, -1], [-1, 1]]),
]


@pytest.mark.parametrize(("window", "expected"), WINDOWS)
def test_attention_and_the_sliding_window_by_hand(window, expected):
    config = dataclasses.replace(SMALLEST, sliding_window=window)
    model, given = language_model(config), jnp.array([[0, 1, 2]])

    @jax.jit
    def both(params):
        # with a cache, the first token is read before the other two
        first, cache = model.prefill(params, given[:, :1], 3)
        rest, _ = model.extend(params, unstack(params), given[:, 1:], jnp.array([1]), cache)
        return model.hidden(params, given)[0], jnp.concatenate([first, rest], axis=1)[0]

    for found in both(averaging(config)):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_tied_embeddings_give_the_logits():
    # products of (2, 5) with the rows (1, 1), (1, -1), (-1, 1)
    logits = language_model(SMALLEST).unembed(jax.tree.map(jnp.asarray, averaging(SMALLEST)), jnp.array([2.0, 5.0]))
    np.testing.assert_allclose(logits, [7.0, -3.0, 3.0])


def test_rotation_by_hand():
    # C = 4, θ = 100: frequencies 100^0 and 100^(-2/4) = 0.1; (1, 2, 3, 4) are the pairs (1, 3) and (2, 4)
    config = dataclasses.replace(CONFIG, head_dim=4, rope_theta=100.0)
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    rotated = [rotate(x, rotary(config, jnp.array([[p]])))[0, 0, 0] for p in (0, 1, 20)]
    c, s = np.cos, np.sin
    np.testing.assert_array_equal(rotated[0], [1, 2, 3, 4])
    by_one = [c(1) - 3 * s(1), 2 * c(0.1) - 4 * s(0.1), 3 * c(1) + s(1), 4 * c(0.1) + 2 * s(0.1)]
    np.testing.assert_allclose(rotated[1], by_one, rtol=1e-5)
    np.testing.assert_allclose(rotated[2][1], 2 * c(2) - 4 * s(2), rtol=1e-5)


def test_products_of_rotated_vectors_depend_on_the_distance_only():
    x = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    q, k = (lambda p, v=v: rotate(v, rotary(CONFIG, jnp.array([[p]]))).ravel() for v in x)
    np.testing.assert_allclose(q(3) @ k(1), q(52) @ k(50), rtol=1e-4)
    assert abs(q(3) @ k(1) - q(3) @ k(2)) > 0.01


def test_llama3_scaling_by_hand():
    # θ = 10⁴, C = 8: frequencies 1, 0.1, 0.01, 0.001. Within the first context of 500π the rotations turn 250, 25, 2.5
    # and 0.25 times. From 4 turns up they stay, up to 1 they are slowed 8 times; 2.5 is half way between:
    # 0.01·(1/2 + 1/2/8) = 0.005625.
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 500 * math.pi)
    config = dataclasses.replace(CONFIG, head_dim=8, rope_theta=1e4, rope_scaling=scaling)
    cos, sin = (x[0, 0, 0] for x in rotary(config, jnp.array([[1]])))
    np.testing.assert_allclose(np.arctan2(sin, cos), [1, 0.1, 0.005625, 0.000125], rtol=1e-5)


def test_yarn_by_hand():
    # θ = 10⁴, C = 8: rotation i makes 1000 / 10^i turns in the first context of 2000π tokens. One with 99 turns lies at
    # i = 1.004, one with 1.01 at 2.998, in whole numbers 1 and 3: i = 2 is half way, 0.01·(1/2 + 1/2/4) = 0.00625.
    # q and k are longer by 0.1 ln 4 + 1.
    scaling = YarnScaling(4.0, 2000 * math.pi, beta_fast=99.0, beta_slow=1.01)
    config = dataclasses.replace(CONFIG, head_dim=8, rope_theta=1e4, rope_scaling=scaling)
    cos, sin = (x[0, 0, 0] for x in rotary(config, jnp.array([[1]])))
    np.testing.assert_allclose(np.arctan2(sin, cos), [1, 0.1, 0.00625, 0.00025], rtol=1e-5)
    np.testing.assert_allclose(np.hypot(sin, cos), 0.1 * math.log(4) + 1, rtol=1e-6)


def test_dynamic_scaling_ends_with_the_context():
    # there is no one θ for the rows of a batch beyond it, nor for the keys of a cache
    config = dataclasses.replace(CONFIG, rope_scaling=DynamicScaling(2.0), max_position_embeddings=16)
    model = language_model(config)
    rows = tokens(2, 16)
    np.testing.assert_array_equal(jax.jit(model.hidden)(PARAMS, rows), hidden(PARAMS, rows))
    with pytest.raises(ValueError, match="rows of 17 tokens are wider than the 16 .* is dynamic.*shorten or narrow"):
        jax.eval_shape(model.hidden, PARAMS, tokens(2, 17))
    with pytest.raises(ValueError, match="rows of 20 tokens"):
        jax.eval_shape(lambda: model.prefill(PARAMS, rows, 20))
    prompt = [int(t) for t in rows[0, :9]]  # its power of two, and five more, would be beyond the context
    found = list(stream(model, PARAMS, prompt, jax.random.key(0), max_new_tokens=5, temperature=0.0))
    assert found == list(stream(MODEL, PARAMS, prompt, jax.random.key(0), max_new_tokens=5, temperature=0.0))


# --- who sees whom


def check_causal(model, params, reach=None):
    """Changing token 6 of 16 changes nothing before it; without a window, everything after it."""
    before = tokens(2, 16)
    after = before.copy()
    after[:, 6] = (after[:, 6] + 1) % 96
    moved = np.abs(np.asarray(jax.jit(model.hidden)(params, before) - jax.jit(model.hidden)(params, after))).max((0, 2))
    last = 16 if reach is None else 7 + reach
    assert (moved[:6] <= 1e-6).all() and (moved[6:last] > 1e-3).all() and (moved[last:] <= 1e-6).all(), moved


def test_no_token_sees_those_after_it():
    check_causal(MODEL, PARAMS)


def test_a_window_of_three_reaches_two_tokens_further_with_every_layer():
    config = dataclasses.replace(CONFIG, sliding_window=3)
    check_causal(language_model(config), PARAMS, reach=2 * LAYERS)


@pytest.mark.parametrize("changes", [{"is_causal": False}, {"local_window_size": (3, 0)}])
def test_attention_without_its_mask_would_be_noticed(changes, monkeypatch):
    shipped = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", lambda *x, **k: shipped(*x, **{**k, **changes}))
    with pytest.raises(AssertionError):
        check_causal(transformer._language_model.__wrapped__(CONFIG, jnp.dtype("float32"), False), PARAMS)


def test_neither_neighbours_nor_padding_change_a_row():
    rows, lengths = tokens(4, 12), [12, 5, 1, 9]
    alone = [hidden(PARAMS, np.pad(rows[i : i + 1, :n], ((0, 0), (0, 12 - n))))[0, :n] for i, n in enumerate(lengths)]
    padded = np.pad(rows, ((0, 0), (0, 7)), constant_values=96)  # another width, other tokens as padding
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        together = hidden(PARAMS, padded[order])
        for place, i in enumerate(order):
            close(together[place, : lengths[i]], alone[i])


# --- the same numbers by other ways


@pytest.fixture(scope="module")
def gradients():
    """Value and gradient of a function of all hidden states, without and with remat."""
    given, weight = tokens(2, 9), jax.random.normal(jax.random.key(1), (2, 9, 32))

    def of(model):
        return jax.jit(jax.value_and_grad(lambda p: jnp.sum(model.hidden(p, given) * weight)))(PARAMS)

    return tuple(of(language_model(CONFIG, remat=remat)) for remat in (False, True))


def test_recomputing_layers_changes_neither_value_nor_gradient(gradients):
    (value, grads), (value_remat, grads_remat) = gradients
    close(value, value_remat)
    trees_close(grads, grads_remat, 1e-4)
    norms = {jax.tree_util.keystr(p): float(jnp.abs(g).max()) for p, g in jax.tree_util.tree_leaves_with_path(grads)}
    assert all((norm > 1e-3) == ("head" not in name) for name, norm in norms.items()), norms


def test_recomputing_layers_keeps_less_of_them():
    def residuals(model):
        out = jax.eval_shape(lambda p: jax.vjp(lambda p: model.hidden(p, tokens(2, 64)), p)[1], PARAMS)
        return sum(x.size for x in jax.tree.leaves(out))

    kept, all_of_them = (residuals(language_model(CONFIG, remat=remat)) for remat in (True, False))
    assert kept < all_of_them / 4


def test_bfloat16_is_close_and_its_logits_are_float32():
    given, narrow = tokens(2, 9), language_model(CONFIG, dtype="bfloat16")
    found = jax.jit(narrow.hidden)(PARAMS, given)
    assert found.dtype == jnp.bfloat16
    expected = hidden(PARAMS, given)
    error = jnp.linalg.norm(found.astype(jnp.float32) - expected) / jnp.linalg.norm(expected)
    assert 1e-4 < error < 0.05
    logits, exact = narrow.unembed(PARAMS, found), MODEL.unembed(PARAMS, found.astype(jnp.float32))
    assert logits.dtype == jnp.float32
    # sums are float32 too: all that is lost is the rounding of the 32 kernel entries of each
    assert jnp.abs(logits - exact).max() < 0.02 and (logits != logits.astype(jnp.bfloat16)).any()


@pytest.fixture(scope="module")
def wide():
    """Hidden states from `prefill` and from `extend`, and logits, of one text in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), PARAMS)
        model, given = language_model(CONFIG, dtype="float64"), tokens(2, 7)

        @jax.jit
        def all_three(params):
            x, _ = model.prefill(params, given, 7)
            _, cache = model.prefill(params, given[:, :1], 7)
            y, _ = model.extend(params, unstack(params), given, jnp.array([0, 0]), cache)
            return x, y, model.unembed(params, x)

        return all_three(params)


def test_float64_stays_float64(wide):
    assert {x.dtype for x in wide} == {jnp.dtype(jnp.float64)}
    close(wide[0], hidden(PARAMS, tokens(2, 7)))


def test_float64_is_float64_all_the_way(wide):
    np.testing.assert_allclose(wide[0], wide[1], rtol=0, atol=1e-12)


def check_extends(model, params):
    """Seven columns of prompts read at once, then three more tokens twice, each row from its own place."""
    rows, start = tokens(3, 16), np.array([4, 1, 7])
    prompts = np.where(np.arange(7) < start[:, None], rows[:, :7], 0)
    chunks = [np.stack([row[n + t : n + t + 3] for row, n in zip(rows, start, strict=True)]) for t in (0, 3)]

    @jax.jit
    def all_ways(params):
        x, cache = model.prefill(params, prompts, 16)
        y, cache = model.extend(params, unstack(params), chunks[0], start, cache)
        z, _ = model.extend(params, unstack(params), chunks[1], start + 3, cache)
        return model.hidden(params, rows), x, jnp.concatenate([y, z], axis=1)

    expected, read, extended = all_ways(params)
    for row, n in enumerate(start):
        close(read[row, :n], expected[row, :n])
        close(extended[row], expected[row, n : n + 6])


@pytest.mark.parametrize("family", ["mistral", "qwen3"])
def test_prefill_and_extend_equal_hidden(family):
    config = config_of(family, num_hidden_layers=LAYERS)
    check_extends(language_model(config), params_of(config))


def test_a_cache_read_too_far_would_be_noticed(monkeypatch):
    shipped = transformer.cached_attention
    further = lambda q, k, v, seen: shipped(q, k, v, seen | jnp.roll(seen, 1, axis=2))  # noqa: E731
    monkeypatch.setattr(transformer, "cached_attention", further)
    with pytest.raises(AssertionError):
        check_extends(transformer._language_model.__wrapped__(CONFIG, jnp.dtype("float32"), False), PARAMS)


def test_grouped_queries_equal_repeated_heads():
    # heads 0, 1 share the first keys and values, heads 2, 3 the second
    wide = dataclasses.replace(CONFIG, num_key_value_heads=4)

    def repeat(path, leaf):
        if not any(name in jax.tree_util.keystr(path) for name in ("k_proj", "v_proj")):
            return leaf
        return leaf.reshape(LAYERS, 32, 2, 16)[:, :, np.array([0, 0, 1, 1])].reshape(LAYERS, 32, 64)

    given, model = tokens(2, 9), language_model(wide)

    @jax.jit
    def both(params):
        _, cache = model.prefill(params, given[:, :8], 9)
        last = model.extend(params, unstack(params), given[:, 8:], jnp.array([8, 8]), cache)[0]
        return model.hidden(params, given), last

    found, last = both(jax.tree_util.tree_map_with_path(repeat, PARAMS))
    expected = hidden(PARAMS, given)
    close(found, expected)
    close(last, expected[:, 8:])


# --- programs and pytrees


def test_one_config_is_one_model_and_one_program():
    assert language_model(CONFIG) is language_model(dataclasses.replace(CONFIG))
    assert language_model(CONFIG, dtype="bfloat16") is not MODEL
    assert language_model(CONFIG, remat=True) is not language_model(CONFIG, remat=False)
    for remat in (True, False):
        with tuned(remat=remat):
            assert language_model(CONFIG) is language_model(CONFIG, remat=remat)
    traced = []
    f = jax.jit(lambda model, p, t: traced.append(1) or model.hidden(p, t), static_argnums=0)
    for model in (MODEL, language_model(dataclasses.replace(CONFIG))):
        f(model, PARAMS, tokens(1, 3))
    assert len(traced) == 1 and hash(MODEL) == hash(language_model(CONFIG))


@pytest.mark.parametrize("remat", [False, True])
def test_the_program_does_not_grow_with_depth(remat):
    def size(layers):
        config = dataclasses.replace(CONFIG, num_hidden_layers=layers)
        model = language_model(config, remat=remat)
        loss = jax.grad(lambda p: jnp.sum(model.hidden(p, jnp.zeros((2, 8), jnp.int32))))
        return len(jax.jit(loss).lower(jax.eval_shape(model.init, jax.random.key(0))).as_text())

    assert size(16) < 1.02 * size(2)


def test_the_module_is_a_pytree():
    back = jax.tree.unflatten(jax.tree.structure(PARAMS), jax.tree.leaves(PARAMS))
    assert isinstance(back, Decoder) and back is not PARAMS
    trees_close(back, PARAMS, 0)
    doubled = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p))(PARAMS)
    trees_close(doubled, jax.tree.map(lambda x: x + x, PARAMS), 0)
    np.testing.assert_array_equal(PARAMS.norm.weight[...], back.norm.weight[...])
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(PARAMS)}
    assert len(names) == len(jax.tree.leaves(PARAMS)) == 12
    assert all(any(part in name for name in names) for part in ("embed", "q_proj", "attn_norm", "down_proj", "head"))


def test_models_are_mapped_over_their_parameters():
    both = [PARAMS, params_of(CONFIG, seed=1)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *both)
    mapped = jax.jit(jax.vmap(MODEL.hidden, (0, None)))(stacked, tokens(2, 12))
    for found, params in zip(mapped, both, strict=True):
        close(found, hidden(params, tokens(2, 12)))


def test_fresh_parameters(key):
    tied = config_of("qwen2", vocab_size=97, num_hidden_layers=LAYERS)
    params = jax.jit(language_model(tied).init)(key)
    assert params.head is None and params.layers.q_norm is None
    assert params.layers.q_proj.kernel.shape == (LAYERS, 32, 64) and params.layers.k_proj.bias.shape == (LAYERS, 32)
    kernel = np.asarray(params.layers.gate_proj.kernel[...])
    assert kernel.std() == pytest.approx(0.02, rel=0.1) and not np.allclose(kernel[0], kernel[1])
    assert (params.layers.q_proj.bias[...] == 0).all() and (params.norm.weight[...] == 1).all()
