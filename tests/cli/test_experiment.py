"""What the command line makes a sentence of, and what it leaves alone."""

import json
import sys
import warnings

import jax
import numpy as np
import pytest

from jaxrl import PPO, cli
from jaxrl.runs.divergence import Diverged
from jaxrl.runs.preemption import Stopped
from jaxrl.types import InputError


def test_bad_input_is_shortened_to_its_sentence(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise InputError("gamma = 2 is out of range; it must be between 0 and 1")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: gamma = 2 is out of range; it must be between 0 and 1\n"


def test_a_run_that_was_asked_to_stop_says_so_in_its_line_of_json_too(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences(), cli.sentences():  # a verb's within the command's
        raise Stopped("stopped by SIGTERM after 8 of 96 points")
    out, err = capsys.readouterr()
    assert stopped.value.code == 0 and "stopped by SIGTERM" in err
    assert json.loads(out) == {"stopped": "stopped by SIGTERM after 8 of 96 points"}


def test_an_interrupt_is_a_line_and_status_130(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise KeyboardInterrupt
    assert stopped.value.code == 130 and capsys.readouterr().err == "interrupted: what was saved before is kept\n"


def test_a_run_that_diverged_has_status_3_and_its_sentence_on_both_sides(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise Diverged("training has diverged", 8, 4)
    out, err = capsys.readouterr()
    assert stopped.value.code == 3 and err == "error: training has diverged\n"
    assert json.loads(out) == {"diverged": "training has diverged"}


def test_a_device_that_is_too_small_is_a_sentence(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 250869763240 bytes.\nmore")
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: the device has too little memory (RESOURCE_EXHAUSTED")
    assert "more" not in said and "take fewer rows at once: smaller --num-envs" in said


@pytest.mark.parametrize("missing", [AssertionError(), RuntimeError("Unable to initialize backend 'tpu': no libtpu")])
def test_a_device_that_is_not_there_is_a_sentence(capsys, monkeypatch, missing):
    def devices():
        raise missing

    monkeypatch.setattr(jax, "devices", devices)
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise missing
    said = capsys.readouterr().err
    assert (
        stopped.value.code == 2
        and "JAX_PLATFORMS = 'tpu', and JAX finds no such device" in said
        and str(missing) in said
    )


def test_a_warning_is_a_sentence_and_one_of_pythons_says_where():
    plain = warnings.formatwarning
    with cli.sentences(), cli.sentences():
        assert warnings.formatwarning(UserWarning("no checkpoint fits"), UserWarning, "file.py", 3) == (
            "warning: no checkpoint fits\n"
        )
        said = warnings.formatwarning(DeprecationWarning("old"), DeprecationWarning, "file.py", 3, line="old()")
        assert said == "file.py:3: DeprecationWarning: old\n  old()\n"
    assert warnings.formatwarning is plain


@pytest.mark.parametrize("fault", [lambda: np.zeros(3) + np.zeros(4), lambda: int("x"), lambda: {}["missing"]])
def test_every_other_error_keeps_its_traceback(fault):
    with pytest.raises((ValueError, KeyError)) as error, cli.sentences():
        fault()
    assert not isinstance(error.value, SystemExit)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ppo/cartpol", r"no config file at ppo/cartpol; did you mean 'ppo/cartpole'\?"),
        ("configs/ppo/cartpol.yaml", r"no config file at configs/ppo/cartpol.yaml; did you mean 'ppo/cartpole'\?"),
        ("runs/gone/config.yaml", r"no config file at runs/gone/config.yaml; a path will do, or a name: a2c/acrobot"),
    ],
)
def test_a_config_that_is_not_there_is_named_as_it_was_asked_for(name, sentence):
    with pytest.raises(InputError, match=sentence):
        cli.named(name)


def test_what_parses_a_command_line_imports_from_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    for _ in range(2):
        cli.parse(PPO(), None, [])
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize("name", ["ppo/cartpole", "ppo/cartpole.yaml", "configs/ppo/cartpole"])
def test_a_config_that_ships_is_found_from_anywhere(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.named(name) == cli.named("ppo/cartpole")


def test_the_help_that_a_mistake_points_to_is_there(monkeypatch, capsys):
    typed = ["experiments/train.py", "ppo/cartpole", "--lerning-rate", "1e-3"]
    monkeypatch.setattr("sys.argv", typed)
    with pytest.raises(SystemExit):
        cli.parse(cli.named("ppo/cartpole"), None, typed[2:])
    assert "scripts/run experiments/train.py ppo/cartpole --help" in " ".join(capsys.readouterr().err.split())


def test_options_may_be_typed_with_their_section():
    """As the file has them, and as "set env.time_limit" says them."""
    words = "--env.num-envs 3 --algorithm.gamma=0.9 --env.options max_torque 1.5 --env.name=my.own:Env"
    config, _ = cli.parse(PPO(), None, words.split())
    assert (config.env.num_envs, config.gamma, config.env.name) == (3, 0.9, "my.own:Env")
    assert config.env.options == {"max_torque": 1.5}


@pytest.mark.parametrize("typed", ["--hidden 8 16", "--hidden 8,16", "--hidden=8,16", "--hidden 8, 16"])
def test_widths_are_typed_with_spaces_or_commas(typed):
    """As `--sweep.hidden "8,16;32"` has them."""
    config, _ = cli.parse(PPO(), None, [*typed.split(), "--critic-hidden", "4,4", "--gamma", "0.9"])
    assert (config.hidden, config.critic_hidden, config.gamma) == ((8, 16), (4, 4), 0.9)


def test_truths_are_switches_and_options_however_they_are_written():
    words = "--normalize-obs False --normalize-return true --name line:Line --options slippery false size 4 label a"
    config, options = cli.parse(PPO(normalize_obs=True), None, [*words.split(), "--resume", "True"])
    assert (config.normalize_obs, config.normalize_return, options["resume"]) == (False, True, True)
    assert config.env.options == {"slippery": False, "size": 4, "label": "a"}


def test_a_file_that_is_not_utf8_is_a_sentence(tmp_path):
    (tmp_path / "mine.yaml").write_bytes("# größer\nalgorithm: {name: ppo}\n".encode("latin-1"))
    with pytest.raises(InputError, match="mine.yaml is not text in UTF-8 .*; save it as that"):
        cli.named(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_bytes("# größer\nalgorithm: {name: ppo}\n".encode())
    assert cli.named(tmp_path / "mine.yaml") == PPO()
