"""Supervised fine-tuning: one gradient however rows are cut and padded, and a run that can be stopped anywhere."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl import PPO, Schedule, axes, replace, run, stack, train
from jaxrl.algorithms.sft import SFT
from jaxrl.data import Completions, Data, DataBatch, Pairs
from jaxrl.lm.settings import LMConfig
from jaxrl.lm.transformer import language_model
from jaxrl.ops.optimizers import matrices
from jaxrl.ops.platform import compiler_options
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import logs
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.training.programs import program
from tests.helpers.compare import close, same_bytes
from tests.helpers.families import assert_same, config_of, params_of

CONFIG = config_of("llama", vocab_size=23, num_hidden_layers=2)
MODEL, PARAMS = language_model(CONFIG), params_of(CONFIG)


def rows(count, width, seed):
    """Numbers that count up from anywhere, modulo 23: prompts of 1 to 3 and completions of at least one."""
    rng = np.random.default_rng(seed)
    length = rng.integers(4, width + 1, count).astype(np.int32)
    tokens = (np.arange(width) + rng.integers(0, 23, (count, 1))) % 23
    tokens = np.where(np.arange(width) < length[:, None], tokens, 0).astype(np.int32)
    return Completions(tokens, rng.integers(1, 4, count).astype(np.int32), length, None, np.arange(count))


# two buckets; of neither is the number of rows a multiple of the batch
DATA = Data((rows(9, 6, 0), rows(6, 10, 1)), (rows(5, 6, 2), rows(3, 10, 3)))
SETTINGS = replace(SFT(lm=LMConfig(logit_chunk=None)), epochs=3, batch_size=4, learning_rate=0.01, warmup=0.25)
UPDATES = 3 * (3 + 2)
SCHEDULE = Schedule(logs=UPDATES, evals=3, saves=3)
GIVEN = {"network": MODEL, "params": PARAMS, "data": DATA}


# --- the gradient

BATCH, TOTAL = rows(8, 10, 4), 10


@jax.jit
def by_definition(params, batch):
    """((mean -ln p, number of tokens), gradient of the mean): no chunk, micro-batch or weight."""

    def loss(params):
        log_p = jax.nn.log_softmax(MODEL.apply(params, batch.tokens)[:, :-1])
        nll = -jnp.take_along_axis(log_p, jnp.asarray(batch.tokens)[:, 1:, None], axis=-1)[..., 0]
        place = jnp.arange(1, batch.tokens.shape[1])
        where = (place >= batch.prompt_length[:, None]) & (place < batch.length[:, None])
        return jnp.sum(nll, where=where) / jnp.sum(where), jnp.sum(where)

    return jax.value_and_grad(loss, has_aux=True)(params)


@functools.cache
def functions(config):
    """(init, update) of a run of TOTAL updates, compiled."""
    algorithm = replace(config, max_grad_norm=float("inf")).make(MODEL, PARAMS, TOTAL)
    return jax.jit(algorithm.init), jax.jit(algorithm.update)


def joined(*batches):
    return jax.tree.map(lambda *x: np.concatenate(x), *batches)


def shuffled(batch, seed):
    return jax.tree.map(lambda x: np.random.default_rng(seed).permutation(x), batch)


def padded(batch, width):
    room = ((0, 0), (0, width - batch.tokens.shape[1]))
    return batch._replace(tokens=np.pad(batch.tokens, room, constant_values=22))


WHOLE = replace(SETTINGS, micro_batch_size=None, lm=LMConfig(logit_chunk=None))
CUTS = {
    # settings, rows, weights
    "whole": (WHOLE, BATCH, np.ones(8)),
    "by fours, recomputed, shuffled, in a wider bucket": (
        replace(SETTINGS, micro_batch_size=4, lm=LMConfig(remat=True)), padded(shuffled(BATCH, 1), 16), np.ones(8),
    ),
    "in pairs, chunks of 5, after four rows that fill up": (
        replace(SETTINGS, micro_batch_size=2, lm=LMConfig(logit_chunk=5)),
        joined(rows(4, 10, 99), BATCH), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_the_gradient_is_the_same_however_the_batch_is_cut_ordered_and_padded(name, key):
    config, batch, weight = CUTS[name]
    init, update = functions(config)
    after, metrics = update(key, init(key), DataBatch(batch, jnp.asarray(weight, jnp.float32)))
    (loss, count), grads = by_definition(PARAMS, BATCH)
    assert metrics["loss"].count == count == (BATCH.length - BATCH.prompt_length).clip(0).sum()
    np.testing.assert_allclose(metrics["loss"].value, loss, rtol=1e-5)
    moment = optax.tree.get(after.opt_state, "mu")  # of Adam: 1 - β₁ of the first gradient
    close(jax.tree.map(lambda m: m / 0.1, moment), grads, 1e-5)
    squares = sum(float((g**2).sum()) for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(metrics["grad_norm"].value, np.sqrt(squares), rtol=1e-4)


def test_an_update_after_the_last_has_a_rate_of_zero_and_changes_no_parameter(key):
    init, update = functions(WHOLE)
    batch, learner = DataBatch(BATCH, jnp.ones(8)), init(key)
    after, metrics = update(key, learner._replace(num_updates=jnp.int32(TOTAL)), batch)
    assert metrics["learning_rate"].total == 0 and metrics["grad_norm"].value > 0
    assert_same(after.trained, learner.trained)
    last, metrics = update(key, learner._replace(num_updates=jnp.int32(TOTAL - 1)), batch)
    assert metrics["learning_rate"].total > 0
    assert (last.trained.norm.weight[...] != learner.trained.norm.weight[...]).all()


def test_matrices_decay_and_norms_and_biases_do_not():
    params = jax.eval_shape(language_model(config_of("qwen3", qkv_bias=True)).init, jax.random.key(0))
    decays = {jax.tree_util.keystr(p): d for p, d in jax.tree_util.tree_leaves_with_path(matrices(params))}
    kept = {name for name, d in decays.items() if not d}
    assert len(kept) == 8 and all("norm" in name or "bias" in name for name in kept), kept
    assert sum(decays.values()) == 9  # embedding, head and seven projections


# --- the course of a run


def events_of(function):
    """What `function` returns, and when it compiled a program or wrote a row."""
    events, write = [], logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        events.append(step)

    def listen(event, *_, **__):
        if event.endswith("backend_compile_duration"):
            events.append("compile")

    jax.monitoring.register_event_duration_secs_listener(listen)
    logs.Logger.row = row
    try:
        return function(), events
    finally:
        logs.Logger.row = write
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and its events."""
    before = jax.tree.map(np.array, PARAMS)
    directory = tmp_path_factory.mktemp("whole") / "run"
    made = events_of(lambda: run(SETTINGS, 3, directory, schedule=SCHEDULE, progress=False, **GIVEN))
    assert_same(jax.tree.map(np.asarray, PARAMS), before)  # lent, not given away
    return made


@pytest.fixture(scope="module")
def scanned():
    """The same by `train`: config, parameters and data traced, compiled as `run` does it."""
    f = jax.jit(
        lambda config, key, params, data: train(config, key, network=MODEL, params=params, data=data),
        compiler_options=compiler_options(0, brief=False),
    )
    return lambda config: f(config, jax.random.key(3), PARAMS, DATA)


@pytest.mark.computes
def test_run_equals_train_bit_for_bit(tmp_path, scanned):
    whole = run(SETTINGS, 3, tmp_path / "run", schedule=SCHEDULE, progress=False, **GIVEN)
    state, metrics = scanned(SETTINGS)
    assert same_bytes(whole.state, state)
    found = read_metrics(whole.run_dir / "metrics.jsonl")
    assert [row["step"] for row in found] == [4 * i for i in range(UPDATES + 1)]
    for name in ("loss", "grad_norm", "entropy"):
        np.testing.assert_allclose([row[name] for row in found[1:]], metrics[name].value, rtol=1e-6)


def test_the_learning_rate_rises_from_above_zero_and_is_zero_after_the_last_update(scanned):
    _, metrics = scanned(SETTINGS)
    rates = np.asarray(metrics["learning_rate"].value)
    np.testing.assert_allclose(rates[:4], 0.01 * np.array([1 / 3.75, 2 / 3.75, 3 / 3.75, 1]), rtol=1e-5)
    assert rates.shape == (UPDATES,) and rates.min() > 0 and (np.diff(rates[4:]) < 0).all()


def test_programs_are_compiled_before_the_first_row_and_few(whole):
    _, events = whole
    steps = [e for e in events if e != "compile"]
    before, after = events.index(0), events[events.index(24) : len(events) - events[::-1].index(steps[-1])]
    # init, one chunk for both buckets and all its lengths, the held-out rows; and small ones that make keys and copies
    assert 3 <= events[:before].count("compile") <= 20
    assert "compile" not in after and len(after) == 10, "nothing after the first evaluation and the first save"


def test_held_out_figures_are_those_of_all_held_out_rows(whole):
    result, _ = whole

    def direct(params):
        return by_definition(params, joined(padded(DATA.held_out[0], 10), DATA.held_out[1]))[0][0]

    found = read_metrics(result.run_dir / "metrics.jsonl")
    measured = [row["step"] for row in found if "eval_loss" in row]
    assert measured == [0, 20, 40, 60]
    np.testing.assert_allclose(result.figures["loss_before"], direct(PARAMS), rtol=1e-5)
    np.testing.assert_allclose(found[0]["eval_loss"], direct(PARAMS), rtol=1e-5)
    np.testing.assert_allclose(result.figures["loss"], direct(result.state.learner.trained), rtol=1e-5)
    assert found[-1]["eval_loss"] == result.figures["loss"] < result.figures["loss_before"]


def test_held_out_tokens_per_row_are_those_of_the_rows(whole):
    lengths = np.concatenate([b.length - b.prompt_length for b in DATA.held_out]).clip(0)
    np.testing.assert_allclose(whole[0].figures["tokens"], lengths.mean(), rtol=1e-6)


def child(directory, kill_at, resume):
    """This module as a program: the run of `whole` in a process of its own, killed after the row of that step."""
    root = Path(__file__).parent.parent.parent
    arguments = [sys.executable, "-m", "tests.algorithms.test_sft", directory, str(kill_at), resume]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=600, cwd=root)


def killed_run(directory, kill_at, resume):
    from jaxrl.cli import enable_compilation_cache

    enable_compilation_cache()
    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logs.Logger.row = row
    run(SETTINGS, 3, directory, resume=resume, schedule=SCHEDULE, progress=False, **GIVEN)


def test_killed_in_an_epoch_and_resumed_in_a_new_process_is_byte_identical(whole, tmp_path):
    stopped = child(tmp_path / "run", 4 * 12, "start")  # saves come after updates 5, 10 and 15; epochs have 5
    assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    saved = Checkpoints(tmp_path / "run" / "checkpoints").steps()
    assert saved in ([20], [20, 40]), "the newest may still have been under way"
    resumed = child(tmp_path / "run", -1, "resume")
    assert resumed.returncode == 0, resumed.stderr
    rows_of = [(d / "metrics.jsonl").read_bytes() for d in (whole[0].run_dir, tmp_path / "run")]
    assert rows_of[0] == rows_of[1]
    template = jax.eval_shape(program(SETTINGS, **GIVEN).init, jax.random.key(3))
    assert same_bytes(Checkpoints(tmp_path / "run" / "checkpoints").restore(template), whole[0].state)


def test_stopped_before_the_first_save_and_resumed_writes_every_row_once(tmp_path, monkeypatch):
    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == 4:  # the first save comes after step 20
            raise InterruptedError

    monkeypatch.setattr(logs.Logger, "row", row)
    for resume in (False, True):
        with pytest.raises(InterruptedError):
            run(SETTINGS, 3, tmp_path / "run", resume=resume, schedule=SCHEDULE, progress=False, **GIVEN)
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [0, 4]


def test_resume_with_other_data_or_parameters_is_refused(whole):
    other = jax.tree.map(lambda x: x, PARAMS)
    other.norm.weight[...] = other.norm.weight[...].at[0].add(1e-6)
    shorter = DATA.held_out[0]._replace(length=DATA.held_out[0].length - 1)
    for given, message in [
        ({"data": DATA._replace(held_out=(shorter, DATA.held_out[1]))}, "was run with the data .* resume with that"),
        ({"data": Data(DATA.train)}, "was run with the data "),
        ({"params": other}, "was run with the params .* resume with that"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(SETTINGS, 3, whole[0].run_dir, resume=True, progress=False, **{**GIVEN, **given})
    with pytest.raises(ValueError, match="was run with optimizer.learning_rate = 0.01, not 0.02"):
        run(replace(SETTINGS, learning_rate=0.02), 3, whole[0].run_dir, resume=True, progress=False, **GIVEN)


# --- sweeps and learning


TIED = config_of("smollm2", vocab_size=23, num_hidden_layers=2)
ROWS = Data((rows(64, 8, 6),))
LEARNING = replace(SFT(lm=LMConfig(logit_chunk=None)), epochs=30, batch_size=16, learning_rate=0.01, warmup=0.1)


def losses(config, key, params):
    """Of every update of a whole training run."""
    _, metrics = train(config, key, network=language_model(TIED), params=params, data=ROWS)
    return metrics["loss"].value


loop = jax.jit(losses)


def start(seed):
    """Small random weights, and the key of the rows' order."""
    params = params_of(TIED, seed)
    return jax.random.key(seed), jax.tree.map(lambda x: x / 10 if x.ndim == 3 or len(x) == 23 else x, params)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_counting_is_learned(seed):
    # the first token of a row tells all that follow: what loss is left is the model's own
    found = loop(LEARNING, *start(seed))
    assert found.shape == (120,) and found[0] > 2.5 and found[-4:].mean() < 0.02, found[::20]


def test_a_sweep_is_one_program_and_equals_a_loop():
    configs, traced = [replace(LEARNING, learning_rate=rate) for rate in (0.0001, 0.01)], []
    stacked = stack(configs)
    mapped = jax.vmap(lambda *x: traced.append(1) or losses(*x), (axes(stacked), None, None))
    slow, fast = jax.jit(mapped)(stacked, *start(1))
    assert len(traced) == 1
    for config, swept in zip(configs, (slow, fast), strict=True):
        close(loop(config, *start(1))[:20], swept[:20], 1e-4)
    assert loop._cache_size() == 1
    assert slow[-1] > 1 > 0.02 > fast[-1]


# --- mistakes


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (replace(SETTINGS, batch_size=12, micro_batch_size=5), GIVEN, r"batch_size = 12 is not .* = 5; try \[?4\D*6"),
        (replace(SETTINGS, micro_batch_size=8), GIVEN, r"batch_size = 4 is not a multiple of micro_batch_size = 8"),
        (replace(SETTINGS, epochs=0), GIVEN, "epochs = 0 is out of range; it must be at least 1"),
        (replace(SETTINGS, warmup=1.5), GIVEN, "warmup = 1.5 is out of range"),
        (replace(SETTINGS, lm=LMConfig(dtype="float16")), GIVEN, "lm.dtype = 'float16' is not one of"),
        (SETTINGS, {"network": MODEL, "params": PARAMS}, "SFT learns from data; give network, params and data"),
        (SETTINGS, {}, "SFT learns from data"),
        (SETTINGS, {**GIVEN, "env": object()}, "SFT does not take env; it takes network, params, data, samples"),
        (PPO(), {"data": DATA}, "PPO does not take data; it takes env, network"),
        (PPO(), {"params": PARAMS}, "PPO does not take params"),
        (SETTINGS, {**GIVEN, "data": Data(())}, "there are no buckets"),
        (
            replace(SETTINGS, lm=LMConfig(lora_rank=2, lora_targets=("q",))), GIVEN,
            "lora_targets: no projection 'q'",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_sentences_before_anything_runs(config, given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        program(config, **given)
    with pytest.raises(ValueError, match=message):
        run(config, 0, tmp_path / "run", progress=False, **given)
    assert not (tmp_path / "run").exists()


PAIRS = Pairs(DATA.train[0], DATA.train[0])
LABELLED = DATA.train[0]._replace(label=np.float32([1, 1, 0, 1, 1, 0, 1, 1, 1]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data((PAIRS,)), r"SFT learns from \{prompt, completion\} or .*; take the chosen answers, or"),
        (Data(DATA.train, (PAIRS,)), r"SFT learns from \{prompt, completion\} or"),
        (Data((LABELLED, DATA.train[1])), "^2 of 15 rows are labelled false: SFT would learn to imitate them; keep"),
        (Data(DATA.train, (LABELLED,)), "^2 of 24 rows are labelled false: .* or use KTO$"),
    ],
)  # fmt: skip
def test_rows_that_are_not_to_be_imitated_are_refused(data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(SETTINGS, 0, tmp_path / "run", progress=False, **{**GIVEN, "data": data})
    assert not (tmp_path / "run").exists()


def test_rows_labelled_true_are_learned_from():
    good = LABELLED._replace(label=np.ones(9, np.float32))
    program(SETTINGS, **{**GIVEN, "data": Data((good,), (good,))})


def test_max_updates_ends_run_and_schedule_early():
    p = program(replace(SETTINGS, max_updates=7), **GIVEN)
    assert p.num_updates == 7
    with pytest.warns(
        UserWarning, match=r"max_updates = 70, and epochs = .* of .* updates each end before; give epochs = \d+ for"
    ):
        assert program(replace(SETTINGS, max_updates=70), **GIVEN).num_updates == UPDATES
    assert program(SETTINGS, **GIVEN).num_updates == UPDATES


if __name__ == "__main__":
    killed_run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "resume")
