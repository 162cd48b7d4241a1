"""From a folder with a model and rows of text to a folder with a better model."""

import jax
import numpy as np
import pytest

from jaxrl.algorithms import DPO, SFT
from jaxrl.config_file import load_config
from jaxrl.data import DataConfig, prepare
from jaxrl.lm import LMConfig, complete, load_model, save_model
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import finetune
from jaxrl.settings import replace
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
    assert tuned.notes == ("12 pairs, of which the chosen answers are learned from",)
