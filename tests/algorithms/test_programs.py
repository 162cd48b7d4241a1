"""A cached reference is scored as training scores: the loss starts where equal policies start it, in any dtype."""

import jax
import numpy as np
import pytest

from jaxrl.algorithms import DPO, KTO
from jaxrl.data import DataConfig, prepare, unpair
from jaxrl.lm import LMConfig, language_model
from jaxrl.settings import replace
from jaxrl.training import program
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

MODEL = config_of("llama", vocab_size=259, hidden_size=128, intermediate_size=256, num_hidden_layers=4, head_dim=32)


def words(rng, count):
    return "".join(rng.choice(list("abcdefghij "), count))


def pairs():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 60, (24, 2))
    return [{"prompt": words(rng, 10), "chosen": words(rng, a), "rejected": words(rng, b)} for a, b in sizes]


def started(config, model, params, data):
    """Figures of the held-out rows before the first update, held to `check_start` as a run holds them."""

    @jax.jit
    def measure(params, data):
        p = program(config, network=model, params=params, data=data)
        return p.evaluators[0].measure(jax.random.key(0), p.algorithm.init(jax.random.key(0)), 0)

    evaluator = program(config, network=model, params=params, data=data).evaluators[0]
    figures = evaluator.read("", measure(params, data))
    evaluator.check_start(figures)
    return figures


@pytest.fixture(scope="module")
def params():
    return params_of(MODEL)


@pytest.mark.parametrize(("algorithm", "batch_size", "micro"), [(DPO, 4, None), (DPO, 8, 2), (KTO, 8, None)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-3)])
def test_a_cached_reference_starts_level(algorithm, batch_size, micro, dtype, tolerance, params, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path))
    config = algorithm(
        lm=LMConfig(dtype=dtype, lora_rank=4), data=DataConfig(held_out=0.25, buckets=(48, 80)), reference="cached"
    )
    config = replace(config, batch_size=batch_size, micro_batch_size=micro)
    rows = pairs() if algorithm is DPO else unpair(pairs(), 0)
    model = language_model(MODEL, dtype=dtype)
    data = config.complete_data(model, params, prepare(config.data, byte_tokenizer(), rows).data)
    figures = started(config, model, params, data)
    assert abs(figures["rewards/chosen"]) < tolerance and abs(figures["rewards/rejected"]) < tolerance
    if algorithm is DPO:
        assert abs(figures["preference_loss"] - np.log(2)) < tolerance


@pytest.mark.parametrize(("algorithm", "micro"), [(DPO, None), (DPO, 2), (KTO, 2)])
def test_it_is_scored_in_the_shapes_of_training(algorithm, micro, params, tmp_path, monkeypatch):
    # what makes the start level in bfloat16, on whatever device: other shapes may round otherwise
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path))
    config = algorithm(data=DataConfig(held_out=0.25, buckets=(48, 80)), reference="cached")
    config, seen = replace(config, batch_size=8, micro_batch_size=micro, logit_chunk=32), set()
    plain = language_model(MODEL)

    def hidden(params, tokens):
        seen.add(("rows", tokens.shape))
        return plain.hidden(params, tokens)

    def unembed(params, hidden):
        seen.add(("logits", hidden.shape))
        return plain.unembed(params, hidden)

    model = plain._replace(hidden=hidden, unembed=unembed)
    rows = pairs() if algorithm is DPO else unpair(pairs(), 0)
    data = config.complete_data(model, params, prepare(config.data, byte_tokenizer(), rows).data)
    scored = set(seen)
    seen.clear()
    p = program(config, network=model, params=params, data=data)
    jax.eval_shape(lambda key: p.evaluators[0].measure(key, p.algorithm.init(key), 0), jax.random.key(0))
    assert scored and scored <= seen


def test_numbers_of_other_shapes_are_not_taken(params, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path))
    config = replace(DPO(reference="cached"), batch_size=8)
    model, data = language_model(MODEL), prepare(config.data, byte_tokenizer(), pairs()).data
    files = lambda: len(list((tmp_path / "reference").iterdir()))  # noqa: E731
    same = [config, replace(config, learning_rate=1.0), replace(config, batch_size=16, micro_batch_size=8)]
    for c in same:
        c.complete_data(model, params, data)
        assert files() == 1
    for count, c in enumerate((replace(config, micro_batch_size=4), replace(config, logit_chunk=None)), start=2):
        c.complete_data(model, params, data)
        assert files() == count
