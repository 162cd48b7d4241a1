"""From a config to a run, from a run to what it shows, and what else a run needs.

    jaxrl train ppo/cartpole --seed 1 --run-dir runs/mine
    jaxrl sweep ppo/cartpole --sweep.learning-rate log:1e-4:1e-2:8 --seeds 16
    jaxrl resume runs/mine
    jaxrl evaluate runs/mine --episodes 1000
    jaxrl render runs/mine
    jaxrl report runs/mine runs/other
    jaxrl export runs/mine policy
    jaxrl finetune sft --path mine.jsonl --name smollm2-135m
    jaxrl generate smollm2-135m "Why is the sky blue?" --chat --temperature 0
    jaxrl chat runs/mine/model --against smollm2-135m
    jaxrl winrate runs/mine/model smollm2-135m --path prompts.jsonl --reward my_rewards:score
    jaxrl data lint reviews.jsonl --max-length 64
    jaxrl merge runs/mine/adapter merged
    jaxrl check my_mazes:Maze --options size 5
    jaxrl bench --envs brax/humanoid --num-envs 256
    jaxrl list
    jaxrl env

Every command ends with one line of JSON on stdout. Bad input is a sentence on stderr and status 2, a run that diverged
status 3, a disk that takes no more status 4.
"""

import contextlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence

import tyro

from jaxrl.cli.benchmark import bench
from jaxrl.cli.dataset import data
from jaxrl.cli.experiment import import_from_here, join, paragraphs, sentences
from jaxrl.cli.inspection import listing, surroundings
from jaxrl.cli.models import chat, generate, merge, winrate
from jaxrl.cli.rendering import export, render
from jaxrl.cli.reporting import report
from jaxrl.cli.sweeping import sweep
from jaxrl.cli.training import evaluate, finetune, resume, train
from jaxrl.cli.trials import check
from jaxrl.settings import closest
from jaxrl.types import InputError

VERBS: dict[str, Callable[..., None]] = {
    "train": train,
    "finetune": finetune,
    "sweep": sweep,
    "resume": resume,
    "evaluate": evaluate,
    "render": render,
    "report": report,
    "export": export,
    "list": listing,
    "env": surroundings,
    "check": check,
    "generate": generate,
    "chat": chat,
    "winrate": winrate,
    "data": data,
    "merge": merge,
    "bench": bench,
}
# These take the words after them as they are: what they are about, named first, decides which options there are.
OF_WORDS = (train, finetune, sweep, check)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line. Bad input is a sentence on stderr and exit status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = VERBS.get(words[0]) if words else None
    import_from_here()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows ASCII alone shows "?", and no traceback
            stream.reconfigure(errors="replace")
    with sentences(), _unread():
        join()
        if verb is None and words and not words[0].startswith("-"):
            hint = closest(words[0], list(VERBS)) or f"; it has {', '.join(VERBS)}"
            raise InputError(f"jaxrl has no command {words[0]!r}{hint}")
        if verb is None:  # help, or a sentence on what there is
            listed = {name: _listed(verb) for name, verb in VERBS.items()}
            tyro.extras.subcommand_cli_from_dict(listed, args=words, prog="jaxrl", description=paragraphs(__doc__))
        elif verb in OF_WORDS:
            verb(words[1:])
        else:
            tyro.cli(verb, args=words[1:], prog=f"jaxrl {words[0]}", description=paragraphs(verb.__doc__))


@contextlib.contextmanager
def _unread() -> Iterator[None]:
    """Ends in silence where whoever reads has had enough, as in `jaxrl list | head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # lest Python's own last flush complain


def _listed(verb: Callable[..., None]) -> Callable[[], None]:
    """What the list of commands says of one: how its docstring begins."""

    def shown() -> None: ...

    shown.__doc__ = " ".join(inspect.cleandoc(verb.__doc__).split("\n\n")[0].split())
    return shown
