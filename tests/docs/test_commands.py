"""Every command line in README and the documentation is one that jaxrl takes: it is parsed as it stands, up to where it
would begin to work."""

import argparse
import functools
import inspect
import os
import re
import runpy
import shlex
import sys

import pytest
import tyro

from jaxrl.cli import command
from tests.docs.pages import PAGES, ROOT, blocks, name, write_files

# Not ours to parse: the shell's, a scheduler's, or an installer's.
_OTHERS = {"cd", "git", "pip", "python", "python3", "srun", "sbatch", "sky", "gcloud", "source", "export", "docker"}
_SETS = re.compile(r"[A-Z_]+=")


class Parsed(BaseException):
    """The words were understood."""


def lines():
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                while words and _SETS.match(words[0]):
                    words = words[1:]
                if words and words[0] not in _OTHERS:
                    yield pytest.param(page, words, id=f"{name(page)}: {' '.join(words)}")


@pytest.fixture
def parsing(monkeypatch, tmp_path):
    """Whoever parses words stops there."""
    whole, among, parse = tyro.cli, tyro.extras.subcommand_cli_from_dict, argparse.ArgumentParser.parse_args

    def idle(call):
        @functools.wraps(call)
        def called(*args, **kwargs): ...

        return called

    def cli(what, **options):
        whole(idle(what) if inspect.isfunction(what) else what, **options)
        raise Parsed

    def subcommands(verbs, **options):
        with monkeypatch.context() as patch:
            patch.setattr(tyro, "cli", whole)
            among({name: idle(verb) for name, verb in verbs.items()}, **options)
        raise Parsed

    def parsed(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", cli)
    monkeypatch.setattr(tyro.extras, "subcommand_cli_from_dict", subcommands)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(("page", "words"), list(lines()))
def test_it_is_parsed_as_it_stands(page, words, parsing, monkeypatch, tmp_path):
    write_files(page, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    program, rest = os.path.basename(words[0]), words[1:]
    if program in ("test", "docs"):
        assert (ROOT / words[0]).is_file()
        return
    if program == "run" and rest[:2] == ["-m", "jaxrl"]:
        program, rest = "jaxrl", rest[2:]
    file = ROOT / (rest[0] if program == "run" else words[0])
    if program == "run":
        rest = rest[1:]
    monkeypatch.setattr(sys, "argv", [str(file), *rest])
    with pytest.raises(SystemExit if rest[-1:] == ["--help"] else Parsed):
        if program == "jaxrl":
            command.main(rest)
            return
        assert file.is_file(), "there is no such file"
        monkeypatch.syspath_prepend(file.parent)  # as Python does for a script
        try:
            runpy.run_path(str(file), run_name="__main__")
        except ModuleNotFoundError as error:
            pytest.skip(f"{file.name} needs {error.name}, of an extra that is not installed")
