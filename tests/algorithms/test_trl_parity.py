"""DPO and KTO against TRL: twenty updates of its trainers on a tiny Llama, written to golden/ by scripts/oracle_trl.py.

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

from jaxrl import replace
from jaxrl.algorithms import DPO, KTO, dpo, kto
from jaxrl.data import Completions, DataBatch, Pairs
from jaxrl.lm import log_probs, reference
from jaxrl.lm.log_probs import completion_scores
from jaxrl.lm.pretrained.hf_config import from_hf_config
from jaxrl.lm.pretrained.weights import from_hf_tensors, to_hf_tensors
from jaxrl.lm.transformer import language_model
from jaxrl.ops import losses
from jaxrl.ops.minibatch import take
from tests.algorithms.test_dpo import NAMES, PLAIN, loss_number
from tests.lm.test_parity import digest, tensor

STEPS, BATCH, WIDTH = 20, 4, 24
CONSTANT = {"learning_rate": 1e-3, "warmup": 0.0, "lr_final": 1.0, "adam_eps": 1e-6, "batch_size": BATCH}
CONFIGS = {
    "dpo": DPO(lm=PLAIN),
    "dpo_tied": DPO(),  # the vocabulary in pieces
    "cdpo": DPO(lm=PLAIN, label_smoothing=0.2),
    "ipo": DPO(lm=PLAIN, loss="ipo_mean"),
    "hinge": DPO(lm=PLAIN, loss="hinge"),
    "robust": DPO(lm=PLAIN, loss="robust", label_smoothing=0.2),
    "apo_zero": DPO(lm=PLAIN, loss="apo_zero"),
    "kto": replace(KTO(lm=PLAIN, undesirable_weight=1.33), micro_batch_size=2),
    "apo_zero_unpaired": KTO(lm=PLAIN, kl=False),
}
CONFIGS = {name: replace(config, **CONSTANT) for name, config in CONFIGS.items()}


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


def cyclic(key, rows, real):
    """What TRL does in place of a draw: row k's prompt with the completion of row k - 1, whatever their prompts."""
    return (jnp.arange(BATCH) - 1) % BATCH, jnp.ones(BATCH, bool)


def rows_of(g):
    return completions(g.rows, "completion") if "label" in g.rows[0] else Pairs(*(
        completions(g.rows, side) for side in ("chosen", "rejected")
    ))  # fmt: skip


@functools.cache
def compiled(model, dtype, static, count, mutant):
    """`count` updates as one compiled function of (config, number of the loss, parameters, reference, rows, batches):
    (parameters after the last, records). count = 1 only measures.

    static: the config without its floats. mutant: tells apart programs of a patched library.
    """
    model = language_model(model, dtype=dtype)

    def run(config, which, params, reference, rows, order):
        algorithm = config.make(model, reference, STEPS)
        key, weight = jax.random.key(0), jnp.ones(BATCH, model.dtype)
        learner = algorithm.init(key)._replace(trained=params)

        def step(learner, chosen):
            batch = DataBatch(take(rows, chosen), weight)
            found = scores(model, {"policy": learner.trained, "reference": reference}, batch.rows)
            if count == 1:
                return learner, (algorithm.measure(key, learner, batch), found)
            with loss_number(which):
                learner, metrics = algorithm.update(key, learner, batch)
            return learner, (metrics, found)

        learner, records = jax.lax.scan(step, learner, order)
        return learner.trained, records

    return jax.jit(run)


def scores(model, params, rows):
    """Log-probabilities, summed, as the record names them, under {who: parameters}; of KTO also of mismatched pairs."""
    sides = {"_chosen": rows[0], "_rejected": rows[1]} if isinstance(rows, Pairs) else {"": rows}
    if len(jax.tree.leaves(rows)[0]) == BATCH and "" in sides:
        wide = rows._replace(tokens=jnp.pad(rows.tokens, ((0, 0), (0, WIDTH))), label=None)
        sides = {"": wide, "_kl": kto.cross(rows, (jnp.arange(BATCH) - 1) % BATCH, WIDTH)}
    together = jax.tree.map(lambda *x: jnp.stack(x), *sides.values())
    models = jax.tree.map(lambda *x: jnp.stack(x), *params.values())
    score = jax.vmap(jax.vmap(lambda p, rows: completion_scores(model, p, rows, None).log_prob, (None, 0)), (0, None))
    found = score(models, together)
    return {f"{who}{side}": found[i, j] for i, who in enumerate(params) for j, side in enumerate(sides)}


final = jax.jit(lambda model, params, rows: scores(model, {"policy": params}, rows), static_argnums=0)


def drive(name, dtype="float32", reference=None, count=STEPS, mutant=None):
    """Parameters after `count` updates, and the records of these.

    reference: parameters to compare with, by default those that the updates start from.
    """
    g, config = golden(name), CONFIGS[name]
    config = replace(config, lm=replace(config.lm, dtype=dtype))
    params = jax.tree.map(lambda x: x.astype(dtype), g.params)
    which = NAMES.index(config.loss) if isinstance(config, DPO) else 0
    if isinstance(config, DPO):
        config = replace(config, loss="dpo")
    order = np.array([step["rows"] for step in g.steps[:count]])
    run = compiled(g.model, dtype, jax.tree.structure(config), count, mutant)
    return run(config, which, params, params if reference is None else reference, rows_of(g), order)


def difference(found, expected):
    """Largest, relative to what is large."""
    expected = np.asarray(expected, np.float64)
    error = np.abs(np.asarray(found, np.float64) - expected) / np.maximum(1.0, np.abs(expected))
    return np.max(error, initial=0.0)


METRICS = {
    "loss": "loss", "grad_norm": "grad_norm", "kl_raw": "z0_raw", "kl": "z0",
    "rewards_chosen": "rewards/chosen", "rewards_rejected": "rewards/rejected", "margin": "rewards/margin",
    "accuracy": "rewards/accuracy", "logps_chosen": "logps/chosen", "logps_rejected": "logps/rejected",
}  # fmt: skip


def differences(name, records):
    """Of every number of every step that the record and this library both have: name -> largest difference."""
    metrics, sums = records
    count, recorded = len(metrics["loss"].total), golden(name).steps[0]
    found = sums | {theirs: metrics[ours].value for theirs, ours in METRICS.items() if ours in metrics}
    found = {key: np.asarray(values) for key, values in found.items() if key in recorded}
    worst = {}
    for key, values in found.items():
        expected = [step[key] for step in golden(name).steps[:count]]
        there = np.array([x is not None for x in expected])  # a class that is not in the batch has no rewards
        assert (np.isnan(values).reshape(count, -1).any(1) == ~there).all(), key
        if key == "accuracy":  # at the start all margins are 0, up to a rounding that decides which way it is
            there[0] = False
        worst[key] = difference(values[there], [x for x, known in zip(expected, there, strict=True) if known])
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
    trained, records = drive(name)
    worst = differences(name, records)
    wanted = {"loss", "grad_norm", "rewards_chosen", "rewards_rejected", "margin", "logps_chosen", "logps_rejected"}
    wanted |= {"policy", "reference"} if "label" in golden(name).rows[0] else {"policy_chosen", "accuracy"}
    assert wanted <= set(worst) and ("kl_raw" in worst) == (name == "kto")
    assert max(worst.values()) < 2e-5, worst
    g = golden(name)
    after = final(language_model(g.model), trained, rows_of(g))
    assert set(after) == set(g.final)
    assert max(difference(after[key], g.final[key]) for key in after) < 1e-5
    tensors = {k: np.asarray(v, np.float64) for k, v in to_hf_tensors(g.model, trained).items()}
    for p in g.parameters:
        value = tensors[p["name"]]
        figures = {"sum": value.sum(), "abs_sum": np.abs(value).sum(), "first": value.flatten()[:4]}
        figures["moved"] = np.abs(value - g.tensors[p["name"]]).sum()
        for what, found in figures.items():
            assert difference(found, p[what]) < 5e-5, (p["name"], what)


def test_in_float64_the_differences_vanish(name="kto"):
    # what is left is TRL's clipping, by 1 / (norm + 1e-6)
    with jax.enable_x64(True):
        metrics, sums = drive(name, "float64")[1]
    assert {x.dtype for x in jax.tree.leaves((metrics["loss"], sums))} == {np.dtype(np.float64)}
    exact = golden(name).float64
    for what in ("loss", "grad_norm"):
        assert difference(metrics[what].value, exact[what]) < 1e-6, what


# --- mutants: the comparison above notices each of these mistakes before the first update

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
    # record, what is replaced by what
    "means for sums": ("dpo", (reference, "completion_scores", averaged)),
    "the end token masked out": ("dpo", (log_probs, "completion_mask", without_end)),
    "the reference left out": ("dpo", (dpo.LOSSES, "dpo", dpo.Loss(without_reference))),
    "the reference rounded to bfloat16": ("dpo", None),
    "the reference rounded to bfloat16, KTO": ("kto", None),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_noticed(monkeypatch, mutant):
    name, change = MUTANTS[mutant]
    if change:
        owner, attribute, wrong = change
        (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, attribute, wrong)
    reference = None if change else rounded(golden(name).params)
    worst = differences(name, drive(name, reference=reference, count=1, mutant=mutant)[1])
    assert max(worst.values()) > 1e-4, worst


def test_without_a_change_that_comparison_holds():
    for name in ("dpo", "kto"):
        worst = differences(name, drive(name, count=1)[1])
        assert "loss" in worst and max(worst.values()) < 1e-5, worst
