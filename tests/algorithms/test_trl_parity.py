"""DPO and KTO against TRL: twenty updates of its trainers on a tiny Llama, which scripts/oracle_trl.py wrote to golden/.

Losses, gradient norms, rewards and log-probabilities of every update, before it is made; then what was learned.
"""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import losses, replace
from jaxrl.algorithms import DPO, KTO, dpo, kto
from jaxrl.data import Completions, DataBatch, Pairs
from jaxrl.lm import log_probs
from jaxrl.lm.hf_config import from_hf_config
from jaxrl.lm.log_probs import completion_scores
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.transformer import language_model
from jaxrl.lm.weights import from_hf_tensors, to_hf_tensors
from jaxrl.minibatch import take
from tests.lm.test_parity import digest, tensor

STEPS, BATCH, WIDTH = 20, 4, 24
PLAIN = LMConfig(logit_chunk=None)
CONSTANT = {"learning_rate": 1e-3, "warmup": 0.0, "lr_final": 1.0, "adam_eps": 1e-6, "batch_size": BATCH, "lm": PLAIN}
CONFIGS = {
    "dpo": DPO(**CONSTANT),
    "dpo_tied": replace(DPO(**CONSTANT), lm=LMConfig()),  # the vocabulary in pieces
    "cdpo": DPO(label_smoothing=0.2, **CONSTANT),
    "ipo": DPO(loss="ipo_mean", **CONSTANT),
    "hinge": DPO(loss="hinge", **CONSTANT),
    "robust": DPO(loss="robust", label_smoothing=0.2, **CONSTANT),
    "apo_zero": DPO(loss="apo_zero", micro_batch_size=2, **CONSTANT),
    "kto": KTO(undesirable_weight=1.33, **CONSTANT),
    "apo_zero_unpaired": KTO(kl=False, **CONSTANT),
}


@functools.cache
def golden(name):
    """The record, and the model that the oracle started from."""
    g = json.loads((Path(__file__).parent / "golden" / f"trl_{name}.json").read_text(encoding="utf-8"))
    config = from_hf_config(g["config"])
    shapes = {p["name"]: p["shape"] for p in g["parameters"]}
    tensors = {name: tensor(name, shape) for name, shape in shapes.items()}
    return SimpleNamespace(**g, tensors=tensors, model=config, params=from_hf_tensors(config, tensors))


def completions(rows, name):
    """Rows of ids, padded with the token that also ends a text."""
    tokens = [row["prompt"] + row[name] for row in rows]
    prompts = [tuple(row["prompt"]) for row in rows]
    return Completions(
        np.array([t + [0] * (WIDTH - len(t)) for t in tokens], np.int32),
        np.array([len(prompt) for prompt in prompts], np.int32),
        np.array([len(t) for t in tokens], np.int32),
        np.array([row["label"] for row in rows], np.float32) if "label" in rows[0] else None,
        np.array([prompts.index(prompt) for prompt in prompts], np.int32),
    )


def scores_of(g, batch):
    """(params) -> log-probabilities, summed, as the record names them."""

    def score(model, params, rows):
        return completion_scores(model, params, rows, None).log_prob

    if isinstance(batch, Completions):
        other = (jnp.arange(BATCH) - 1) % BATCH
        crossed = kto.cross(batch, other, WIDTH)
        found = {"": batch, "_kl": crossed} if "kl_raw" in g.steps[0] else {"": batch}
    else:
        found = {"_chosen": batch.chosen, "_rejected": batch.rejected}
    return lambda model, who, params: {f"{who}{side}": score(model, params, rows) for side, rows in found.items()}


def cyclic(key, prompt_id, real):
    """What TRL does in place of a draw: row k's prompt with the completion of row k - 1, whatever their prompts."""
    return (jnp.arange(BATCH) - 1) % BATCH, jnp.ones(BATCH, bool)


def rows_of(g):
    return completions(g.rows, "completion") if "label" in g.rows[0] else Pairs(*(
        completions(g.rows, side) for side in ("chosen", "rejected")
    ))  # fmt: skip


def drive(name, dtype="float32", config=None, reference=None, count=STEPS):
    """Records of `count` updates, and (parameters, their log-probabilities of all rows) after the last.

    count = 1 only measures. reference: parameters to compare with, by default those that the updates start from.
    """
    g, config = golden(name), config or CONFIGS[name]
    model, rows = language_model(g.model, dtype=dtype), rows_of(g)
    params = jax.tree.map(lambda x: x.astype(dtype), g.params)
    order = np.array([step["rows"] for step in g.steps[:count]])

    @jax.jit
    def run(params, reference, rows, order):
        algorithm = config.make(model, reference, STEPS)
        key, weight = jax.random.key(0), jnp.ones(BATCH, dtype)
        learner = algorithm.init(key)._replace(trained=params)

        def step(learner, chosen):
            batch = DataBatch(take(rows, chosen), weight)
            scores = scores_of(g, batch.rows)
            found = scores(model, "policy", learner.trained) | scores(model, "reference", reference)
            if count == 1:
                return learner, (algorithm.measure(learner, batch), found)
            learner, metrics = algorithm.update(key, learner, batch)
            return learner, (metrics, found)

        learner, records = jax.lax.scan(step, learner, order)
        sides = {"": rows} if isinstance(rows, Completions) else {"_chosen": rows.chosen, "_rejected": rows.rejected}
        final = {f"policy{s}": completion_scores(model, learner.trained, x, None).log_prob for s, x in sides.items()}
        return learner.trained, final, records

    return run(params, params if reference is None else reference, jax.tree.map(jnp.asarray, rows), order)


def difference(found, expected):
    """Largest, relative to what is large."""
    expected = np.asarray(expected, np.float64)
    return np.max(np.abs(np.asarray(found, np.float64) - expected) / np.maximum(1.0, np.abs(expected)))


METRICS = {
    "loss": "loss", "grad_norm": "grad_norm", "rewards_chosen": "rewards/chosen", "rewards_rejected": "rewards/rejected",
    "margin": "rewards/margin", "accuracy": "rewards/accuracy", "logps_chosen": "logps/chosen",
    "logps_rejected": "logps/rejected", "kl_raw": "z0_raw", "kl": "z0",
}  # fmt: skip


def differences(name, records):
    """Of every number of every step that the record and this library both have: name -> largest difference."""
    metrics, scores = records
    count = len(jax.tree.leaves(scores)[0])
    found = {k: np.asarray(v) for k, v in scores.items()} | {
        ours: np.asarray(metrics[theirs].value) for ours, theirs in METRICS.items() if theirs in metrics
    }
    worst = {}
    for key, values in found.items():
        expected = [step[key] for step in golden(name).steps[:count]]
        there = np.array([x is not None for x in expected])  # a class that is not in the batch has no rewards
        assert (np.isnan(values).reshape(count, -1).any(1) == ~there).all(), key
        worst[key] = difference(values[there], [x for x in expected if x is not None])
    return worst


@pytest.fixture(autouse=True)
def trl_pairs(monkeypatch):
    monkeypatch.setattr(kto, "mismatch", cyclic)


def test_the_records_are_of_this_recipe():
    for name in CONFIGS:
        g = golden(name)
        assert (g.recipe, digest(g.tensors)) == ("pcg64-uniform-v1", g.sha256)
        assert from_hf_config(g.hub_config) == g.model
        assert len(g.steps) == STEPS and g.loss["beta"] == CONFIGS[name].beta
        assert max(len(r["prompt"]) + len(r[k]) for r in g.rows for k in r if k not in ("prompt", "label")) <= WIDTH
    for step in golden("kto").steps:
        assert step["kl_completions"] == [*step["rows"][-1:], *step["rows"][:-1]]


@pytest.mark.parametrize("name", CONFIGS)
def test_twenty_updates_are_those_of_trl(name):
    trained, final, records = drive(name)
    worst = differences(name, records)
    wanted = {"loss", "grad_norm", "rewards_chosen", "rewards_rejected"}
    wanted |= {"policy", "reference"} if "label" in golden(name).rows[0] else {"policy_chosen", "margin", "accuracy"}
    assert wanted <= set(worst) and ("kl_raw" in worst) == (name == "kto")
    assert max(worst.values()) < 1e-5, worst
    g = golden(name)
    assert difference(list(final.values()), list(g.final.values())) < 1e-5
    tensors = {k: np.asarray(v, np.float64) for k, v in to_hf_tensors(g.model, trained).items()}
    for p in g.parameters:
        value = tensors[p["name"]]
        figures = {"sum": value.sum(), "abs_sum": np.abs(value).sum(), "first": value.flatten()[:4]}
        figures["moved"] = np.abs(value - g.tensors[p["name"]]).sum()
        for what, found in figures.items():
            assert difference(found, p[what]) < 5e-5, (p["name"], what)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_in_float64_the_differences_vanish(name):
    # what is left is TRL's clipping, by 1 / (norm + 1e-6)
    with jax.enable_x64(True):
        config = replace(CONFIGS[name], lm=LMConfig(dtype="float64", logit_chunk=None))
        metrics, scores = drive(name, "float64", config)[2]
    assert {x.dtype for x in jax.tree.leaves((metrics, scores))} == {np.dtype(np.float64)}
    exact = golden(name).float64
    for what in ("loss", "grad_norm"):
        assert difference(metrics[what].value, exact[what]) < 1e-6, what


# --- mutants: the comparison above notices each of these mistakes, most of them before the first update

mask = log_probs.completion_mask


def averaged(*args):
    scores = completion_scores(*args)
    return scores._replace(log_prob=scores.mean_log_prob)


def without_end(rows):
    return mask(rows._replace(length=rows.length - 1))


def without_reference(c, pair):
    return losses.dpo_loss(pair.chosen, pair.rejected, jnp.zeros(BATCH), jnp.zeros(BATCH), c.beta)


def rounded(params):
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)


MUTANTS = {
    # record, updates, what is replaced by what
    "means for sums": ("dpo", 1, (dpo, "completion_scores", averaged)),
    "the end token masked out": ("dpo", 1, (log_probs, "completion_mask", without_end)),
    "the reference left out": ("dpo", 1, (dpo.LOSSES, "dpo", without_reference)),
    "the reference rounded to bfloat16": ("dpo", 1, None),
    "means for sums, KTO": ("kto", 3, (kto, "completion_scores", averaged)),
    "the reference rounded to bfloat16, KTO": ("kto", 1, None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_noticed(monkeypatch, mutant):
    name, count, change = MUTANTS[mutant]
    if change:
        owner, attribute, wrong = change
        (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, attribute, wrong)
    reference = None if change else rounded(golden(name).params)
    worst = differences(name, drive(name, reference=reference, count=count)[2])
    assert max(worst.values()) > 1e-4, worst


def test_without_a_change_that_comparison_holds():
    for name in ("dpo", "kto"):
        worst = differences(name, drive(name, count=1)[2])
        assert "loss" in worst and max(worst.values()) < 1e-5, worst
