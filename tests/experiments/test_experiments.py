"""The command line: every field an option, one sentence for bad input, one JSON line at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl import PPO, cli
from jaxrl.algorithms import ALGORITHMS
from jaxrl.envs import registry
from jaxrl.training.programs import program

ROOT = Path(__file__).parents[2]
UNAVAILABLE = set(registry.unavailable())  # those of extras that are not installed here


@pytest.mark.parametrize("name", cli.names())
def test_every_shipped_config_is_valid_and_says_what_to_expect(name):
    config = cli.named(name)
    if hasattr(config, "env") and not {config.env.name, config.env.name.partition("/")[0]} & UNAVAILABLE:
        program(config)
    header = (ROOT / "configs" / f"{name}.yaml").read_text().split("algorithm:")[0]
    expected = "return" if hasattr(config, "env") else "reward"
    assert header.startswith("#") and expected in header, "the header says machine, time and the result to expect"


def test_a_preset_goes_by_the_device_or_by_name(capsys):
    assert cli.preset("ppo/humanoid", ["--seed", "1"]) == (cli.named("ppo/humanoid_cpu"), ["--seed", "1"])
    assert cli.preset("ppo/humanoid", ["--preset", "dpo/sentiment", "--seed", "1"]) == (
        cli.named("dpo/sentiment"),
        ["--seed", "1"],
    )
    with pytest.raises(SystemExit):
        cli.preset("ppo/humanoid", ["--preset", "ppo/humanoids"])
    assert "no config file at" in capsys.readouterr().err


def test_every_field_and_option_can_be_given():
    argv = [
        "--gamma",
        "0.5",
        "--hidden",
        "32",
        "16",
        "--num-envs",
        "4",
        "--normalize-obs",
        "--seed",
        "7",
        "--run-dir",
        "there",
        "--logs",
        "3",
    ]
    config, options = cli.parse(PPO(), None, argv)
    assert (config.gamma, config.hidden, config.env.num_envs, config.normalize_obs) == (0.5, (32, 16), 4, True)
    assert (options["seed"], options["run_dir"], options["schedule"].logs) == (7, Path("there"), 3)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--gamma", "2"], "gamma = 2 is out of range; it must be between 0 and 1"),
        (["--total-steps", "1000"], "total_steps = 1000 is not a multiple of the 1024 steps of an update; try 1024"),
        (["--name", "gymnax/Cartpole"], "unknown environment 'gymnax/Cartpole'; the nearest are gymnax/CartPole-v1"),
        (["--activation", "tan"], "activation = 'tan' is not one of"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(argv, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.launch(PPO(), None, argv)
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


def experiment(*command, cwd):
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


SMALL = ["--logs", "2", "--evals", "1", "--saves", "1", "--eval-episodes", "4"]
KEYS = "return return_std episode_length invalid_steps zero_action_return random_return env_steps train_seconds "
KEYS += "invalid_steps_in_training skipped_gradient_steps"


def test_cartpole_experiment_runs_and_prints_its_figures(tmp_path):
    script = ROOT / "experiments/cartpole_reinforce.py"
    figures = experiment(script, "--total-steps", "16000", "--run-dir", "out", *SMALL, cwd=tmp_path)
    assert set(f"{KEYS} compile_seconds steps_per_second num_compilations devices processes run_dir".split()) == set(
        figures
    )
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000


def test_train_experiment_takes_a_config_and_a_new_algorithm_needs_no_change_of_the_library(tmp_path):
    settings = ["--total-steps", "1024", "--num-envs", "8", *SMALL]
    assert experiment(ROOT / "experiments/train.py", "ppo/cartpole", *settings, cwd=tmp_path)["env_steps"] == 1024
    rloo = ["--total-steps", "16000", *SMALL]
    assert experiment(ROOT / "experiments/new_algorithm.py", *rloo, cwd=tmp_path)["env_steps"] == 16000


def test_sweep_experiment_draws_its_plot(tmp_path):
    script = ROOT / "experiments/cartpole_sweep.py"
    small = ["--seeds", "1", "--total-steps", "2560", "--run-dir", "out"]
    figures = experiment(script, *small, *SMALL, cwd=tmp_path)
    assert figures["members"] == 16
    assert (tmp_path / "out" / "sweep.png").stat().st_size > 10_000
    assert "learning_rate" in (tmp_path / "out" / "report.html").read_text()


def test_humanoid_experiment_ends_with_an_animation_that_needs_no_network(tmp_path):
    script = ROOT / "experiments/humanoid_ppo.py"
    small = [
        "--preset",
        "ppo/humanoid_cpu",
        "--total-steps",
        "256",
        "--num-envs",
        "16",
        "--time-limit",
        "30",
        "--run-dir",
        "out",
    ]
    figures = experiment(script, *small, *SMALL, cwd=tmp_path)
    assert "forward_speed" in figures
    page = (tmp_path / "out" / "animation.html").read_text()
    assert "<canvas" in page and "http" not in page


def test_unknown_config_lists_what_there_is(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "experiments/train.py", "ppo/nothing"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 2 and "no config file" in done.stderr


def test_algorithms_are_named_in_lower_case():
    control, language = {"ppo", "a2c", "reinforce"}, {"sft", "dpo", "kto", "reward", "rlhf", "grpo", "onlinedpo"}
    assert set(ALGORITHMS) == control | language
