"""Direct preference optimisation: one loss however rows are cut and whatever the reference is kept as; settings that
mean what they say; and a run that can be stopped anywhere.
"""

import functools
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl import Schedule, axes, replace, run, stack, train
from jaxrl.algorithms import DPO
from jaxrl.algorithms.dpo import LOSSES, REFERENCE_FREE, SOME_READ, Loss, Pair
from jaxrl.data import Completions, Data, DataBatch, DataConfig, Pairs
from jaxrl.lm import LMConfig, save_model
from jaxrl.lm.lora import Adapter, merge
from jaxrl.lm.reference import with_reference
from jaxrl.ops import metrics as m
from jaxrl.ops.platform import compiler_options
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import logs
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.finetuning import finetune
from jaxrl.settings import check, float32
from jaxrl.training.programs import program
from tests.algorithms.test_sft import MODEL, PARAMS, joined, shuffled
from tests.helpers.compare import close, compile_events, same_bytes
from tests.helpers.families import assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

PLAIN = LMConfig(logit_chunk=None)

# A model without attention, for what a transformer adds nothing to: logits are a function of the token before.
BIGRAM = MODEL._replace(hidden=lambda p, tokens: p["embed"][tokens], unembed=lambda p, hidden: hidden @ p["head"])


def bigram_params(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"embed": (23, 8), "head": (8, 23)}
    return {name: jnp.asarray(0.5 * rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}


def pairs(count, width, seed):
    """Prompts of 1 to 3 numbers that count up; the chosen answer goes on, the rejected one goes in threes."""
    rng = np.random.default_rng(seed)
    start, prompt_length = rng.integers(0, 23, count), rng.integers(1, 4, count).astype(np.int32)
    place, last = np.arange(width), prompt_length[:, None] - 1
    prompt_id = (4 * start + prompt_length).astype(np.int32)

    def side(stride):
        length = rng.integers(4, width + 1, count).astype(np.int32)
        tokens = start[:, None] + np.minimum(place, last) + stride * np.maximum(place - last, 0)
        tokens = np.where(place < length[:, None], tokens % 23, 0).astype(np.int32)
        return Completions(tokens, prompt_length, length, None, prompt_id)

    return Pairs(side(1), side(3))


def moved(params, scale=0.05):
    """Other parameters than the reference's: at the start, where both are equal, most mistakes cancel."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: x + scale * rng.normal(size=x.shape).astype(np.float32), params)


def gradient(learner):
    """The gradient of a first update that was not clipped: Adam's moment is 1 - β₁ of it."""
    return jax.tree.map(lambda x: x / 0.1, optax.tree.get(learner.opt_state, "mu"))


def batch_of(rows, weight=None):
    count = len(jax.tree.leaves(rows)[0])
    return DataBatch(jax.tree.map(jnp.asarray, rows), jnp.ones(count) if weight is None else jnp.asarray(weight))


# --- the loss and its gradient

BATCH = pairs(8, 10, 4)
SETTINGS = DPO(lm=PLAIN, beta=0.3, label_smoothing=0.1, nll_coef=0.2)
SETTINGS = replace(SETTINGS, batch_size=8, max_grad_norm=math.inf)


def log_prob_of(params, side):
    """Σ ln p over each completion, and how many tokens that is: dense, by the definition."""
    log_p = jax.nn.log_softmax(MODEL.apply(params, jnp.asarray(side.tokens))[:, :-1])
    taken = jnp.take_along_axis(log_p, jnp.asarray(side.tokens)[:, 1:, None], axis=-1)[..., 0]
    place = jnp.arange(1, side.tokens.shape[1])
    where = (place >= side.prompt_length[:, None]) & (place < side.length[:, None])
    return jnp.sum(taken, 1, where=where), where.sum(1)


@jax.jit
def by_definition(params, reference, batch):
    """The cDPO loss with the chosen answer's NLL, and its gradient."""

    def loss(params):
        (chosen, n), (rejected, _) = (log_prob_of(params, side) for side in batch)
        (ref_chosen, _), (ref_rejected, _) = (log_prob_of(reference, side) for side in batch)
        z = 0.3 * (chosen - ref_chosen - rejected + ref_rejected)
        return jnp.mean(-0.9 * jax.nn.log_sigmoid(z) - 0.1 * jax.nn.log_sigmoid(-z) - 0.2 * chosen / n)

    return jax.value_and_grad(loss)(params)


@functools.cache
def functions(config):
    """(init, update), compiled."""
    algorithm = config.make(MODEL, PARAMS, 10)
    return jax.jit(algorithm.init), jax.jit(algorithm.update)


def padded(batch, width):
    room = ((0, 0), (0, width - batch.chosen.tokens.shape[1]))
    wide = [side._replace(tokens=np.pad(side.tokens, room, constant_values=22)) for side in batch]
    return Pairs(*wide)


@functools.cache
def cached():
    """BATCH with the reference's log-probabilities, computed three rows at a time and read back from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npz"
        with_reference((BATCH,), path, "", MODEL, PARAMS, 3)
        return with_reference((BATCH,), path, "", MODEL, None, 3)[0]


CUTS = {
    # settings, rows, weights
    "whole": (SETTINGS, BATCH, np.ones(8)),
    "by fours, recomputed, shuffled, in a wider bucket": (
        replace(SETTINGS, micro_batch_size=4, lm=LMConfig(logit_chunk=None, remat=True)),
        padded(shuffled(BATCH, 1), 16), np.ones(8),
    ),
    "in pairs, chunks of 5, after four rows that fill up": (
        replace(SETTINGS, micro_batch_size=2, batch_size=12, lm=LMConfig(logit_chunk=5)),
        joined(pairs(4, 10, 99), BATCH), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
    ),
    "reference from a file": (replace(SETTINGS, reference="cached"), cached, np.ones(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_loss_and_gradient_are_the_same_however_the_batch_is_cut_ordered_and_padded(name, key):
    config, batch, weight = CUTS[name]
    batch = batch() if callable(batch) else batch
    init, update = functions(config)
    learner, batch = init(key), batch_of(batch, weight)
    after, metrics = update(key, learner._replace(trained=moved(PARAMS)), batch)
    loss, grads = by_definition(moved(PARAMS), PARAMS, BATCH)
    assert metrics["loss"].count == 8 and abs(metrics["rewards/margin"].value) > 0.1
    np.testing.assert_allclose(metrics["loss"].value, loss, rtol=1e-5)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    close(gradient(after), grads, 1e-5 * max(1.0, largest))
    np.testing.assert_allclose(metrics["grad_norm"].value, optax.tree.norm(grads), rtol=1e-5)
    # and at the start, with whatever reference
    _, metrics = update(key, learner, batch)
    assert abs(metrics["preference_loss"].value - math.log(2)) < 1e-6


def adapters_away_from_zero(adapters):
    rng = np.random.default_rng(5)
    return {
        k: Adapter(x.a, jnp.asarray(0.1 * rng.normal(size=x.b.shape), jnp.float32)) for k, x in adapters.items()
    }  # fmt: skip


def test_adapters_off_a_frozen_copy_and_a_file_are_one_reference(key):
    lora = replace(SETTINGS, lm=LMConfig(logit_chunk=None, lora_rank=2))
    found = {}
    for reference, rows in (("frozen", BATCH), ("cached", cached())):
        init, update = functions(replace(lora, reference=reference))
        learner = init(key)
        assert update(key, learner, batch_of(rows))[1]["rewards/margin"].value == pytest.approx(0, abs=1e-5)
        adapters = adapters_away_from_zero(learner.trained)
        after, metrics = update(key, learner._replace(trained=adapters), batch_of(rows))
        found[reference] = (gradient(after), m.values(metrics))
    close(found["frozen"], found["cached"], 2e-5)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(found["frozen"][0])) > 0.05
    # a copy of all parameters beside the same model: another program, the same numbers
    init, update = functions(SETTINGS)
    whole = merge(PARAMS, adapters, 16.0 / 2)
    _, metrics = update(key, init(key)._replace(trained=whole), batch_of(BATCH))
    same = {name: x for name, x in m.values(metrics).items() if name != "grad_norm"}
    close(same, {name: found["frozen"][1][name] for name in same}, 1e-4)


# --- every loss, and by hand

LOOSE = replace(DPO(lm=PLAIN), batch_size=8, learning_rate=0.01, max_grad_norm=math.inf)


@functools.cache
def bigram(config):
    """(learner, update, measure) of the bigram model, compiled."""
    algorithm = config.make(BIGRAM, bigram_params(), 10)
    return algorithm.init(jax.random.key(0)), jax.jit(algorithm.update), jax.jit(algorithm.measure)


NAMES, SHIPPED = list(LOSSES), tuple(LOSSES.values())


def loss_number(which):
    """All losses in one program: while it is traced, "dpo" means entry `which` of LOSSES."""
    branches = lambda c: [functools.partial(loss.function, c) for loss in SHIPPED]  # noqa: E731
    return mock.patch.dict(LOSSES, dpo=Loss(lambda c, pair: jax.lax.switch(which, branches(c), pair)))


@functools.cache
def any_loss(reference):
    """(learner, update, measure), of which the latter two take the number of a loss first."""
    config = replace(LOOSE, reference=reference)
    algorithm = config.make(BIGRAM, bigram_params(), 10)

    def update(which, *given):
        with loss_number(which):
            return algorithm.update(*given)

    def measure(which, *given):
        with loss_number(which):
            return algorithm.measure(*given)

    return algorithm.init(jax.random.key(0)), jax.jit(update), jax.jit(measure)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_a_first_step(name, key):
    which, config, batch = NAMES.index(name), replace(LOOSE, loss=name), batch_of(BATCH)
    start, update, measure = any_loss("frozen")
    before = floats(measure(which, key, start, batch))
    config.check_start(before)
    after, metrics = update(which, key, start, batch)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((after, metrics)))
    assert 1e-3 < metrics["grad_norm"].value < 1e4
    assert floats(measure(which, key, after, batch))["loss"] < before["loss"]
    away = start._replace(trained=moved(start.trained, 0.5))
    if name in REFERENCE_FREE:
        other = any_loss("none")[1](which, key, away, batch)
        close(other[0].trained, update(which, key, away, batch)[0].trained, 1e-7)
    else:
        assert abs(before["rewards/margin"]) < 1e-6
        with pytest.raises(ValueError, match=f"the {name} loss starts at .*: policy and reference differ"):
            config.check_start(floats(measure(which, key, away, batch)))


WORN = Pair(*(jnp.asarray(x) for x in (
    [-3.0, -9.0, -2.0], [-4.0, -6.0, -8.5], [-3.5, -8.0, -2.2], [-4.4, -7.0, -8.0], [2.0, 5.0, 4.0], [3.0, 4.0, 6.0]
)))  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_what_its_record_says_and_nothing_else(name):
    loss, config = LOSSES[name], DPO(loss=name)
    value = loss.function(config, WORN)
    for setting, other in {"label_smoothing": 0.3, "gamma": 0.4}.items():
        changed = loss.function(replace(config, **{setting: other}), WORN)
        assert bool((changed != value).any()) == (setting in loss.reads), setting
    elsewhere = loss.function(config, WORN._replace(ref_chosen=WORN.ref_chosen - 1.0))
    assert bool((elsewhere != value).any()) == loss.reference
    assert set(loss.reads) <= {"label_smoothing", "gamma"} == set(SOME_READ)


@pytest.mark.parametrize("name", LOSSES)
def test_a_setting_that_the_loss_does_not_read_is_refused(name):
    for setting in SOME_READ:
        config = DPO(loss=name, **{setting: 0.4})
        swept = replace(config, **{setting: jnp.array([getattr(DPO(), setting), 0.4])})
        if setting in LOSSES[name].reads:
            check(config)
            check(swept)
            continue
        use = {"label_smoothing": "use dpo, robust or exo", "gamma": "use simpo or slic"}[setting]
        for bad in (config, swept):
            with pytest.raises(ValueError, match=f"^{setting} = 0.4 is not read by loss = '{name}'; .*, or {use}$"):
                check(bad)
        jax.jit(lambda c: (check(c), c.beta)[1])(config)  # a traced one cannot be told


def test_defaults_are_defaults_in_whatever_precision():
    for config in (float32(DPO()), stack([DPO(), DPO(beta=0.2)]), float32(DPO(lm=LMConfig(lora_rank=2)))):
        check(config)


def floats(metrics):
    return {name: float(x) for name, x in m.values(metrics).items()}


STARTS = {"dpo": math.log(2), "ipo": 25.0, "ipo_mean": 25.0, "hinge": 1.0, "sppo": 50.0}  # 1/(4τ²) = 25 for τ = 0.1


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.device
def test_where_losses_start(name, key):
    start, _, measure = any_loss("frozen")
    assert abs(measure(NAMES.index(name), key, start, batch_of(BATCH))["loss"].value / STARTS[name] - 1) < 1e-7


def in_numpy(params, side):
    """(sum, number, mean ln Σp²) of every completion of the bigram model, token by token in float64."""
    logits = np.asarray(params["embed"], np.float64) @ np.asarray(params["head"], np.float64)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    made = []
    for tokens, start, end in zip(side.tokens, side.prompt_length, side.length, strict=True):
        steps = [(tokens[t - 1], tokens[t]) for t in range(start, end)]
        squares = [np.log((np.exp(log_p[before]) ** 2).sum()) for before, _ in steps]
        made.append((sum(log_p[s] for s in steps), len(steps), np.mean(squares)))
    return np.array(made).T


def margin_in_numpy(params, reference, batch):
    chosen, rejected = (in_numpy(params, side)[0] - in_numpy(reference, side)[0] for side in batch)
    return chosen - rejected


def test_metrics_nll_and_the_policys_own_weights_by_hand(key):
    start, _, measure = bigram(replace(LOOSE, nll_coef=0.7, wpo=True))
    params = moved(start.trained, 0.3)
    found = floats(measure(key, start._replace(trained=params), batch_of(BATCH)))
    (chosen, n_w, squares_w), (rejected, n_l, squares_l) = (in_numpy(params, side) for side in BATCH)
    delta = margin_in_numpy(params, start.trained, BATCH)
    preference = np.log1p(np.exp(-0.1 * delta))
    weight = np.exp(chosen / n_w - squares_w) * np.exp(rejected / n_l - squares_l)
    expected = {
        "preference_loss": preference, "loss": weight * (preference - 0.7 * chosen / n_w),
        "rewards/margin": 0.1 * delta, "rewards/accuracy": delta > 0, "logps/chosen": chosen,
        "logps/rejected": rejected, "length/chosen": n_w, "length/rejected": n_l,
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-5, err_msg=name)
    assert 0 < found["rewards/accuracy"] < 1 and 0 < found["entropy"] < math.log(23)


def test_the_reference_moves_towards_the_policy_when_it_is_time(key):
    config = replace(LOOSE, sync_every=3, sync_alpha=0.25, learning_rate=0.1)
    learner, update, _ = bigram(config)
    expected = jax.tree.map(np.asarray, learner.reference)
    assert_same(learner.reference, learner.trained)
    for done in range(1, 8):
        held = learner.reference
        margin = margin_in_numpy(learner.trained, expected, BATCH)
        learner, metrics = update(key, learner, batch_of(BATCH))
        np.testing.assert_allclose(metrics["loss"].value, np.log1p(np.exp(-0.1 * margin)).mean(), rtol=1e-5)
        if done % 3 == 0:
            expected = jax.tree.map(lambda ref, now: 0.75 * ref + 0.25 * np.asarray(now), expected, learner.trained)
            close(learner.reference, expected, 1e-6)
        else:
            assert_same(learner.reference, held)


def test_a_reference_that_stays_is_not_carried(key):
    assert bigram(LOOSE)[0].reference == ()


# --- sweeps, learning, the course of a run

DATA = Data((pairs(9, 6, 0), pairs(6, 10, 1)), (pairs(5, 6, 2), pairs(3, 10, 3)))
COURSE = replace(
    DPO(lm=PLAIN, sync_every=4, beta=0.5), epochs=3, batch_size=4, micro_batch_size=2, learning_rate=0.01, warmup=0.25
)
UPDATES = 3 * (3 + 2)
SCHEDULE = Schedule(logs=UPDATES, evals=3, saves=3)
GIVEN = {"network": BIGRAM, "params": bigram_params(), "data": DATA}
QUICK = {"schedule": Schedule(logs=1, evals=1, saves=1), "progress": False}


def test_a_sweep_over_beta_and_rate_is_one_program_and_equals_a_loop(key):
    traced = []

    def final(config, key):
        traced.append(1)
        data = Data(DATA.train[:1])
        return train(config, key, network=BIGRAM, params=bigram_params(), data=data)[1]["loss"].value

    configs = [replace(COURSE, beta=beta, learning_rate=rate) for beta in (0.05, 1.0) for rate in (0.001, 0.03)]
    stacked = stack(configs)
    swept = jax.jit(jax.vmap(final, (axes(stacked), None)))(stacked, key)
    assert len(traced) == 1
    loop = jax.jit(final)
    for config, curve in zip(configs, swept, strict=True):
        np.testing.assert_allclose(loop(config, key), curve, rtol=0, atol=1e-4)
    assert loop._cache_size() == 1
    assert len({round(float(curve[-1]), 4) for curve in swept}) == 4
    changed = replace(COURSE, beta=0.77, label_smoothing=0.05, nll_coef=1, sync_alpha=0.1, max_grad_norm=0.5)
    assert compile_events(lambda: loop(changed, key)) == 0


def test_what_is_preferred_is_learned():
    data = Data((pairs(48, 8, 6),), (pairs(32, 8, 7),))
    config = replace(DPO(lm=PLAIN), epochs=4, batch_size=16, learning_rate=0.003)

    def learn(key, params):
        p = program(config, network=MODEL, params=params, data=data)
        state, metrics = jax.lax.scan(lambda state, _: p.step(state), p.init(key), length=p.num_updates)
        return metrics, p.evaluators[0].measure(key, state.learner, jnp.int32(0))

    seeds = jnp.arange(3)
    params = jax.tree.map(lambda *x: jnp.stack(x), *(params_of(MODEL.config, seed) for seed in range(3)))
    metrics, held_out = jax.jit(jax.vmap(learn))(jax.vmap(jax.random.key)(seeds), params)
    margin, accuracy = (metrics[f"rewards/{name}"].value for name in ("margin", "accuracy"))
    assert margin.shape == (3, 12) and abs(margin[:, 0]).max() < 1e-5
    assert (margin[:, -1] > 1).all() and (accuracy[:, -1] > 0.9).all(), (margin, accuracy)
    assert (held_out["rewards/accuracy"].value > 0.8).all() and (held_out["loss"].value < 0.6).all(), held_out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    before = jax.tree.map(np.array, GIVEN["params"])
    made = run(COURSE, 3, tmp_path_factory.mktemp("whole") / "run", schedule=SCHEDULE, progress=False, **GIVEN)
    assert_same(jax.tree.map(np.asarray, GIVEN["params"]), before)  # lent, not given away
    return made


@pytest.mark.computes
def test_run_equals_train_bit_for_bit(tmp_path):
    whole = run(COURSE, 3, tmp_path / "run", schedule=SCHEDULE, progress=False, **GIVEN)
    f = jax.jit(
        lambda c, key, params, data: train(c, key, network=BIGRAM, params=params, data=data),
        compiler_options=compiler_options(0, brief=False),  # as `run` compiles it
    )
    state, metrics = f(COURSE, jax.random.key(3), GIVEN["params"], DATA)
    assert same_bytes(whole.state, state)
    found = read_metrics(whole.run_dir / "metrics.jsonl")
    assert [row["step"] for row in found] == [4 * i for i in range(UPDATES + 1)]
    for name in ("loss", "rewards/margin", "grad_norm", "entropy"):
        np.testing.assert_allclose([row[name] for row in found[1:]], metrics[name].value, rtol=1e-6)
    assert found[0]["eval_loss"] == pytest.approx(math.log(2), abs=1e-7)
    assert whole.figures["loss"] < whole.figures["loss_before"] and whole.figures["rewards/accuracy"] > 0.5


def child(module, *arguments, env=None):
    """A test module as a program of its own."""
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=root, env=os.environ | (env or {}))


def killed_run(config, given, directory, kill_at, resume):
    """A run that is killed after the row of that step."""
    from jaxrl.cli import enable_compilation_cache

    enable_compilation_cache()
    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logs.Logger.row = row
    run(config, 3, directory, resume=resume, schedule=SCHEDULE, progress=False, **given)


def check_resume(module, config, given, whole, directory):
    """Killed in an epoch and resumed in a new process, a run ends in the same bytes."""
    stopped = child(module, directory, 4 * 12, "start")  # saves come after updates 5, 10 and 15; epochs have 5
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    saved = Checkpoints(directory / "checkpoints").steps()
    assert saved in ([20], [20, 40]), "the newest may still have been under way"
    resumed = child(module, directory, -1, "resume")
    assert resumed.returncode == 0, resumed.stderr
    rows_of = [(d / "metrics.jsonl").read_bytes() for d in (whole.run_dir, directory)]
    assert rows_of[0] == rows_of[1]
    template = jax.eval_shape(program(config, **given).init, jax.random.key(3))
    assert same_bytes(Checkpoints(directory / "checkpoints").restore(template), whole.state)


def test_killed_in_an_epoch_and_resumed_in_a_new_process_is_byte_identical(whole, tmp_path):
    check_resume("tests.algorithms.test_dpo", COURSE, GIVEN, whole, tmp_path / "run")


def test_a_run_whose_reference_differs_is_refused_before_the_first_update(tmp_path):
    config, params = replace(LOOSE, reference="cached"), bigram_params()
    data = with_reference((pairs(9, 8, 0),), tmp_path / "cache", "", BIGRAM, moved(params, 0.3), 4)
    with pytest.raises(ValueError, match="the dpo loss starts at .*, not 0.69314718: .* stale reference cache"):
        run(config, 0, tmp_path / "run", **QUICK, network=BIGRAM, params=params, data=Data(data))
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == []


@pytest.mark.parametrize("loss", ["dpo", "simpo"])
def test_a_model_that_is_not_finite_is_refused_before_the_first_update(loss, tmp_path):
    params = jax.tree.map(lambda x: x * jnp.nan, bigram_params())
    with pytest.raises(ValueError, match=f"the {loss} loss starts at nan; look for what is not finite in the model"):
        run(replace(LOOSE, loss=loss), 0, tmp_path / "run", **QUICK, network=BIGRAM, params=params, data=DATA)


# --- the cache of the reference, from text


ROWS = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "9" * b + "?"} for a in range(4) for b in range(4)]


def test_a_cached_reference_trains_as_a_frozen_one_and_a_stale_one_is_refused(tmp_path):
    folder, model = tmp_path / "model", config_of("llama", vocab_size=259, num_hidden_layers=1, hidden_size=16)
    save_model(folder, model, params_of(model), byte_tokenizer())
    cache = tmp_path / "cache" / "reference.npz"
    frozen = DPO(lm=LMConfig(str(folder), logit_chunk=None), data=DataConfig(held_out=0.25))
    frozen = replace(frozen, batch_size=4, epochs=2, learning_rate=1e-3)
    config = replace(frozen, reference="cached", reference_cache=str(cache))
    schedule = {"schedule": Schedule(logs=6, evals=1, saves=1), "progress": False}
    curves = []
    for name, c in {"frozen": frozen, "cached": config}.items():
        made = finetune(c, ROWS, run_dir=tmp_path / name, **schedule)
        curves.append([row["loss"] for row in read_metrics(made.result.run_dir / "metrics.jsonl")[1:]])
        assert cache.exists() == (name != "frozen")
    assert len(curves[0]) == 6 and curves[0][-1] < math.log(2)
    np.testing.assert_allclose(curves[0], curves[1], rtol=0, atol=1e-5)

    kept = cache.read_bytes()
    other = params_of(model, 1)
    save_model(tmp_path / "other", model, other, byte_tokenizer())
    stale = "was made with other weights, rows or settings; remove it, or name another"
    for c, rows in [
        (config, [*ROWS[:-1], {**ROWS[-1], "chosen": "7"}]),
        (replace(config, lm=replace(config.lm, name=str(tmp_path / "other"))), ROWS),
        (replace(config, lm=replace(config.lm, dtype="bfloat16")), ROWS),
    ]:
        with pytest.raises(ValueError, match=stale):
            finetune(c, rows, run_dir=tmp_path / "refused", **schedule)
    with pytest.raises(ValueError, match=r"DPO learns from {prompt, chosen, rejected}"):  # before they are scored
        single = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS]
        finetune(
            replace(config, reference_cache=str(tmp_path / "no")), single, run_dir=tmp_path / "refused", **schedule
        )
    assert not (tmp_path / "no").exists()
    cache.write_bytes(kept[:-40])
    with pytest.raises(ValueError, match=r"the reference cache .* is damaged \(.*\); remove it"):
        finetune(config, ROWS, run_dir=tmp_path / "refused", **schedule)
    assert not (tmp_path / "refused").exists() and cache.read_bytes() == kept[:-40], "refused, not replaced"


# --- mistakes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DPO(reference="none"), "loss = 'dpo' compares with a reference; set reference = 'frozen', or use simpo, orpo"),
        (DPO(sync_alpha=0.5), "sync_alpha = 0.5 is not read with sync_every = 0; leave it out, or set sync_every"),
        (DPO(reference_cache="x"), "reference_cache = 'x' is not read with reference = 'frozen'; .* = 'cached'"),
        (DPO(lm=LMConfig(lora_alpha=8.0)), "lora_alpha = 8 is not read with lora_rank = 0; leave it out, or set lora"),
        (DPO(lm=LMConfig(lora_targets=("q_proj",))), r"lora_targets = \('q_proj',\) is not read with lora_rank = 0;"),
        (DPO(loss="ipo", reference="none"), "loss = 'ipo' compares with a reference"),
        (DPO(loss="simpo", sync_every=2), "sync_every = 2 moves a reference, and loss = 'simpo' compares with none"),
        (DPO(sync_every=2, reference="cached"), "sync_every = 2 needs reference = 'frozen' and lm.lora_rank = 0"),
        (DPO(sync_every=2, lm=LMConfig(lora_rank=4)), "sync_every = 2 needs"),
        (DPO(loss="simpo", reference="none", sync_every=2), "sync_every = 2 moves a reference"),
        (DPO(loss="DPO"), "loss = 'DPO' is not one of"),
        (DPO(label_smoothing=0.6), "label_smoothing = 0.6 is out of range"),
        (DPO(loss="robust", label_smoothing=0.5), "label_smoothing = 0.5 is out of range; .* between 0 and 0.499"),
        (DPO(loss="ipo", beta=0.0), "beta = 0 is out of range; it must be at least 1e-06"),
        (replace(DPO(), max_grad_norm=0.0), "max_grad_norm = 0 is out of range"),
        (replace(DPO(), batch_size=12, micro_batch_size=5), "batch_size = 12 is not a multiple of .* = 5; try 4 or 6"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences_before_anything_runs(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        program(config, **GIVEN)


@pytest.mark.parametrize(
    ("reference", "data", "message"),
    [
        ("frozen", Data((BATCH.chosen,)), "DPO learns from {prompt, chosen, rejected}"),
        ("cached", DATA, "reference = 'cached' .* computed before"),
    ],
)
def test_data_that_is_not_for_dpo_is_refused_with_a_sentence(reference, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(replace(LOOSE, reference=reference), 0, tmp_path / "run", **QUICK, **{**GIVEN, "data": data})


if __name__ == "__main__":
    killed_run(COURSE, GIVEN, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")
