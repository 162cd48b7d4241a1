"""From a folder with a model and rows of text to a folder with a better model."""

import jax
import numpy as np
import pytest

from jaxrl.algorithms import DPO, KTO, SFT
from jaxrl.config_file import load_config
from jaxrl.data import DataConfig, prepare, unpair
from jaxrl.lm import LMConfig, complete, language_model, load_adapter, load_model, save_model
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import finetune
from jaxrl.settings import replace
from jaxrl.training import program
from tests.helpers.families import assert_same, config_of, params_of
from tests.helpers.tokenizers import CHATML, byte_tokenizer

ROWS = [{"prompt": f"{a}+{b}=", "completion": "sum"} for a in range(5) for b in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = config_of("llama", vocab_size=259)
    save_model(folder, config, params_of(config), byte_tokenizer())
    return folder


@pytest.mark.parametrize("rank", [0, 4])
def test_tuning_learns_and_saves_what_it_learned(folder, tmp_path, rank):
    config = SFT(lm=LMConfig(str(folder), lora_rank=rank), data=DataConfig(held_out=0.2))
    config = replace(config, epochs=20, batch_size=10, learning_rate=0.05 if rank else 0.01)
    schedule = Schedule(logs=2, evals=1, saves=1)
    tuned = finetune(config, ROWS, run_dir=tmp_path / "run", schedule=schedule, progress=False)
    assert (tuned.counts["rows"], tuned.counts["held_out"]) == (25, 5)
    assert tuned.result.figures["rows_seen"] == 400
    assert tuned.result.figures["loss"] < tuned.result.figures["loss_before"] - 1.0

    saved = load_model(tuned.folder)
    assert_same(saved.params, tuned.params)
    assert load_config(tmp_path / "run" / "config.yaml", {"sft": SFT}) == config
    said = [
        complete(tuned.model, params, saved.tokenizer, ["1+2="], jax.random.key(0), max_new_tokens=6, temperature=0)
        for params in (saved.params, tuned.base.params)
    ]
    assert said[0] == ["sum"] != said[1]


def test_a_file_is_read_and_split_the_same_way_every_time(folder, tmp_path):
    import json

    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    config = SFT(lm=LMConfig(str(folder)), data=DataConfig(str(tmp_path / "rows.jsonl"), held_out=0.2))
    config = replace(config, max_updates=2)
    quick = {"schedule": Schedule(logs=1, evals=1, saves=1), "progress": False}
    runs = [finetune(config, **quick, run_dir=tmp_path / name) for name in "ab"]
    first, second = (run.result.figures["loss"] for run in runs)
    assert first == second
    with pytest.raises(ValueError, match=r"was run with optimizer.learning_rate = .*resume with its own"):
        finetune(replace(config, learning_rate=0.1), **quick, run_dir=tmp_path / "a", resume=True)
    again = finetune(config, **quick, run_dir=tmp_path / "a", resume=True)  # of a run that had ended: nothing changes
    assert_same(again.params, runs[0].params)
    assert np.isclose(again.result.figures["loss"], first)


def test_a_resume_needs_to_know_where(folder):
    with pytest.raises(ValueError, match="resume needs the run_dir to go on in"):
        finetune(SFT(lm=LMConfig(str(folder))), ROWS, resume=True)


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    config = config_of("llama")
    save_model(tmp_path / "bare", config, params_of(config))
    with pytest.raises(ValueError, match="no tokenizer"):
        finetune(SFT(lm=LMConfig(str(tmp_path / "bare"))), ROWS)


QUICK = {"schedule": Schedule(logs=1, evals=1, saves=1), "progress": False}


def saved(path, template=None, **changes):
    config, tokenizer = config_of("llama", **changes), byte_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    save_model(path, config, params_of(config), tokenizer)
    return LMConfig(str(path))


def test_rows_beyond_the_context_are_refused_and_the_remedy_works(tmp_path):
    rows = [{"prompt": "x" * 20 + f"{i}", "completion": "y" * 20} for i in range(12)]
    config = SFT(lm=saved(tmp_path / "m", vocab_size=259, max_position_embeddings=16), data=DataConfig(held_out=0.2))
    config = replace(config, batch_size=4)
    with pytest.raises(
        ValueError, match="row 1 has 42 tokens, but the model's context is 16; set data.max_length = 16"
    ):
        finetune(config, rows, run_dir=tmp_path / "r", **QUICK)
    assert not (tmp_path / "r").exists()
    tuned = finetune(replace(config, max_length=16), rows, run_dir=tmp_path / "r", samples=2, **QUICK)
    assert np.isfinite(tuned.result.figures["loss"])


@pytest.mark.parametrize("Config, row", [(SFT, {"completion": "sum"}), (DPO, {"chosen": "sum", "rejected": "mus"})])
def test_ids_beyond_the_vocabulary_are_refused_and_the_remedy_works(Config, row, tmp_path):
    rows = [{"prompt": f"{i}", **row} for i in range(12)]
    config = Config(lm=saved(tmp_path / "m", vocab_size=120), data=DataConfig(held_out=0.2))
    config = replace(config, batch_size=4, epochs=1)
    with pytest.raises(ValueError, match="the tokenizer's .* is 25., but the model's vocabulary has 120; .*grow_vocab"):
        finetune(config, rows, run_dir=tmp_path / "r", **QUICK)
    assert not (tmp_path / "r").exists()
    tuned = finetune(replace(config, grow_vocabulary=True), rows, run_dir=tmp_path / "r", **QUICK)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(tuned.params))
    assert load_model(tuned.folder).config.vocab_size == 259


def test_the_data_of_a_template_that_asks_the_day_are_the_same_tomorrow(tmp_path):
    template = "<|im_start|>system\nToday: {{ strftime_now('%d %b %Y') }}<|im_end|>" + CHATML
    rows = [
        {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "a"}]} for i in range(9)
    ]
    config = SFT(lm=saved(tmp_path / "m", template, vocab_size=259), data=DataConfig(held_out=0.2))
    data, _, _ = prepare(config.data, load_model(config.lm.name).tokenizer, rows)
    assert "Today: 01 Jan 2026" in byte_tokenizer().decode(data.train[0].tokens[0])
    other = prepare(replace(config, date="2026-11-28").data, load_model(config.lm.name).tokenizer, rows).data
    assert "Today: 28 Nov 2026" in byte_tokenizer().decode(other.train[0].tokens[0])
    with pytest.raises(ValueError, match="date = '28.11.2026' is no day .*write it as 2026-01-01"):
        finetune(replace(config, date="28.11.2026"), rows)


def test_what_was_made_of_the_rows_is_told(tmp_path):
    rows = [{"prompt": f"{i}", "chosen": "sum", "rejected": "mus"} for i in range(12)]
    config = SFT(lm=saved(tmp_path / "m", vocab_size=259), data=DataConfig(held_out=0.2))
    tuned = finetune(replace(config, batch_size=4), rows, run_dir=tmp_path / "r", **QUICK)
    few = "held-out figures (eval_*) are of 3 rows alone and say little: data.held_out = 0.2 of 12; hold out more"
    assert tuned.notes == ("12 pairs, of which the chosen answers are learned from", few)


# --- adapters


PAIRS = [{"prompt": f"{a}+{b}=", "chosen": "sum", "rejected": "no"} for a in range(5) for b in range(5)]


def same_words(*folders):
    """Whether models say the same logits of some text."""
    loaded = [load_model(folder) for folder in folders]
    tokens = np.array([loaded[0].tokenizer.encode("1+2=sum")])
    logits = [language_model(x.config).apply(x.params, tokens) for x in loaded]
    return max(float(abs(logits[0] - x).max()) for x in logits) < 1e-5


@pytest.fixture(scope="module")
def adapter(folder, tmp_path_factory):
    """The folder of an adapter that has learned something, and of the same merged."""
    settings = LMConfig(str(folder), lora_rank=2, lora_alpha=3.0, lora_rank_stabilized=True)
    config = replace(SFT(lm=settings, data=DataConfig(held_out=0.2)), batch_size=10, learning_rate=0.05)
    place = tmp_path_factory.mktemp("adapter")
    tuned = finetune(config, ROWS, run_dir=place / "alone", adapter_only=True, **QUICK)
    whole = finetune(config, ROWS, run_dir=place / "whole", **QUICK)
    assert tuned.folder == place / "alone" / "adapter" and not (place / "alone" / "model").exists()
    return tuned.folder, whole.folder


def test_an_adapter_saved_alone_is_the_merged_model(adapter, folder):
    assert same_words(*adapter) and not same_words(adapter[0], folder)
    assert load_model(adapter[0]).tokenizer.stops == load_model(folder).tokenizer.stops


@pytest.mark.parametrize(("algorithm", "reference"), [(DPO, "frozen"), (DPO, "cached"), (KTO, "frozen")])
def test_an_adapter_is_continued_from_where_it_was(adapter, tmp_path, monkeypatch, algorithm, reference):
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path))
    settings = LMConfig(str(adapter[0]), lora_continue=True)
    config = algorithm(lm=settings, data=DataConfig(held_out=0.2), reference=reference)
    config = replace(config, batch_size=5, max_updates=2, learning_rate=0.01, warmup=0.0)
    rows = PAIRS if algorithm is DPO else unpair(PAIRS, 0)
    tuned = finetune(config, rows, run_dir=tmp_path / "run", adapter_only=True, **QUICK)
    before, *_, last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert abs(before["eval_rewards/chosen"]) < 1e-6 and last["eval_rewards/chosen"] != 0
    if algorithm is DPO:
        assert abs(before["eval_preference_loss"] - np.log(2)) < 1e-6
    ran = load_config(tmp_path / "run" / "config.yaml", {"dpo": DPO, "kto": KTO}).lm
    _, own, start = load_adapter(adapter[0])
    assert (ran.lora_rank, ran.lora_alpha, ran.lora_targets) == (2, 3.0, own.lora_targets)
    _, after, learned = load_adapter(tuned.folder)
    assert after == own, "the base is the whole model below, not the adapter"
    assert float(abs(learned["q_proj"].b - start["q_proj"].b).max()) > 1e-4


def test_no_update_gives_the_adapter_back(adapter, tmp_path):
    config = SFT(lm=LMConfig(str(adapter[0]), lora_continue=True), data=DataConfig(held_out=0.2))
    config = replace(config, max_updates=1, learning_rate=0.0, batch_size=5)
    tuned = finetune(config, ROWS, run_dir=tmp_path / "run", **QUICK)
    assert same_words(adapter[0], tuned.folder)
    again = finetune(config, ROWS, run_dir=tmp_path / "run", resume=True, **QUICK)
    assert_same(again.params, tuned.params)


def test_a_new_adapter_on_a_merged_one_starts_level(adapter, tmp_path):
    config = replace(DPO(lm=LMConfig(str(adapter[0]), lora_rank=2)), batch_size=5, max_updates=1, learning_rate=0.0)
    tuned = finetune(config, PAIRS, run_dir=tmp_path / "run", **QUICK)
    assert same_words(adapter[0], tuned.folder)


@pytest.mark.parametrize(
    ("settings", "only", "words"),
    [
        ({}, True, "adapter_only saves adapters, and with lm.lora_rank = 0 there are none; set lm.lora_rank"),
        (
            {"lora_rank": 4},
            True,
            "is an adapter: another one, saved alone, .* set lm.lora_continue .*, or merge it first",
        ),
        ({"lora_rank": 4, "lora_continue": True}, False, r"lm.lora_rank = 4, and the adapter .* has 2; leave out all"),
        ({"lora_rank": 2, "lora_continue": True}, False, r"lm.lora_alpha = 16.0, and the adapter .* has 3.0"),
        ({"lora_alpha": 3.0, "lora_continue": True}, False, "lora_alpha = 3 is not read with lora_rank = 0"),
    ],
)
def test_settings_that_do_not_fit_the_adapter_are_sentences(adapter, tmp_path, settings, only, words):
    config = SFT(lm=LMConfig(str(adapter[0]), **settings))
    with pytest.raises(ValueError, match=words):
        finetune(config, ROWS, run_dir=tmp_path / "run", adapter_only=only, **QUICK)
    assert not (tmp_path / "run").exists()


def test_continuing_needs_an_adapter(folder, tmp_path):
    with pytest.raises(ValueError, match="is no adapter: it has no adapter_config.json"):
        finetune(SFT(lm=LMConfig(str(folder), lora_continue=True)), ROWS, run_dir=tmp_path / "run", **QUICK)
    config = SFT(lm=LMConfig(str(folder), lora_rank=2, lora_continue=True))
    data = prepare(config.data, byte_tokenizer(), ROWS).data
    base = load_model(folder)
    with pytest.raises(
        ValueError, match="lora_continue = True, and the parameters have no adapters on; `attach` them, or"
    ):
        program(config, network=language_model(base.config), params=base.params, data=data)
