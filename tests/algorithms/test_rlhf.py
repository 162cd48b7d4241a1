"""PPO and GRPO from a folder and prompts to a folder: what they are given, what they refuse, and that a run which was
stopped anywhere goes on to the same bytes.
"""

import itertools
import json
import signal
import time

import jax
import numpy as np
import pytest

from jaxrl import Schedule, replace, train
from jaxrl.algorithms import GRPO, RLHF, SFT, OnlineDPO, Reward
from jaxrl.data import DataConfig
from jaxrl.data.preparation import prepare_prompts
from jaxrl.lm import LMConfig, load_model, save_model
from jaxrl.lm.settings import Sampling
from jaxrl.reports.rows import read_metrics
from jaxrl.runs.finetuning import finetune, materials
from jaxrl.runs.preemption import Stopped
from jaxrl.settings import check
from jaxrl.types import RewardFailed
from tests.helpers.families import config_of, params_of
from tests.helpers.tokenizers import byte_tokenizer

PROMPTS = [{"prompt": f"{i} and {i + 1}", "wanted": "aeiou"[i % 5]} for i in range(20)]
QUICK = {"schedule": Schedule(logs=4, evals=2, saves=4), "progress": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm") / "tiny"
    config = config_of("llama", vocab_size=300, num_hidden_layers=1)
    params = jax.tree.map(lambda x: 0.3 * x if x.ndim > 1 else x, params_of(config))
    save_model(folder, config, params, byte_tokenizer())
    return folder


def settings(kind, folder, **changes):
    config = kind(lm=LMConfig(str(folder), logit_chunk=None), data=DataConfig(held_out=0.2))
    config = replace(
        config, sampling=Sampling(max_new_tokens=6), batch_size=16, max_updates=8, epochs=8, eval_prompts=4
    )
    return replace(config, **{"learning_rate": 3e-3, "warmup": 0.0, "kl_coef": 0.01, **changes})


def letters(prompts, completions, wanted):
    return [text.count(letter) + sum(map(str.isalpha, text)) for text, letter in zip(completions, wanted, strict=True)]


@pytest.mark.parametrize("kind", [RLHF, GRPO])
@pytest.mark.parametrize("adapters", [False, True])
def test_a_reward_of_texts_rises_and_the_folder_can_be_loaded(folder, tmp_path, kind, adapters):
    config = settings(kind, folder, max_updates=40, epochs=40, num_epochs=2, num_minibatches=2)
    if adapters:
        config = replace(config, lm=replace(config.lm, lora_rank=4), learning_rate=1e-2)
    tuned = finetune(config, PROMPTS, reward=letters, run_dir=tmp_path / "run", **QUICK)
    figures = tuned.result.figures
    assert figures["reward"] > figures["reward_before"] + 0.5 and figures["completions"] == 40 * 16
    assert max(row.get("ratio_error", 0) for row in read_metrics(tmp_path / "run" / "metrics.jsonl")) < 1e-4
    assert load_model(tuned.folder).params.score is None
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and set(lines[0]["samples"][0]) == {"prompt", "completion", "reward"}
    assert tuned.counts == {"rows": 20, "kept": 16, "truncated_prompts": 0, "held_out": 4}


def test_the_time_of_a_row_is_its_own(folder, tmp_path):
    """Not of the next one, which nothing lets run ahead of the host."""
    slow = 0.3

    def reward(prompts, completions):
        time.sleep(slow)
        return [0.0 for _ in prompts]

    often = {**QUICK, "schedule": Schedule(logs=4, evals=1, saves=1)}
    finetune(settings(RLHF, folder, max_updates=4), PROMPTS, reward=reward, run_dir=tmp_path / "run", **often)
    trained = [row["train_seconds"] for row in map(json.loads, (tmp_path / "run" / "timing.jsonl").open())]
    assert all(later - earlier >= slow for earlier, later in itertools.pairwise(trained))


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """Of PPO and GRPO: a config, and the directory of a run of it that nothing stopped."""
    configs = {
        RLHF: settings(RLHF, folder, kl_controller="adaptive", kl_target=1.0, critic="separate"),
        GRPO: settings(GRPO, folder),
    }

    def made(config):
        run_dir = tmp_path_factory.mktemp("whole")
        finetune(config, PROMPTS, reward=letters, run_dir=run_dir, **QUICK)
        return config, run_dir

    return {kind: made(config) for kind, config in configs.items()}


@pytest.mark.parametrize("at", [1, 3, 6])
def test_one_that_is_stopped_in_a_reward_goes_on_to_the_same_bytes(whole, tmp_path, at):
    (config, run_dir), calls = whole[RLHF], []

    def stopping(prompts, completions, wanted):
        calls.append(len(completions))
        if calls.count(16) == at and calls[-1] == 16:
            signal.raise_signal(signal.SIGTERM)
        return letters(prompts, completions, wanted)

    with pytest.raises(Stopped, match=f"after {16 * at} of 128 completions"):  # the batch at hand is learned from
        finetune(config, PROMPTS, reward=stopping, run_dir=tmp_path / "cut", **QUICK)
    again = {"resume": True, "accept_changes": True}  # the function that stops is another one
    finetune(config, PROMPTS, reward=letters, run_dir=tmp_path / "cut", **QUICK, **again)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (run_dir / name).read_bytes()


def test_a_reward_that_raises_says_on_what_and_nothing_is_lost(whole, tmp_path):
    (config, run_dir), calls = whole[GRPO], []

    def breaking(prompts, completions, wanted):
        calls.append(len(completions))
        if calls.count(16) > 5:
            raise KeyError("a word")
        return letters(prompts, completions, wanted)

    with pytest.raises(RewardFailed, match="the reward raised KeyError: 'a word', on the completion"):
        finetune(config, PROMPTS, reward=breaking, run_dir=tmp_path / "cut", **QUICK)
    calls.clear()
    mended = {"resume": True, "accept_changes": True}
    tuned = finetune(config, PROMPTS, reward=letters, run_dir=tmp_path / "cut", **QUICK, **mended)
    assert tuned.result.figures["completions"] == 128
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (run_dir / "metrics.jsonl").read_bytes()


def test_one_that_raises_while_it_judges_loses_nothing_either(whole, tmp_path):
    config, run_dir = whole[GRPO]

    def breaking(prompts, completions, wanted):
        if len(completions) == 4 and calls.append(0) is None and len(calls) == 2:  # held out, the second time
            raise KeyError("a word")
        return letters(prompts, completions, wanted)

    calls = []
    with pytest.raises(RewardFailed, match="the reward raised KeyError"):
        finetune(config, PROMPTS, reward=breaking, run_dir=tmp_path / "cut", **QUICK)
    calls.extend([0] * 9)
    mended = {"resume": True, "accept_changes": True}
    finetune(config, PROMPTS, reward=letters, run_dir=tmp_path / "cut", **QUICK, **mended)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (run_dir / "metrics.jsonl").read_bytes()


def test_a_reward_model_is_named_by_its_folder(folder, tmp_path):
    pairs = [{"prompt": "Say: ", "chosen": "e" * (1 + i % 4), "rejected": "x" * (1 + i % 4)} for i in range(24)]
    rewards = replace(Reward(lm=LMConfig(str(folder), logit_chunk=None)), batch_size=8, epochs=6, learning_rate=1e-2)
    made = finetune(rewards, pairs, run_dir=tmp_path / "rewards", progress=False)
    config = settings(GRPO, folder, max_updates=12, epochs=12, learning_rate=1e-2)
    tuned = finetune(config, PROMPTS, reward=str(made.folder), run_dir=tmp_path / "run", **QUICK)
    assert tuned.result.figures["reward"] > tuned.result.figures["reward_before"]
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["finetune"]["reward"] == str(made.folder)


def test_a_compiled_program_cannot_ask_a_host(folder):
    config = settings(GRPO, folder)
    given = materials(config, PROMPTS, reward=letters).given
    with pytest.raises(ValueError, match="a reward of texts .*, which no compiled program can call; train with `run`"):
        train(config, jax.random.key(0), **given)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (replace(RLHF(), kl_in="loss"), "kl_estimate = 'k1' has a gradient of 0 on the average in the loss"),
        (replace(RLHF(), kl_target=3.0), "kl_target = 3 is not read with kl_controller = 'fixed'"),
        (
            replace(RLHF(), batch_size=10, num_minibatches=4),
            "batch_size = 10 is not divisible by num_minibatches = 4; try 2",
        ),
        (
            replace(RLHF(), batch_size=12, micro_batch_size=5),
            "batch_size = 12 is not a multiple of micro_batch_size = 5",
        ),
        (replace(GRPO(), per_prompt=1), "per_prompt = 1 leaves grpo nothing to compare a score with"),
        (replace(GRPO(), batch_size=12), "batch_size = 12 is not divisible by per_prompt = 8; try 6"),
        (replace(GRPO(), baseline="rloo", by_std=False), "by_std = False is not read by baseline = 'rloo'"),
        (replace(GRPO(), kl_estimate="k1"), "kl_estimate = 'k1' has a gradient of 0"),
        (replace(GRPO(), temperature=0.0), "temperature = 0 says the same thing 8 times"),
        (replace(OnlineDPO(), temperature=0.0), "temperature = 0 says the same thing 2 times"),
        (replace(OnlineDPO(), batch_size=63), "batch_size = 63 is odd, and two completions are a pair"),
        (replace(OnlineDPO(), loss="ipo", label_smoothing=0.1), "label_smoothing = 0.1 is not read by loss = 'ipo'"),
    ],
)
def test_settings_that_cannot_be_or_do_nothing_are_refused(config, sentence):
    with pytest.raises(ValueError) as error:
        check(config)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("kind", "reward", "sentence"),
    [
        (RLHF, None, "RLHF learns from a reward; give one"),
        (SFT, letters, "reward is not read by SFT, which learns from rows"),
        (RLHF, "nowhere", "reward = 'nowhere' is neither a function nor a reward model"),
        (RLHF, "no.such:thing", r"reward = 'no.such:thing': cannot import 'no.such'"),
        (RLHF, "math:nothing", "reward = 'math:nothing': math has no 'nothing'"),
    ],
)
def test_what_is_no_reward_is_said(folder, kind, reward, sentence):
    config = kind(lm=LMConfig(str(folder)))
    with pytest.raises(ValueError, match=sentence):
        materials(config, PROMPTS, reward=reward)


def test_prompts_are_held_out_whole_and_numbered_by_their_rows():
    rows = [{"prompt": f"p{i // 2}"} for i in range(20)]
    data, asked, counts = prepare_prompts(DataConfig(held_out=0.3), byte_tokenizer(), rows)
    train, measured = (np.concatenate([np.asarray(b.row) for b in part]) for part in data)
    assert sorted([*train, *measured]) == list(range(20)) and asked == rows
    assert not {rows[i]["prompt"] for i in train} & {rows[i]["prompt"] for i in measured}
    assert counts == {"rows": 20, "kept": 14, "truncated_prompts": 0, "held_out": 6}
    cut = prepare_prompts(DataConfig(max_length=2, held_out=0.0), byte_tokenizer(), [*rows, {"prompt": "p" * 9}]).counts
    assert cut == {"rows": 21, "kept": 21, "truncated_prompts": 1, "held_out": 0}
    data, asked, _ = prepare_prompts(DataConfig(), byte_tokenizer(), rows[:3], rows[3:5])
    assert [np.asarray(b.row).tolist() for part in data for b in part] == [[0, 1, 2], [3, 4]]


def test_a_timeout_without_a_reward_is_refused(folder):
    with pytest.raises(ValueError, match=r"reward_timeout = 3\.0 is read where there is a reward; leave it out"):
        finetune(SFT(lm=LMConfig(str(folder))), [{"prompt": "a", "completion": "b"}] * 3, reward_timeout=3.0)


def test_what_leaves_nothing_to_learn_is_said_once(folder, tmp_path, capfd):
    config = settings(GRPO, folder)
    schedule = {"schedule": QUICK["schedule"], "progress": True}

    def said(reward, name):
        finetune(config, PROMPTS, reward=reward, run_dir=tmp_path / name, **schedule)
        return capfd.readouterr().err

    nothing = said(lambda prompts, completions, wanted: [1.0] * len(prompts), "nothing")
    assert nothing.count("no completion ends") == nothing.count("have the same reward") == 1
    assert "have the same reward" not in said(letters, "something")
    assert said(lambda prompts, completions: [None] * len(prompts), "none").count("has a finite reward") == 1


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["a", "b"], r"row 1 is 'a', not an object; a row is {\"prompt\": \.\.\.}"),
        ([], r"there are no rows; give at least one {\"prompt\": \.\.\.}"),
        ("prompts.jsonl", r"rows are 'prompts.jsonl', not a list of rows; a file is given by data.path"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(folder, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        materials(settings(GRPO, folder), rows, reward=letters)
