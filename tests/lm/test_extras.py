"""Control without the packages of language models, and a sentence for who asks for these."""

import subprocess
import sys
import textwrap

import pytest

from jaxrl.lm.extras import package

ABSENT = ("tokenizers", "safetensors", "gguf", "jinja2", "huggingface_hub", "pyarrow", "spacy", "vaderSentiment")


def without_extras(code: str) -> str:
    """What a process prints in which none of the optional packages can be imported."""
    blocked = f"""
    import sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name in {ABSENT}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Absent())
    """
    command = [sys.executable, "-c", textwrap.dedent(blocked) + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_control_needs_none_of_them(tmp_path):
    code = f"""
    from jaxrl import PPO, EnvConfig, Schedule, cli, run
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=128, num_steps=16)
    print(run(config, 0, {str(tmp_path / "run")!r}, schedule=Schedule(2, 1, 1), progress=False).figures["env_steps"])
    """
    assert without_extras(code).strip() == "128"


@pytest.mark.parametrize(
    "ask, package, extra",
    [
        ("from jaxrl import lm; lm.load_model('smollm2-135m')", "gguf", "lm"),
        ("from jaxrl import lm; lm.load_model('organisation/name')", "huggingface_hub", "lm"),
        ("from jaxrl.lm.text.tokenizer import Tokenizer; Tokenizer.from_gguf(None)", "tokenizers", "lm"),
        ("from jaxrl.data.reading.folders import raw_rows; raw_rows('FOLDER/rows.parquet')", "pyarrow", "lm"),
        ("sys.path.append('experiments'); import sentiment; sentiment.Judges()", "spacy", "sentiment"),
    ],
)
def test_a_call_that_needs_one_is_refused_with_the_command_that_installs_it(ask, package, extra, tmp_path):
    (tmp_path / "rows.parquet").write_text("PAR1")
    code = f"""
    from jaxrl.types import InputError
    try:
        {ask.replace("FOLDER", str(tmp_path))}
    except InputError as error:
        print(error)
    """
    sentence = without_extras(code)
    assert f"need the package {package}, which is not installed; " in sentence
    assert f"NEEDS={extra} scripts/run -m jaxrl env adds it" in sentence


def test_a_package_that_is_there_and_broken_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        package("half_there", "halves")
