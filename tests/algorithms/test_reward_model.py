"""A reward model: one loss however pairs are cut, padded and grouped; figures by hand; and one that learns, is saved,
and says the same when it is read again.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import replace, train
from jaxrl.algorithms import SFT, Reward
from jaxrl.algorithms.reward_model import BINS, binned, body, exported, reliability, told
from jaxrl.data import Data, DataBatch, DataConfig, prepare
from jaxrl.data.preferences import grouped_by_prompt
from jaxrl.lm import LMConfig, load_model, save_model
from jaxrl.lm.heads import last_scores, token_scores, with_head
from jaxrl.ops import metrics as m
from jaxrl.runs.finetuning import finetune
from jaxrl.training.programs import program
from tests.algorithms.test_dpo import pairs
from tests.algorithms.test_sft import MODEL, PARAMS
from tests.helpers.compare import close
from tests.helpers.families import FAMILIES, assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

PLAIN = LMConfig(logit_chunk=None)
HEAD = jnp.asarray(np.random.default_rng(3).normal(0, 0.3, (MODEL.config.hidden_size, 1)), jnp.float32)
SCORED = with_head(PARAMS, HEAD)
ROWS = pairs(12, 10, 0)
SETTINGS = replace(Reward(lm=PLAIN), batch_size=4, epochs=20, learning_rate=3e-3)


def batch_of(rows, weight=None):
    rows = jax.tree.map(jnp.asarray, rows)
    count = rows.chosen.length.shape[0]
    return DataBatch(rows, jnp.ones(count) if weight is None else jnp.asarray(weight, jnp.float32))


def measured(config, batch, params=SCORED):
    algorithm = config.make(MODEL, params, 10)
    return jax.jit(algorithm.measure)(jax.random.key(0), algorithm.init(jax.random.key(0)), batch)


def gradient(config, batch, params=SCORED):
    """Of the first update with Adam's ε so large that it steps along the gradient."""
    config = replace(config, adam_eps=1e3, warmup=0.0, lr_final=1.0, learning_rate=1.0, max_grad_norm=float("inf"))
    algorithm = config.make(MODEL, params, 10)
    learner = algorithm.init(jax.random.key(0))
    after = jax.jit(algorithm.update)(jax.random.key(0), learner, batch)[0].trained
    return jax.tree.map(lambda a, b: 1e3 * (a - b), learner.trained, after)


def test_the_loss_and_its_figures_by_definition():
    batch = batch_of(ROWS)
    config = replace(SETTINGS, margin=0.3, centring=0.1)
    chosen, rejected = (
        np.array([token_scores(MODEL, PARAMS, HEAD, side.tokens)[i, n - 1] for i, n in enumerate(side.length)])
        for side in batch.rows
    )
    losses = np.log1p(np.exp(-(chosen - rejected - 0.3))) + 0.1 * (chosen + rejected) ** 2
    found = told(measured(config, batch))
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((chosen > rejected).mean())
    assert found["margin"] == pytest.approx((chosen - rejected).mean(), abs=1e-5)


def test_padding_and_what_stands_in_it_and_who_else_is_in_the_batch_change_nothing():
    one = jax.tree.map(lambda x: x[:1], ROWS)
    wide = jax.tree.map(lambda x: np.pad(x, ((0, 0), (0, 5)), constant_values=7) if x.ndim == 2 else x, one)
    twice = jax.tree.map(lambda x, y: np.concatenate([x, y]), one, jax.tree.map(lambda x: x[1:2], ROWS))
    alone, padded, beside = (
        told(measured(SETTINGS, batch))["loss"] for batch in (batch_of(one), batch_of(wide), batch_of(twice, [1, 0]))
    )
    assert alone == pytest.approx(padded, abs=1e-5) and alone == pytest.approx(beside, abs=1e-5)


@pytest.mark.parametrize("micro", [1, 2, 6])
def test_micro_batches_change_no_gradient(micro):
    batch = batch_of(ROWS, [1] * 9 + [0] * 3)
    whole, parts = (gradient(replace(SETTINGS, micro_batch_size=size), batch) for size in (None, micro))
    close(whole, parts, atol=2e-4)


def test_groups_hold_every_pair_once_and_change_no_gradient_of_a_batch():
    ids = np.array([0, 1, 0, 2, 0, 0, 1, 2, 3, 0, 4, 4])
    rows = jax.tree.map(lambda x: x, ROWS)
    rows = rows._replace(**{side: getattr(rows, side)._replace(prompt_id=ids) for side in ("chosen", "rejected")})
    groups = grouped_by_prompt(rows, 3)
    assert groups.chosen.tokens.shape == (6, 3, 10)  # of prompt 0, which has five pairs, two
    real = groups.chosen.length > 0
    assert real.sum() == 12
    assert all(len(set(own[there])) == 1 for own, there in zip(groups.chosen.prompt_id, real, strict=True))
    found = {row.tobytes() for row in groups.rejected.tokens[real]}
    assert found == {row.tobytes() for row in rows.rejected.tokens}
    close(gradient(SETTINGS, batch_of(rows)), gradient(SETTINGS, batch_of(groups)), atol=2e-4)
    flat, grouped = (told(measured(SETTINGS, batch_of(x))) for x in (rows, groups))
    assert flat == pytest.approx(grouped, abs=1e-5)


def test_calibration_by_hand():
    """Four sure pairs, of which one is wrong, and two that are tossed up."""
    sure = np.log(0.97 / 0.03)
    margin = jnp.array([sure, sure, sure, -sure, 1e-3, -1e-3, 50.0])
    found = {"loss": m.mean(margin)} | binned(margin, jnp.arange(7) < 6)
    assert [(row["pairs"], round(row["confidence"], 3), row["accuracy"]) for row in reliability(found)] == [
        (2, 0.5, 0.5),
        (4, 0.97, 0.75),
    ]
    assert told(found)["ece"] == pytest.approx(4 / 6 * 0.22 + 2 / 6 * 0.00025, abs=1e-4)
    assert found["bin_accuracy"].count.shape == (BINS,)


def test_one_that_scores_all_alike_tosses_coins_and_is_calibrated():
    found = {"loss": m.mean(jnp.zeros(6))} | binned(jnp.zeros(6), jnp.ones(6, bool))
    assert told(found)["ece"] == 0.0
    assert reliability(found) == [{"confidence": 0.5, "accuracy": 0.5, "pairs": 6}]


@pytest.mark.parametrize(
    "lm", [PLAIN, LMConfig(logit_chunk=None, lora_rank=4, lora_targets=("q_proj", "v_proj", "down_proj"))]
)
def test_it_learns_what_is_preferred_and_knows_it_of_pairs_it_has_not_seen(lm):
    config = replace(SETTINGS, lm=lm, batch_size=16, learning_rate=3e-3)
    data = Data((pairs(64, 10, 1),), (pairs(64, 10, 2),))
    state, _ = jax.jit(lambda key: train(config, key, network=MODEL, params=PARAMS, data=data))(jax.random.key(0))
    p = program(config, network=MODEL, params=PARAMS, data=data)
    figures = p.evaluators[0].read("", p.evaluators[0].measure(jax.random.key(0), state.learner, 0))
    assert figures["accuracy"] >= 0.9 and figures["loss"] < 0.35
    assert 0 <= figures["ece"] <= 0.2


def test_it_starts_at_ln_2_and_a_bad_start_is_said(tmp_path):
    found = told(measured(SETTINGS, batch_of(ROWS), PARAMS))
    assert found["loss"] == pytest.approx(np.log(2), abs=1e-6)
    with pytest.raises(ValueError, match="the loss starts at nan"):
        SETTINGS.check_start({"loss": float("nan")})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_one_says_the_same_and_is_no_model_that_speaks(tmp_path, family):
    config = config_of(family)
    head = jnp.asarray(np.random.default_rng(0).normal(size=(config.hidden_size, 1)), jnp.float32)
    params = with_head(params_of(config), head)
    save_model(tmp_path / "a", config, params, byte_tokenizer())
    found = load_model(tmp_path / "a", score=True)
    np.testing.assert_array_equal(found.params.score.kernel[...], head)
    assert_same(body(found.params).layers, params.layers)
    with pytest.raises(ValueError, match="is a reward model, and one that speaks is needed here"):
        load_model(tmp_path / "a")
    save_model(tmp_path / "b", config, params_of(config))
    with pytest.raises(ValueError, match="is none, and a reward model is needed here"):
        load_model(tmp_path / "b", score=True)


def test_from_a_folder_and_rows_to_a_folder_and_on_from_there(tmp_path):
    tokenizer = byte_tokenizer()
    config = config_of("llama", vocab_size=300, num_hidden_layers=1)
    save_model(tmp_path / "lm", config, params_of(config), tokenizer)
    rows = [{"prompt": "Say: ", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(24)]
    asked = Reward(lm=LMConfig(str(tmp_path / "lm"), lora_rank=4, logit_chunk=None))
    asked = replace(asked, batch_size=8, epochs=2, learning_rate=1e-2)
    tuned = finetune(asked, rows, run_dir=tmp_path / "run", progress=False)
    assert {"accuracy", "ece", "loss_before"} <= set(tuned.result.figures)
    assert (tmp_path / "run" / "held_out.jsonl").read_text().count("confidence") >= 2
    saved = load_model(tuned.folder, score=True)
    row = pairs(3, 10, 5).chosen
    model, merged = tuned.model, tuned.params
    mine = last_scores(model, merged, merged.score.kernel[...], row)
    np.testing.assert_allclose(mine, last_scores(model, saved.params, saved.params.score.kernel[...], row), atol=1e-6)
    on = replace(asked, lm=LMConfig(str(tuned.folder), logit_chunk=None), max_updates=1, learning_rate=0.0)
    again = finetune(on, rows, run_dir=tmp_path / "on", progress=False)
    assert again.result.figures["loss"] == pytest.approx(tuned.result.figures["loss"], abs=1e-5)
    with pytest.raises(ValueError, match="adapter_only saves adapters alone, without the head of a reward model"):
        finetune(asked, rows, adapter_only=True, run_dir=tmp_path / "no")
    with pytest.raises(ValueError, match="is a reward model, which does not speak"):
        finetune(SFT(lm=LMConfig(str(tuned.folder))), [{"prompt": "a", "completion": "b"}] * 3, run_dir=tmp_path / "no")


def test_answers_alone_are_refused():
    with pytest.raises(ValueError, match="a reward model learns from {prompt, chosen, rejected}"):
        SETTINGS.check_data(Data((ROWS.chosen,)))


def test_adapters_are_merged_into_what_is_exported():
    config = replace(SETTINGS, lm=LMConfig(logit_chunk=None, lora_rank=2))
    algorithm = config.make(MODEL, SCORED, 4)
    learner = algorithm.init(jax.random.key(0))
    learner = learner._replace(trained=jax.tree.map(lambda x: x + 0.05, learner.trained))
    made, row = exported(config, SCORED, learner), ROWS.chosen
    found = told(algorithm.measure(jax.random.key(0), learner, batch_of(ROWS)))["rewards/chosen"]
    mine = last_scores(MODEL, made, made.score.kernel[...], row)
    assert float(mine.mean()) == pytest.approx(found, abs=1e-4)


def test_a_score_is_learned_at_the_token_that_a_policy_ends_with():
    """Of a chat, whose template writes a line break after it."""
    tokenizer, asked = byte_tokenizer(), [{"role": "user", "content": "Is it?"}]
    rows = [{"prompt": asked, "chosen": [_said("yes")], "rejected": [_said("no")]}] * 2
    chosen = prepare(DataConfig(held_out=0.0), tokenizer, rows, learns_from=Reward.learns_from).data.train[0].chosen
    said = [*tokenizer.encode_chat(asked), *tokenizer.encode_inside("yes"), tokenizer.eos]
    assert chosen.tokens[0, : chosen.length[0]].tolist() == said


def _said(text):
    return {"role": "assistant", "content": text}
