"""`jaxrl chat` and `winrate`: two models side by side, for a person and for a reward."""

import io
import json

import jax
import pytest

from jaxrl.cli import command
from jaxrl.cli.models import beside
from jaxrl.lm import save_model
from tests.cli.test_command import refused
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

REWARDS = """
def letters(prompts, completions):
    return [sum(map(str.isalpha, text)) for text in completions]

def nothing(prompts, completions):
    return [None] * len(completions)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model with likings, and one to which all tokens are alike."""
    folder = tmp_path_factory.mktemp("models")
    config = config_of("llama", vocab_size=300, num_hidden_layers=1)
    params = jax.tree.map(lambda x: 0.3 * x if x.ndim > 1 else x, params_of(config))
    save_model(folder / "any", config, params, byte_tokenizer())
    params.norm.weight[...] = 0 * params.norm.weight[...]
    save_model(folder / "flat", config, params, byte_tokenizer())
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"{i}: "}) for i in range(12)))
    (folder / "letter_rewards.py").write_text(REWARDS)
    return folder


def said(capsys, *argv):
    capsys.readouterr()
    command.main([str(word) for word in argv])
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def win(folders, capsys, *more, model="any", against="flat", reward="letter_rewards:letters"):
    asked = ["--path", folders / "prompts.jsonl", "--reward", reward, "--max-new-tokens", 6, "--batch-size", 5]
    return said(capsys, "winrate", folders / model, folders / against, *asked, *more)


def test_a_model_against_itself_is_a_tie(folders, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folders)
    lines, told = win(folders, capsys, against="any")
    assert (told["winrate"], told["ties"], told["prompts"]) == (0.5, 1.0, 12)
    assert "wins 50.0% of 12 prompts against" in lines[0]


def test_two_models_are_two_sides_of_one_number(folders, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folders)
    one, other = win(folders, capsys)[1], win(folders, capsys, model="flat", against="any")[1]
    assert one["winrate"] == pytest.approx(1 - other["winrate"]) and one["reward"] == other["reward_against"]
    assert one["low"] <= one["winrate"] <= one["high"] and one["prompts"] == 12
    assert win(folders, capsys, "--batch-size", 12)[1] == one  # however they are batched


def test_without_a_score_nothing_is_compared(folders, capsys, monkeypatch):
    monkeypatch.syspath_prepend(folders)
    asked = ["winrate", folders / "any", folders / "flat", "--path", folders / "prompts.jsonl", "--max-new-tokens", 4]
    assert "gave no finite score to any of 12 prompts" in refused(capsys, *asked, "--reward", "letter_rewards:nothing")


def test_both_are_told_the_same_and_answer_side_by_side(folders, capsys, monkeypatch):
    words = ["chat", folders / "any", "--against", folders / "flat", "--max-new-tokens", 8, "--temperature", 0]
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\nand more\n\nhello\n"))
    lines, told = said(capsys, *words)
    assert told == {"models": [str(folders / "any"), str(folders / "flat")], "messages": 3}
    assert all(" | " in line or len(line) <= 40 for line in lines)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    again, _ = said(capsys, *words)
    assert lines[: len(again)] == again == lines[-len(again) :]  # an empty line forgets


def test_a_model_without_a_template_is_not_talked_to(folders, tmp_path, capsys):
    config = config_of("llama", vocab_size=300, num_hidden_layers=1)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    save_model(tmp_path / "plain", config, params_of(config), tokenizer)
    assert "has no chat template; talk to it by jaxrl generate" in refused(capsys, "chat", tmp_path / "plain")


def test_one_whose_context_is_full_forgets_the_oldest_words(folders, capsys, monkeypatch):
    said_at_last = []
    for lines in ("a" * 40 + "\n" + "b" * 40 + "\n", "b" * 40 + "\n"):  # of 128 tokens, with ids for bytes
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        capsys.readouterr()
        command.main(["chat", str(folders / "any"), "--max-new-tokens", "30", "--temperature", "0", "--system", "Be"])
        out, err = capsys.readouterr()
        said_at_last.append(out.splitlines()[:-1])
        assert ("has forgotten its oldest 2 messages" in err) == ("a" in lines)
    assert said_at_last[0][-len(said_at_last[1]) :] == said_at_last[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("c" * 200 + "\n"))
    assert "shorten the prompt\n" in refused(capsys, "chat", folders / "any", "--max-new-tokens", 30)


@pytest.mark.parametrize("name", ["prompts", "max-new-tokens", "batch-size"])
def test_a_winrate_of_nothing_is_refused(folders, capsys, name):
    asked = ["winrate", folders / "any", folders / "any", "--path", folders / "prompts.jsonl", "--reward", "a:b"]
    assert f"{name.replace('-', '_')} = 0 must be at least 1" in refused(capsys, *asked, f"--{name}", 0)


def test_columns_hold_their_width():
    assert beside(["one two three", "four"], 8) == ["one two  | four", "three    |"]
    assert beside(["a\n\nb"], 5) == ["a", "", "b"]
