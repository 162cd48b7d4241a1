"""Low-rank adapters: nothing at first, the same attached or merged, and all that is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import replace
from jaxrl.algorithms.sft import SFT
from jaxrl.data import Completions, DataBatch
from jaxrl.lm import lora
from jaxrl.lm.lora import TARGETS, Adapter, attach, init_adapters, merge, scale_of, trained
from jaxrl.lm.sampling import generate
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.transformer import Linear, language_model, unstack
from tests.helpers.families import assert_same, config_of, params_of

CONFIG = config_of("qwen2", vocab_size=97, num_hidden_layers=2)  # with biases, and tied embeddings
MODEL, PARAMS = language_model(CONFIG), params_of(CONFIG)
TOKENS = np.random.default_rng(0).integers(0, 97, (2, 9), np.int32)
RANK, SCALE = 3, 0.7
hidden = jax.jit(MODEL.hidden)


def drawn(seed=0, targets=TARGETS):
    """Adapters as after training: B is not zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32),
        jax.eval_shape(lambda k: init_adapters(k, PARAMS, RANK, targets), jax.random.key(0)),
    )


@pytest.fixture(scope="module")
def before():
    return jax.tree.map(np.array, PARAMS)


def close(a, b, atol=1e-5):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# --- by hand


def test_an_adapted_layer_by_hand():
    # x = (1, 1): x·W = (4, 6), x·A = 1·1 + 1·2 = 3, times B = (10, 20) is (30, 60); with a bias of (0.5, 0)
    layer = Linear(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0.5, 0.0]))
    layer.lora_a, layer.lora_b = jnp.array([[1.0], [2.0]]), jnp.array([[10.0, 20.0]])
    np.testing.assert_array_equal(layer(jnp.array([1.0, 1.0])), [34.5, 66.0])


def test_attach_and_merge_by_hand():
    # α/r = 1/2: half of A·B = [[10, 20], [20, 40]] joins W = [[1, 2], [3, 4]]
    small = language_model(dataclasses.replace(CONFIG, hidden_size=2, num_attention_heads=1, num_key_value_heads=1,
                                               head_dim=2, num_hidden_layers=1, qkv_bias=False))  # fmt: skip
    params = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(small.init, jax.random.key(0)))
    params.layers.q_proj.kernel[...] = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    adapters = {"q_proj": Adapter(jnp.array([[[1.0], [2.0]]]), jnp.array([[[10.0, 20.0]]]))}
    merged = merge(params, adapters, 0.5)
    np.testing.assert_array_equal(merged.layers.q_proj.kernel[0], [[6, 12], [13, 24]])
    x = jnp.array([1.0, 1.0])
    for made in (merged, attach(params, adapters, 0.5)):
        np.testing.assert_array_equal(unstack(made)[0].q_proj(x), [19, 36])
    np.testing.assert_array_equal(unstack(params)[0].q_proj(x), [4, 6])


# --- the same model in three forms


def test_fresh_adapters_change_nothing_at_all(key):
    adapters = jax.jit(lambda k: init_adapters(k, PARAMS, RANK))(key)
    assert set(adapters) == set(TARGETS)
    for name, (a, b) in adapters.items():
        layers, n_in, n_out = getattr(PARAMS.layers, name).kernel.shape
        assert a.shape == (layers, n_in, RANK) and b.shape == (layers, RANK, n_out) and not b.any()
        bound = 1 / np.sqrt(n_in)
        assert jnp.abs(a).max() <= bound and np.std(a) == pytest.approx(bound / np.sqrt(3), rel=0.2)
    assert not np.allclose(adapters["q_proj"].a, adapters["o_proj"].a[:, :32])
    np.testing.assert_array_equal(hidden(attach(PARAMS, adapters, SCALE), TOKENS), hidden(PARAMS, TOKENS))
    assert_same(merge(PARAMS, adapters, SCALE), PARAMS)


def test_attached_equals_merged_and_neither_touches_the_base(before):
    adapters = drawn()
    attached, merged = attach(PARAMS, adapters, SCALE), merge(PARAMS, adapters, SCALE)
    found = hidden(attached, TOKENS)
    close(found, hidden(merged, TOKENS))
    reference = hidden(before, TOKENS)
    assert jnp.abs(found - reference).max() > 0.1
    np.testing.assert_array_equal(hidden(PARAMS, TOKENS), reference)  # adapters off: the reference, exactly
    assert_same(jax.tree.map(np.asarray, PARAMS), before)
    assert PARAMS.layers.q_proj.lora_a is None
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)


def test_unmerging_gives_the_base_back(before):
    adapters = drawn()
    back = merge(merge(PARAMS, adapters, SCALE), adapters, -SCALE)
    for x, y in zip(jax.tree.leaves(back), jax.tree.leaves(before), strict=True):
        close(x, y, 1e-6)


def test_only_the_targets_are_adapted(before):
    merged = merge(PARAMS, drawn(targets=("q_proj", "down_proj")), SCALE)
    changed = {
        jax.tree_util.keystr(path)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(merged), jax.tree.leaves(before), strict=True)
        if (x != y).any()
    }
    assert len(changed) == 2 and all("q_proj.kernel" in n or "down_proj.kernel" in n for n in changed), changed


def test_attached_equals_merged_with_a_cache(before):
    adapters, length = drawn(), np.array([9, 4])
    attached, keys = attach(PARAMS, adapters, SCALE), jax.random.split(jax.random.key(0))
    said = generate(MODEL, attached, TOKENS, length, keys, max_new_tokens=5, temperature=0.0).tokens
    likeliest = MODEL.unembed(PARAMS, hidden(merge(PARAMS, adapters, SCALE), said)).argmax(-1)
    for row, expected, n in zip(said, likeliest, length, strict=True):
        np.testing.assert_array_equal(row[n : n + 5], expected[n - 1 : n + 4])


def test_a_merge_that_forgot_its_scale_would_be_noticed(before, monkeypatch):
    monkeypatch.setattr(lora, "merge", lambda params, adapters, scale: merge(params, adapters, 1.0))
    with pytest.raises(AssertionError):
        close(hidden(attach(PARAMS, drawn(), SCALE), TOKENS), hidden(lora.merge(PARAMS, drawn(), SCALE), TOKENS))


# --- training


def test_gradients_are_those_of_the_adapters_alone():
    fresh = jax.tree_util.tree_map_with_path(lambda path, x: x * (path[-1].name == "a"), drawn())
    grads = jax.jit(jax.grad(lambda a: jnp.sum(MODEL.hidden(attach(PARAMS, a, SCALE), TOKENS) ** 3)))(fresh)
    assert jax.tree.structure(grads) == jax.tree.structure(fresh)
    for name in TARGETS:  # where B is zero, A has no slope yet and B has one
        assert not grads[name].a.any() and jnp.abs(grads[name].b).max() > 1e-3


SETTINGS = LMConfig(lora_rank=RANK, lora_alpha=6.0, lora_targets=("q_proj", "up_proj"), logit_chunk=None)


def test_what_is_trained(key, before):
    tuned = trained(SETTINGS, PARAMS)
    assert set(jax.eval_shape(tuned.init, key)) == {"q_proj", "up_proj"}
    adapters = drawn(targets=SETTINGS.lora_targets)
    close(hidden(tuned.model(adapters), TOKENS), hidden(attach(PARAMS, adapters, 6.0 / RANK), TOKENS), 0)
    assert_same(tuned.merged(adapters), merge(PARAMS, adapters, 6.0 / RANK))
    whole = trained(LMConfig(), PARAMS)
    for made in (whole.init(key), whole.model(PARAMS), whole.merged(PARAMS)):
        assert_same(made, PARAMS)


def test_the_scale_by_hand():
    # α = 6, r = 4: 6/4, or rank-stabilized 6/√4
    assert scale_of(LMConfig(lora_rank=4, lora_alpha=6.0)) == 1.5
    assert scale_of(LMConfig(lora_rank=4, lora_alpha=6.0, lora_rank_stabilized=True)) == 3.0


@pytest.mark.parametrize("stabilized", [False, True])
def test_training_goes_on_from_adapters_that_are_on(key, before, stabilized):
    settings = replace(SETTINGS, lora_alpha=5.0, lora_rank_stabilized=stabilized, lora_continue=True)
    adapters, scale = drawn(targets=settings.lora_targets), scale_of(settings)
    given = attach(PARAMS, adapters, scale)
    tuned = trained(settings, given)
    start = tuned.init(key)
    for name, (a, b) in adapters.items():
        np.testing.assert_array_equal(start[name].a, a)
        close(start[name].b, b, 1e-7)
    close(hidden(tuned.model(start), TOKENS), hidden(given, TOKENS), 1e-6)
    # what comes after replaces them, and is not added to them
    after = drawn(1, settings.lora_targets)
    close(hidden(tuned.model(after), TOKENS), hidden(attach(PARAMS, after, scale), TOKENS), 0)
    assert_same(tuned.merged(after), merge(PARAMS, after, scale))
    assert_same(jax.tree.map(np.asarray, PARAMS), before)


def test_adapters_that_are_on_are_not_trained_over_or_forgotten():
    given = attach(PARAMS, drawn(targets=SETTINGS.lora_targets), 2.0)
    for settings in (LMConfig(), SETTINGS):
        with pytest.raises(ValueError, match="lora_continue = False, and the parameters have adapters on; set it, or"):
            trained(settings, given)
    on = replace(SETTINGS, lora_continue=True)
    with pytest.raises(ValueError, match="lora_continue = True, and the parameters have no adapters on"):
        trained(on, PARAMS)
    for settings in (replace(on, lora_rank=2), replace(on, lora_targets=("q_proj",))):
        with pytest.raises(
            ValueError, match=r"have rank 3 and targets \('q_proj', 'up_proj'\), and the settings lora_r"
        ):
            trained(settings, given)


def test_merging_keeps_the_precision_of_the_weights():
    narrow = jax.tree.map(lambda x: x.astype("bfloat16"), PARAMS)
    merged = merge(narrow, drawn(), SCALE)
    assert {x.dtype for x in jax.tree.leaves(merged)} == {jnp.dtype("bfloat16")}


def test_fine_tuning_keeps_state_for_adapters_only_and_leaves_the_base(before, key):
    algorithm = replace(SFT(lm=SETTINGS), learning_rate=0.1, warmup=0.0).make(MODEL, PARAMS, 10)
    rows = Completions(TOKENS, np.array([2, 3]), np.array([9, 7]), None, np.arange(2))
    batch = DataBatch(rows, jnp.ones(2))

    @jax.jit
    def tune(learner):
        after, metrics = algorithm.update(key, learner, batch)
        return after, metrics["loss"].value, algorithm.measure(key, after, batch)["loss"].value

    learner = jax.jit(algorithm.init)(key)
    adapters = learner.trained
    assert isinstance(adapters["q_proj"], Adapter)
    numbers = sum(x.size for x in jax.tree.leaves(adapters))
    assert sum(x.size for x in jax.tree.leaves(learner.opt_state)) == 2 * numbers + 1  # two moments and a count
    after, loss, loss_after = tune(learner)
    for name in SETTINGS.lora_targets:
        np.testing.assert_array_equal(after.trained[name].a, adapters[name].a)
        assert after.trained[name].b.any()
    assert_same(jax.tree.map(np.asarray, PARAMS), before)
    assert loss_after < loss - 0.01


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (0, TARGETS, "lora_rank = 0; adapters need at least 1"),
        (2, ("q_porj",), r"no projection 'q_porj'; did you mean 'q_proj'\?; there are"),
        (2, ("head",), "no projection 'head'; there are"),
    ],
)
def test_mistakes_are_sentences(rank, targets, message, key):
    with pytest.raises(ValueError, match=message):
        init_adapters(key, PARAMS, rank, targets)
    if rank:
        with pytest.raises(ValueError, match=message):
            trained(LMConfig(lora_rank=rank, lora_targets=targets), PARAMS)
