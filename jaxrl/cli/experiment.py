"""The command line of experiments: every field of a config as an option, one JSON line of figures at the end."""

import dataclasses
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxrl.algorithms import ALGORITHMS
from jaxrl.config_file import load_config
from jaxrl.runs.directory import NotSaved
from jaxrl.runs.divergence import Diverged
from jaxrl.runs.driver import RunResult, Schedule, run
from jaxrl.runs.preemption import Stopped
from jaxrl.settings import check, closest
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.training.processes import end_at_once, initialize, is_first
from jaxrl.types import InputError

_JAXRL = Path(__file__).parents[1]
# A wheel has the configs inside, a checkout beside.
CONFIGS = _JAXRL / "presets" if (_JAXRL / "presets").is_dir() else _JAXRL.parent / "configs"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked of one run, beside its config."""

    seed: int = 0
    """Seed of everything."""
    run_dir: Path | None = None
    """Where to write; by default a new directory under runs/."""
    resume: bool = False
    """Go on with the run in run_dir, exactly."""
    accept_changes: bool = False
    """Go on with it although config, seed or what it is given are others than they were."""
    backoff: float = 1.0
    """What the learning rate is multiplied by when a run that diverged goes back to its last good checkpoint."""
    schedule: Schedule = Schedule()
    """How often to log, evaluate and save."""
    wandb: str | None = None
    """A project of Weights & Biases to log to as well; needs the extra jaxrl[wandb]."""


def named(name: str | Path, among: Sequence[str] = ()) -> Any:
    """A config from a YAML file: a path, or a name within configs/, such as "ppo/humanoid_cpu". among: those that are
    proposed where it is neither, by default all.
    """
    path, plain = Path(name), str(Path(name).with_suffix("")).removeprefix("configs/")
    shipped = CONFIGS / f"{plain}.yaml"
    if not path.is_file() and not shipped.is_file():
        listed = among or names()
        own = [other for other in listed if other.startswith(f"{plain}/")]
        hint = "" if own else closest(plain, listed)
        hint = hint or f"; a path will do, or a name: {', '.join(own or listed)}"
        raise InputError(f"no config file at {name}{hint}")
    return load_config(path if path.is_file() else shipped, ALGORITHMS)


def preset(name: str, argv: list[str]) -> tuple[Any, list[str]]:
    """The config `name`_cpu on CPU and `name` on GPU and TPU, or what `--preset` at the head of `argv` asks for; and
    the arguments after it. A bad name ends the program with status 2 and a sentence.
    """
    with sentences():
        join()
    chosen = f"{name}_cpu" if jax.default_backend() == "cpu" else name
    if argv[:1] == ["--preset"] and len(argv) > 1:
        chosen, argv = argv[1], argv[2:]
    with sentences():
        return named(chosen), argv


def join() -> None:
    """Where this was started as one of several processes, join the others; the first alone prints."""
    initialize()
    if jax.distributed.is_initialized() and not is_first():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def names() -> list[str]:
    """The configs that ship with jaxrl, as `named` takes them."""
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*.yaml"))


def launch(config: Any, description: str | None, argv: list[str] | None = None, **given: Any) -> None:
    """An experiment from its command line to its last line: parse, run, report.

    given: as for `run`. Bad input ends the program with status 2 and a sentence, a run that diverged with status 3.
    """
    with sentences():
        config, options = parse(config, description, argv)
        report(run(config, **options, **given))


def parse(
    config: Any, description: str | None, argv: list[str] | None = None, options: Any = Options()
) -> tuple[Any, dict[str, Any]]:
    """The config and the options (by default the keyword arguments of `run`) after the command line had its say.

    A bad value ends the program with status 2 and the sentence that explains it.
    """
    import tyro

    import_from_here()
    with sentences():
        join()
    enable_compilation_cache()
    flat = tyro.conf.OmitArgPrefixes
    fields = [("config", flat[type(config)], config), ("options", flat[type(options)], options)]
    arguments = dataclasses.make_dataclass("Arguments", fields, frozen=True)
    words = truths(_apart(config, _bare(config, sys.argv[1:] if argv is None else argv)), config, options)
    parsed = tyro.cli(arguments, prog=_typed(argv), description=paragraphs(description), args=words)
    with sentences():
        check(parsed.config)
    options = parsed.options
    return parsed.config, {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}


def _bare(config: Any, words: list[str]) -> list[str]:
    """The words with options as they are listed, which may be typed as in a config's file and in what is said of one:
    --env.num-envs, --algorithm.gamma.
    """
    sections = [f.name for f in dataclasses.fields(config) if dataclasses.is_dataclass(getattr(config, f.name))]
    named = re.compile(f"^--({'|'.join(['algorithm', *sections])})[.]")
    return [named.sub("--", word, count=1) for word in words]


def _apart(config: Any, words: list[str]) -> list[str]:
    """The words with lists of whole numbers taken apart, which may be typed with commas, as after --sweep.FIELD."""
    lists = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(config) if "tuple[int" in str(f.type)}
    found, within = [], False
    for word in words:
        option, equals, value = word.partition("=")
        if word.startswith("--"):
            within = option.replace("_", "-") in lists
        if within and (equals or not word.startswith("--")):
            found += [option] * bool(equals) + [part for part in (value or word).split(",") if part]
        else:
            found.append(word)
    return found


def truths(words: list[str], *settings: Any) -> list[str]:
    """The words with "true" and "false", however they are written, as switches of these settings (--normalize-obs False
    is --no-normalize-obs) and as values of --options, where tyro would take a text that is true."""
    plain = [field for one in settings for field in _plain(one)]
    switches = {f"--{name.replace('_', '-')}" for name, value in plain if isinstance(value, bool)}
    found, of_options = [], False
    for word in words:
        if word.startswith("--"):
            of_options = word == "--options"
        before = found[-1].replace("_", "-") if found else ""
        if word.lower() not in ("true", "false"):
            found.append(word)
        elif before in switches:
            found[-1] = before if word.lower() == "true" else f"--no-{before[2:]}"
        else:
            found.append(word.capitalize() if of_options else word)
    return found


def _plain(settings: Any) -> Iterator[tuple[str, Any]]:
    """The fields of settings and of their sections, with their values."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        yield from _plain(value) if dataclasses.is_dataclass(value) else [(field.name, value)]


def import_from_here() -> None:
    """Let "my_mazes:Maze" be found in this folder: a command that is installed, or a script, has only its own."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _typed(argv: list[str] | None) -> str:
    """What was typed before the options: `--help` after it is the help that they are in."""
    before = 1 if argv is None else max(1, len(sys.argv) - len(argv))
    own = Path(sys.argv[0]).stem in ("jaxrl", "__main__")  # installed, or as python -m jaxrl
    program = ["jaxrl"] if own else ["scripts/run", sys.argv[0]]
    return " ".join([*program, *sys.argv[1:before]])


def paragraphs(text: str | None) -> str | None:
    """A docstring for tyro, which breaks lines at odd places: prose in one line a paragraph, for the terminal to break,
    and indented lines, which are examples, as they are. Without the arguments, which it tells itself.
    """
    if text is None:
        return None
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text).split("\n\nArgs:")[0])
    told = [part if part.startswith(" ") else " ".join(part.split()) for part in parts]
    return "\n\n".join(told).replace("\n\n ", "\n ")  # tyro sets a line of its own before what is indented


def file_for(path: Path) -> Path:
    """A file that is going to be written. Raises InputError where none can be, before it is worked for."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name a file elsewhere: --out FILE") from error
    if not there:
        path.unlink()
    return path


class sentences:
    """Turns bad input (InputError) into its sentence on stderr and exit status 2, and a run that diverged into
    status 3, a disk that takes no more into status 4. The line of JSON of a run that diverged, and of one that was
    asked to stop, is that sentence. An interrupt (a second Ctrl-C) is a line and status 130. A device that is not
    there, or has too little memory, is a sentence and status 2. Every other error is ours, and keeps its traceback.
    Warnings are sentences too, without the line of code that they come from.
    """

    def __enter__(self) -> None:
        self._format, warnings.formatwarning = warnings.formatwarning, self._formatted

    def _formatted(self, message: Any, category: Any, *where: Any, **line: Any) -> str:
        if category is not UserWarning:  # of Python's and other packages', the line is what helps
            return self._format(message, category, *where, **line)
        return f"warning: {message}\n"

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        warnings.formatwarning = self._format
        for what, ending in (("stopped", Stopped), ("diverged", Diverged)):
            if isinstance(error, ending):
                print(json.dumps({what: str(error)}))
        if isinstance(error, Stopped) and error.busy:
            end_at_once(0)  # all is saved and closed; what an evaluation would still find out is not waited for
        if isinstance(error, Stopped):
            sys.exit(error.code)  # said now, and not again by those around
        if isinstance(error, KeyboardInterrupt):
            print("interrupted: what was saved before is kept", file=sys.stderr)
            sys.exit(130)
        status = next((s for k, s in ((InputError, 2), (Diverged, 3), (NotSaved, 4)) if isinstance(error, k)), None)
        said = str(error)
        if status is None and (fault := _of_the_device(error)) is not None:
            status, said = 2, fault
        if status is not None:
            print(f"error: {said}", file=sys.stderr)
            if jax.distributed.is_initialized():
                end_at_once(status)
            sys.exit(status)


def _of_the_device(error: Any) -> str | None:
    """What to do about an error that JAX raises where a device is missing or too small; None for any other."""
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return (
            f"the device has too little memory ({str(error).splitlines()[0]}); take fewer rows at once: smaller "
            "--num-envs, --num-steps, --batch-size or --micro-batch-size"
        )
    asked = os.environ.get("JAX_PLATFORMS")
    if not asked or not isinstance(error, RuntimeError | AssertionError):
        return None
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as missing:  # AssertionError: "cuda" without JAX's package for it
        why = f" ({missing})" if str(missing) else ""
        return (
            f"JAX_PLATFORMS = {asked!r}, and JAX finds no such device here{why}; leave it out to take what there is, "
            "or install what it needs: pip install 'jaxrl[cuda]', or jaxrl[tpu]"
        )
    return None


def report(result: RunResult, **more: Any) -> None:
    """Print where things are, then the figures as one line of JSON: the last line of every experiment."""
    print(f"curve       {result.run_dir / 'curve.png'}")
    print(f"checkpoints {result.run_dir / 'checkpoints'}")
    print(json.dumps({**result.figures, **more}))
