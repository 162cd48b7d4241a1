"""What a model says while it is trained, and that asking it changes nothing."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import Schedule, replace
from jaxrl.algorithms import DPO
from jaxrl.data import Completions, DataConfig, Pairs
from jaxrl.data.prompts import encode_prompts
from jaxrl.evaluators.samples import Ask, first_prompts, sampled_completions
from jaxrl.lm import LMConfig, save_model
from jaxrl.lm.log_probs import completion_stats
from jaxrl.lm.sampling import generate
from jaxrl.lm.transformer import language_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import logs
from jaxrl.runs.finetuning import finetune
from tests.helpers.compare import same_bytes
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

CONFIG = config_of("smollm2", vocab_size=259, num_hidden_layers=1, hidden_size=16)
MODEL, PARAMS, TOKENIZER = language_model(CONFIG), params_of(CONFIG), byte_tokenizer()
TEXTS = ["ab=", "c=", "Hello"]
NEW = 8


PROMPTS = encode_prompts([{"prompt": text} for text in TEXTS], TOKENIZER, max_length=16)


def evaluator(reference=PARAMS):
    return sampled_completions(MODEL, reference, lambda learner: learner, Ask(PROMPTS, NEW, TOKENIZER))


@pytest.fixture(scope="module")
def asked():
    """Two evaluations: of the reference itself, and of a model that differs from it."""
    policy = jax.tree.map(lambda x, y: 0.8 * x + 0.2 * y, PARAMS, params_of(CONFIG, 1))
    samples = evaluator()
    said = [samples.measure(jax.random.key(i), params, jnp.int32(0)) for i, params in enumerate((PARAMS, policy))]
    figures, kept = [samples.read("", x) for x in said], [samples.keep(x) for x in said]
    return SimpleNamespace(policy=policy, figures=figures, kept=kept)


def test_each_evaluation_keeps_a_completion_for_every_prompt(asked):
    for rows in asked.kept:
        assert [row["prompt"] for row in rows] == TEXTS
        assert all(isinstance(row["completion"], str) and len(row) == 2 for row in rows)
    assert asked.kept[0] != asked.kept[1]


def test_the_reference_is_at_no_distance_from_itself(asked):
    assert asked.figures[0]["sample_kl"] == asked.figures[0]["sample_kl_k3"] == 0


def test_figures_are_those_of_the_completions(asked):
    stop = sorted(TOKENIZER.stops)
    keys = jax.random.split(jax.random.key(1), 3)
    made = generate(MODEL, asked.policy, *PROMPTS, keys, max_new_tokens=NEW, stop=stop)
    stats, where = completion_stats(MODEL, asked.policy, made)
    ratio = np.where(where, stats.log_prob - completion_stats(MODEL, PARAMS, made)[0].log_prob, 0).astype(np.float64)
    expected = {
        "sample_kl": ratio.sum(1).mean(),
        "sample_kl_k3": (np.exp(-ratio) - 1 + ratio).sum(1).mean(),
        "sample_length": np.mean(made.length - made.prompt_length),
        "sample_ended": np.mean([row[n - 1] in stop for row, n in zip(made.tokens, made.length, strict=True)]),
    }
    assert set(asked.figures[1]) == set(expected) and expected["sample_kl_k3"] > 0.01
    for name, value in expected.items():
        np.testing.assert_allclose(asked.figures[1][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    said = [row["completion"] for row in asked.kept[1]]
    places = zip(np.asarray(made.tokens), made.prompt_length, made.length, strict=True)
    assert said == [TOKENIZER.decode(row[start:end], True) for row, start, end in places]


def test_the_same_key_says_the_same(asked):
    samples = evaluator()
    again = samples.measure(jax.random.key(1), asked.policy, jnp.int32(0))
    assert samples.read("", again) == asked.figures[1] and samples.keep(again) == asked.kept[1]


def test_prompts_that_the_model_cannot_take_are_refused_before_it_is_asked():
    with pytest.raises(ValueError, match="exceed the model's context of 128"):
        sampled_completions(MODEL, PARAMS, lambda learner: learner, Ask(PROMPTS, 1000, TOKENIZER))


def test_the_first_different_prompts_are_asked():
    tokens = np.array([[1, 2, 9, 9], [1, 2, 8, 8], [1, 2, 9, 7]], np.int32)
    rows = Completions(tokens, np.array([2, 2, 3]), np.full(3, 4), None, np.arange(3))
    other = rows._replace(tokens=tokens + 1)
    prompts = first_prompts((rows, Pairs(other, other)), 3)
    assert prompts.tokens.tolist() == [[1, 2, 0], [1, 2, 9], [2, 3, 0]] and prompts.length.tolist() == [2, 3, 2]
    assert len(first_prompts((rows,), 9).length) == 2


# --- beside training


ROWS = [{"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": "?" * (1 + b)} for a in range(4) for b in range(4)]
SCHEDULE = Schedule(logs=4, evals=4, saves=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_model(folder, CONFIG, PARAMS, TOKENIZER)
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    config = DPO(lm=LMConfig(str(folder), logit_chunk=None, lora_rank=2), data=DataConfig(held_out=0.25))
    return replace(config, batch_size=6, epochs=2, learning_rate=0.01)


@pytest.fixture(scope="module")
def tuned(settings, tmp_path_factory):
    where = tmp_path_factory.mktemp("tuned")
    plain = finetune(settings, ROWS, run_dir=where / "plain", schedule=SCHEDULE, progress=False)
    with_samples = finetune(
        settings, ROWS, run_dir=where / "samples", schedule=SCHEDULE, progress=False, samples=3, sample_length=6
    )
    return plain, with_samples


def test_sampling_leaves_training_bitwise_unchanged(tuned):
    plain, sampled = tuned
    assert same_bytes(plain.result.state, sampled.result.state)
    a, b = (read_metrics(made.result.run_dir / "metrics.jsonl") for made in tuned)
    assert a == [{k: v for k, v in row.items() if "sample" not in k} for row in b]
    assert not (plain.result.run_dir / "samples.jsonl").exists()


def test_a_run_samples_before_along_and_after(tuned):
    run_dir = tuned[1].result.run_dir
    lines = [json.loads(line) for line in (run_dir / "samples.jsonl").read_text().splitlines()]
    rows = [row for row in read_metrics(run_dir / "metrics.jsonl") if "eval_loss" in row]
    assert len(lines) == len(rows) == 5 and all(len(line["samples"]) == 3 for line in lines)
    kl = [(row["eval_sample_kl"], row["eval_sample_kl_k3"]) for row in rows]
    assert kl[0] == (0, 0) and min(kl[1][1], kl[2][1]) > 0.01
    assert all(1 <= row["eval_sample_length"] <= 6 and 0 <= row["eval_sample_ended"] <= 1 for row in rows)
    assert [line["step"] for line in lines] == [row["step"] for row in rows]
    held_out = {row["prompt"] for row in lines[0]["samples"]}
    assert len(held_out) == 3 and held_out <= {row["prompt"] for row in ROWS}
    assert tuned[1].result.figures["sample_kl"] == rows[-1]["eval_sample_kl"]


def test_a_resumed_run_has_every_line_once(settings, tuned, tmp_path, monkeypatch):
    write = logs.Logger.row

    def row(self, step, *rest):
        write(self, step, *rest)
        if step == 18 and not resumed:  # the last save is of step 12: the row is cut and written again
            raise InterruptedError

    monkeypatch.setattr(logs.Logger, "row", row)
    options = {"run_dir": tmp_path / "run", "schedule": SCHEDULE, "progress": False, "samples": 3, "sample_length": 6}
    resumed = False
    with pytest.raises(InterruptedError):
        finetune(settings, ROWS, **options)
    resumed = True
    finetune(settings, ROWS, **options, resume=True)
    files = [(d / "samples.jsonl").read_text().splitlines() for d in (tmp_path / "run", tuned[1].result.run_dir)]
    assert files[0] == files[1] and len(files[0]) == 5
