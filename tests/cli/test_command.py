"""The command `jaxrl`, as a person meets it: what it says, and how it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from gguf import GGUFWriter

from jaxrl.cli import command
from jaxrl.lm import LMConfig, load_model, save_adapters, save_model
from jaxrl.lm.lora import init_adapters
from tests.helpers.families import assert_same, config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random model that reads and writes bytes."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = config_of("llama", vocab_size=259)
    save_model(folder, config, params_of(config), byte_tokenizer())
    return folder


def said(capsys, *argv) -> tuple[str, str]:
    command.main([str(word) for word in argv])
    return capsys.readouterr()


def refused(capsys, *argv) -> str:
    """The sentence on stderr of a command that ends with status 2, having said nothing else."""
    with pytest.raises(SystemExit) as stop:
        command.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    return err


ROOT = Path(__file__).parents[2]


def helped(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as stop:
        command.main(list(argv))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "doc"),
    [
        ((), command.__doc__),
        (("train",), command.train.__doc__),
        (("train", "ppo/cartpole"), command.train.__doc__),
        (("finetune",), command.finetune.__doc__),
        (("finetune", "dpo"), command.finetune.__doc__),
        (("evaluate",), command.evaluate.__doc__),
        (("check",), command.check.__doc__),
    ],
)
def test_examples_in_help_keep_their_lines_and_prose_is_left_to_the_terminal(capsys, argv, doc):
    shown = helped(capsys, *argv, "--help").splitlines()
    examples = [line.strip() for line in doc.splitlines() if re.match(r" +jaxrl ", line)]
    assert examples and all(f"    {line}" in shown for line in examples)


def test_help_lists_every_verb_by_how_its_docstring_begins(capsys):
    out = " ".join(helped(capsys, "--help").split())
    assert all(f"• {name}" in out for name in command.VERBS)
    assert "• evaluate Measure what a run has learned: whole" in out and "Args" not in out


@pytest.mark.parametrize("script", ["train.py", "finetune.py"])
def test_experiments_are_the_same_commands_under_their_own_names(script):
    config = {"train.py": "ppo/cartpole", "finetune.py": "dpo"}[script]
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / script, config, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--learning-rate" in done.stdout and "--resume" in done.stdout
    assert f"usage: scripts/run {ROOT / 'experiments' / script} {config} [-h]" in done.stdout
    examples = [line for line in done.stdout.splitlines() if line.startswith(f"    scripts/run experiments/{script}")]
    assert len(examples) >= 4


def test_help_imports_no_environment_package():
    code = (
        "import sys; from jaxrl.cli import command\n"
        "try: command.main(['--help'])\n"
        "except SystemExit: print([m for m in ('brax', 'gymnax', 'mujoco', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_that_is_none_is_answered_with_the_nearest(capsys):
    assert "jaxrl has no command 'tran'; did you mean 'train'?" in refused(capsys, "tran")
    assert "jaxrl has no command 'zzz'; it has train, finetune" in refused(capsys, "zzz")


def test_generate_says_the_same_for_the_same_seed_and_reports_its_speed(folder, capsys):
    ask = ("generate", folder, "ab", "--max-new-tokens", 8, "--temperature", 1)
    first, err = said(capsys, *ask)
    assert first.strip() and json.loads(first.splitlines()[-1]) == {"prompt_tokens": 1, "tokens": 8}
    assert re.search(r"first token after [\d.]+ s, then [\d.]+ tokens/s", err)
    assert said(capsys, *ask)[0] == first
    assert said(capsys, *ask, "--seed", 1)[0] != first


def test_chat_puts_the_prompt_into_the_template(folder, capsys):
    greedy = ("--max-new-tokens", 8, "--temperature", 0)
    plain = said(capsys, "generate", folder, "hello", *greedy)[0]
    chat = said(capsys, "generate", folder, "hello", "--chat", *greedy)[0]
    by_hand = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert said(capsys, "generate", folder, by_hand, *greedy, "--markup", "tokens")[0] == chat != plain
    text, err = said(capsys, "generate", folder, by_hand, *greedy)
    assert text != chat and "special tokens in the prompt are plain text; --markup tokens makes them tokens" in err


def test_generate_refuses_with_a_sentence(folder, tmp_path, capsys):
    long = refused(capsys, "generate", folder, "x" * 120, "--max-new-tokens", 20)
    assert "120 tokens and max_new_tokens = 20 exceed the model's context of 128" in long
    assert "did you mean 'smollm2-135m'" in refused(capsys, "generate", "smollm2-135", "x")
    assert "top_p = 1.5" in refused(capsys, "generate", folder, "x", "--top-p", 1.5, "--max-new-tokens", 8)
    assert "prompt 1 is empty" in refused(capsys, "generate", folder, "", "--max-new-tokens", 8)


def test_a_damaged_model_is_refused_with_a_sentence(folder, tmp_path, capsys):
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(range(256)))
    assert "is not a GGUF file or is cut short" in refused(capsys, "generate", corrupt, "x")

    from safetensors.numpy import load_file, save_file

    for name, change in {
        "missing": lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
        "unknown": lambda t: t.update({"model.surprise": np.zeros(3, np.float32)}),
    }.items():
        broken = tmp_path / name
        broken.mkdir()
        for file in folder.iterdir():
            (broken / file.name).write_bytes(file.read_bytes())
        tensors = load_file(broken / "model.safetensors")
        change(tensors)
        save_file(tensors, broken / "model.safetensors")
        sentence = refused(capsys, "generate", broken, "x")
        assert ("model.layers.1.mlp.up_proj.weight" if name == "missing" else "model.surprise") in sentence


def test_an_unknown_architecture_is_refused_with_a_sentence(folder, tmp_path, capsys):
    strange = tmp_path / "strange"
    strange.mkdir()
    for file in folder.iterdir():
        (strange / file.name).write_bytes(file.read_bytes())
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    assert "mamba" in refused(capsys, "generate", strange, "x")

    writer = GGUFWriter(tmp_path / "mamba.gguf", "mamba")
    writer.add_block_count(1)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    assert "mamba" in refused(capsys, "generate", tmp_path / "mamba.gguf", "x")


def test_lint_shows_what_is_trained(folder, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": "a:", "completion": f" {i}"}) + "\n" for i in range(4)))
    out, _ = said(capsys, "data", "lint", file, "--model", folder, "--rows", 1)
    assert "a:« 0<|im_end|>»" in out and "4 of 4 rows kept" in out
    found = json.loads(out.splitlines()[-1])
    assert found["file"] == str(file) and found["rows"] == found["kept"] == 4


def test_lint_reads_a_split_and_says_what_rows_are_taken_as(folder, tmp_path, capsys):
    for split in ("train", "test"):
        row = {"chosen": "\n\nHuman: q\n\nAssistant: yes", "rejected": "\n\nHuman: q\n\nAssistant: no"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    ask = ("data", "lint", tmp_path, "--model", folder)
    assert "--split train)" in refused(capsys, *ask)
    assert "--format hh)" in refused(capsys, *ask, "--split", "train")
    out, _ = said(capsys, *ask, "--split", "train", "--format", "hh")
    assert "rows are taken as hh: " in out and "Assistant:« yes<|im_end|>»" in out


def test_lint_names_the_malformed_row(folder, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [json.dumps({"prompt": "a:", "completion": " b"})] * 20
    rows[16] = '{"prompt": "a:", "completion"'
    file.write_text("\n".join(rows))
    assert "row 17" in (sentence := refused(capsys, "data", "lint", file, "--model", folder)), sentence
    rows[16] = json.dumps({"prompt": "a:", "text": " b"})
    file.write_text("\n".join(rows))
    sentence = refused(capsys, "data", "lint", file, "--model", folder)
    assert "row 17" in sentence and "completion" in sentence and "text" in sentence


def test_merge_makes_one_model_of_an_adapter_and_its_base(folder, tmp_path, capsys):
    base = load_model(folder)
    settings = LMConfig(str(folder), lora_rank=2, lora_targets=("v_proj",))
    adapters = jax.tree.map(lambda x: x + 0.1, init_adapters(jax.random.key(0), base.params, 2, ("v_proj",)))
    save_adapters(tmp_path / "adapter", settings, adapters)
    lines = said(capsys, "merge", tmp_path / "adapter", tmp_path / "merged")[0].splitlines()
    assert lines[0].split() == ["model", str(tmp_path / "merged")]
    assert json.loads(lines[-1]) == {"model": str(tmp_path / "merged")}
    assert_same(load_model(tmp_path / "merged").params, load_model(tmp_path / "adapter").params)
    greedy = ("ab", "--max-new-tokens", 8, "--temperature", 0)
    said_by = [said(capsys, "generate", tmp_path / name, *greedy)[0] for name in ("adapter", "merged")]
    assert said_by[0] == said_by[1] != said(capsys, "generate", folder, *greedy)[0]
    assert "is no adapter" in refused(capsys, "merge", folder, tmp_path / "again")
    assert "not empty" in refused(capsys, "merge", tmp_path / "adapter", tmp_path / "merged")

    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(file.read_text().replace(str(folder), "nowhere"))
    assert "there is no model 'nowhere'" in refused(capsys, "merge", tmp_path / "adapter", tmp_path / "again")
    said(capsys, "merge", tmp_path / "adapter", tmp_path / "again", "--base", folder, "--dtype", "bfloat16")
    assert load_model(tmp_path / "again", "bfloat16").params.embed.dtype == "bfloat16"


def test_who_reads_no_further_than_the_first_line_gets_it_and_no_traceback():
    listed = f"{sys.executable} -m jaxrl list | head -2"
    out = subprocess.run(listed, shell=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert out.stdout.splitlines()[0] == "environments:" and out.stderr == ""


def test_a_terminal_of_ascii_shows_what_it_can():
    command = [sys.executable, "-m", "jaxrl", "train", "--help"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "ppo/cartpole" in done.stdout, done.stderr
