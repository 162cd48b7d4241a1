"""`jaxrl list` and `jaxrl env`."""

import json
import re

import jax
import pytest

from jaxrl.cli import command
from jaxrl.cli.experiment import names
from jaxrl.cli.inspection import recommended


def said(capsys, *argv):
    command.main(argv)
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def test_everything_there_is_is_listed(capsys):
    lines, found = said(capsys, "list")
    assert {"gymnax/CartPole-v1", "brax/humanoid", "probe/match"} <= set(found["environments"])
    assert found["unavailable"]["gymnax/MNISTBandit-bsuite"] == "downloads its images when it is made"
    assert list(found["algorithms"]) == [
        "reinforce",
        "a2c",
        "ppo",
        "sft",
        "reward",
        "dpo",
        "kto",
        "rlhf",
        "grpo",
        "onlinedpo",
    ]
    assert found["algorithms"]["a2c"].endswith("A3C (Mnih et al. 2016, arXiv 1602.01783, algorithm S3)")
    assert list(found["configs"]) == names()
    assert found["configs"]["ppo/humanoid"] == "A humanoid that learns to walk, sized for one GPU or TPU"
    shown = "\n".join(lines)
    for title in ("environments:", "registered, and not available:", "algorithms:", "configs:"):
        assert f"{title}\n  " in shown
    assert re.search(r"MNISTBandit-bsuite +downloads its images", shown)


def test_one_of_the_three_is_listed_alone(capsys):
    lines, found = said(capsys, "list", "configs")
    assert list(found) == ["configs"] and lines[0] == "configs:"


def test_the_machine_is_described(capsys):
    lines, found = said(capsys, "env")
    assert found["versions"]["jax"] == jax.__version__ and "orbax-checkpoint" in found["versions"]
    assert found["platform"] == jax.default_backend() and found["cores"] >= 1 and found["memory_gib"] > 0
    assert found["compilation_cache"]["path"] == jax.config.jax_compilation_cache_dir
    assert found["compilation_cache"]["programs"] > 0 and found["compilation_cache"]["mib"] > 0
    assert found["recommended"] == [] and lines[-1].split() == ["recommended", "none"]


@pytest.mark.parametrize(
    ("platform", "environ", "sees_gpu", "cache", "words"),
    [
        ("cpu", {}, False, "there", None),
        ("cpu", {}, True, "there", r"pip install 'jaxrl[cuda]'"),
        ("cpu", {"JAX_PLATFORMS": "cpu"}, True, "there", None),
        ("gpu", {}, True, "there", "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"),
        ("gpu", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}, True, "there", None),
        ("cpu", {}, False, None, "JAXRL_CACHE=DIR"),
    ],
)
def test_only_what_is_of_use_is_recommended(platform, environ, sees_gpu, cache, words):
    found = recommended(platform, environ, sees_gpu, cache)
    assert found == [] if words is None else len(found) == 1 and words in found[0]
