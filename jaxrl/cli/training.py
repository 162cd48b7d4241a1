"""jaxrl train, finetune, resume and evaluate: begin a run, go on with it, and measure it again. The first two are also
experiments/train.py and experiments/finetune.py.
"""

import dataclasses
import inspect
import json
import os
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tyro.conf import Positional

from jaxrl.algorithms import DPO, GRPO, KTO, RLHF, SFT, OnlineDPO, Reward
from jaxrl.cli.experiment import Options, launch, named, names, parse, report
from jaxrl.cli.sweeping import is_sweep, load, resume_sweep
from jaxrl.evaluators import evaluate as episodes
from jaxrl.evaluators.episodes import Behaviour, figures
from jaxrl.runs.directory import ABOUT, CONFIG, read_about, read_result
from jaxrl.runs.driver import Schedule
from jaxrl.runs.driver import run as begin
from jaxrl.runs.finetuning import Tuned, held_out_figures
from jaxrl.runs.finetuning import finetune as tune
from jaxrl.runs.loading import LoadedRun, NotHere, SavedRun, saved_run
from jaxrl.training import takes
from jaxrl.training.compilation_cache import enable_compilation_cache
from jaxrl.types import HostFailed, InputError

_FROM_ROWS = {
    "sft": SFT(),
    "reward": Reward(),
    "dpo": DPO(),
    "kto": KTO(),
    "rlhf": RLHF(),
    "grpo": GRPO(),
    "onlinedpo": OnlineDPO(),
}
_OF_FINETUNE = {
    "network",
    "params",
    "data",
    "samples",
    "tokenizer",
}  # what it makes itself, from the config and its options


@dataclasses.dataclass(frozen=True)
class FinetuneOptions(Options):
    """What is asked of one run, beside its config."""

    samples: int = 4
    """Held-out prompts to complete at every evaluation, into samples.jsonl."""
    sample_length: int = 64
    """Tokens of each completion, at most."""
    adapter_only: bool = False
    """Save the adapters alone, in run_dir/adapter, and not the model with them merged."""


@dataclasses.dataclass(frozen=True)
class RewardedOptions(FinetuneOptions):
    """What is asked of one run that learns from a reward, beside its config."""

    reward: str | None = None
    """What scores completions: the folder of a reward model, or "package.module:function" of (prompts, completions)."""
    reward_timeout: float | None = None
    """Seconds that a function of texts may take for a batch; None waits."""


def train(argv: list[str], description: str | None = None) -> None:
    """Train what a YAML file describes, with any field changed on the command line.

        jaxrl train ppo/hopper
        jaxrl train my/cartpole.yaml --seed 1 --learning-rate 1e-3 --num-envs 32
        jaxrl train ppo/cartpole --help

    The first argument is a path, or the name of a config that ships with jaxrl: of those that learn by acting.
    (Language models: jaxrl finetune.) The header of each file says what result to expect: jaxrl list configs.
    """
    acting = [name for name in names() if name.split("/")[0] not in _FROM_ROWS]
    description = description or train.__doc__
    name = first(argv, description, "ppo/cartpole", acting)
    config = _FROM_ROWS[name] if name in _FROM_ROWS else named(name, acting)
    if "env" not in takes(config):
        raise InputError(f"{name} learns from rows: jaxrl finetune {name} --path FILE")
    launch(config, description, argv[1:])


def finetune(argv: list[str], description: str | None = None) -> None:
    """Fine-tune or align a language model on a file of your own.

        jaxrl finetune sft --path mine.jsonl --name smollm2-135m
        jaxrl finetune dpo --path pairs.jsonl --name runs/mine/model --lora-rank 16
        jaxrl finetune reward --path pairs.jsonl --name runs/mine/model
        jaxrl finetune kto --path thumbs.jsonl --name runs/mine/model --buckets 64 128 256
        jaxrl finetune sft --path mine.jsonl --lora-rank 16 --adapter-only
        jaxrl finetune dpo --path pairs.jsonl --name runs/mine/adapter --lora-continue
        jaxrl finetune grpo --path prompts.jsonl --name runs/mine/model --reward my_rewards:score
        jaxrl finetune rlhf --path prompts.jsonl --name runs/mine/model --reward runs/its_rewards/model
        jaxrl finetune dpo/sentiment_cpu --path pairs.jsonl

    The first argument is an algorithm, or a config as for jaxrl train. Rows are {prompt, completion} or {messages} for
    sft, {prompt, chosen, rejected} for reward and dpo, {prompt, completion, label} for kto, {prompt} for the others;
    --format names other shapes, and --split a part of a folder. Look at them first: jaxrl data lint mine.jsonl. Ends
    with the held-out figures before and after, what the model says along the way (samples.jsonl), and a folder that
    transformers loads, or PEFT with --adapter-only.
    """
    learning = [*_FROM_ROWS, *(name for name in names() if name.split("/")[0] in _FROM_ROWS)]
    description = description or finetune.__doc__
    name = first(argv, description, "sft", learning)
    config = _FROM_ROWS[name] if name in _FROM_ROWS else named(name, learning)
    if "env" in takes(config):
        raise InputError(f"{name} learns by acting: jaxrl train {name}")
    kind = RewardedOptions if "reward" in takes(config) else FinetuneOptions
    asked = kind() if "samples" in takes(config) else kind(samples=0)
    config, options = parse(config, description, argv[1:], asked)
    _tell(tune(config, **options))


def resume(run: Positional[Path], *, accept_changes: bool = False) -> None:
    """Go on with a run or a sweep that was stopped, exactly: with the config, seed and options that it was begun with.

        jaxrl resume runs/CartPole-v1_ppo_s0_20260101-120000
        jaxrl resume runs/tuned --accept-changes

    Args:
        run: The directory of a run, or of a sweep.
        accept_changes: Also where something that it was given is another one now, such as a reward that was mended.
    """
    if is_sweep(run):
        if accept_changes:
            raise InputError(f"accept_changes is for a run, and {run} is a sweep; leave it out")
        resume_sweep(run)
        return
    saved = begun_by_name(run)
    if "probe" in saved.about:
        raise InputError(
            f"{run} was begun with probe = {saved.about['probe']}, a function, for figures in its rows; what began it "
            f"can give it again: {_again(run, saved.about)}"
        )
    found = read_result(run)
    if found is not None and "diverged" not in found:
        print(f"{run} had ended: these are its figures")
        print(json.dumps(found))
        return
    enable_compilation_cache()
    schedule, backoff = Schedule(**saved.about.get("schedule", {})), saved.about.get("backoff", 1.0)
    options = {"seed": saved.about["seed"], "run_dir": run, "resume": True, "schedule": schedule, "backoff": backoff}
    options["accept_changes"] = accept_changes
    if saved.control:
        report(begin(saved.config, **options))
        return
    asked = {name: value for name, value in saved.about["finetune"].items() if name != "rows"}
    try:
        tuned = tune(saved.config, **asked, **options)
    except HostFailed:
        raise
    except InputError as error:
        folder = saved.about.get("folder", os.getcwd())
        if Path(folder) == Path.cwd():
            raise
        raise InputError(f"{error}. The paths of this run are those of {folder}, where it was begun") from error
    _tell(tuned)


def evaluate(
    run: Positional[Path],
    *,
    episodes: int = 128,
    seed: int = 0,
    behaviour: Behaviour = "mode",
    checkpoint: Literal["newest", "best"] = "newest",
    member: int | None = None,
    path: str | None = None,
) -> None:
    """Measure what a run has learned: whole episodes of its newest checkpoint, or a language model's held-out figures.

        jaxrl evaluate runs/mine --episodes 1000 --seed 1
        jaxrl evaluate runs/mine --behaviour random
        jaxrl evaluate runs/sweep --member 37
        jaxrl evaluate runs/tuned --path other.jsonl

    Args:
        run: The directory of a run, or of a sweep.
        episodes: How many to play, side by side.
        seed: Of the episodes; training used other keys.
        behaviour: The likeliest action, a sampled one, or for comparison the zero action or random ones.
        checkpoint: The newest, or the one that was evaluated best.
        member: Of a sweep: the number of the member; by default the best of its report's ranking.
        path: Of a language model: measure on all rows of this file, and not on those that its run held out.
    """
    saved = None if is_sweep(run) else begun_by_name(run, rows=path, to_play=True)
    enable_compilation_cache()
    if saved is None or saved.control:
        if path is not None:
            raise InputError(f"path = {path} is for language models, and {run} learned by acting; leave it out")
        print(
            json.dumps(
                {
                    **_played(load(run, checkpoint, member), episodes, seed, behaviour),
                    "seed": seed,
                    "behaviour": behaviour,
                }
            )
        )
        return
    if (episodes, behaviour, checkpoint, member) != (128, "mode", "newest", None):
        raise InputError(f"{run} learned from rows, and plays no episodes; leave out all but --path")
    folder = next((run / name for name in ("model", "adapter") if (run / name).is_dir()), None)
    if folder is None:
        raise InputError(f"{run} holds no model: it has not ended; jaxrl resume {run} goes on with it")
    print(json.dumps({**held_out_figures(saved.config, folder, path), "model": str(folder)}))


def begun_by_name(run_dir: Path, *, rows: str | None = None, to_play: bool = False) -> SavedRun:
    """A run of which the command line can make all that it was given beside its config. rows: a file that stands for
    the rows that it was given.

    Raises InputError for one that was given objects of Python, with the command that began the run; or, for one
    `to_play` that learned by acting, with what plays it in Python.
    """
    try:
        saved = saved_run(run_dir)
    except NotHere:
        raise
    except InputError as error:
        if not (run_dir / CONFIG).is_file() or not (run_dir / ABOUT).is_file():
            raise
        raise InputError(
            f"{error}. If that is an algorithm of your own: {_again(run_dir, read_about(run_dir))}"
        ) from None
    asked = saved.about.get("finetune")
    own = _OF_FINETUNE | ({"reward"} & set(asked)) if asked else set()
    objects = {name: what["is"] for name, what in saved.about["given"].items() if name not in own}
    given = [f"{name} ({what})" for name, what in objects.items()]
    if asked and asked["rows"] == "given" and rows is None:
        given.append("rows")
    if given:
        was = f"{run_dir} was given its {' and '.join(given)} as objects of Python, which no file holds"
        if to_play and saved.control:
            again = ", ".join(f"{name}=..." for name in objects)
            raise InputError(f"{was}; give them again in Python: jaxrl.load_policy({str(run_dir)!r}, {again}) acts")
        function = "finetune" if asked else "run"
        raise InputError(
            f"{was}; what began it can give them again, by {function}(…, run_dir={str(run_dir)!r}, resume=True): "
            f"{_again(run_dir, saved.about)}"
        )
    return saved


def _again(run_dir: Path, about: dict[str, Any]) -> str:
    command = about.get("command", [sys.executable, "FILE.py"])
    where = [] if "--run-dir" in command else ["--run-dir", str(run_dir)]
    return shlex.join([*command, *where, *(["--resume"] if "--resume" not in command else [])])


def first(argv: list[str], description: str, example: str, choices: list[str]) -> str:
    """The word that a command begins with. Raises InputError where there is none, with what there could be."""
    if {"-h", "--help"} & set(argv[:1]):
        listed = textwrap.fill(", ".join(choices), 100, initial_indent="    ", subsequent_indent="    ")
        print(f"{inspect.cleandoc(description)}\n\n{listed}\n\nWith one of these before it, --help lists every option.")
        sys.exit(0)
    if not argv or argv[0].startswith("-"):
        raise InputError(f"name a config first, as in {example}; there are {', '.join(choices)}; or a path of a file")
    return argv[0]


def _played(loaded: LoadedRun, num_episodes: int, seed: int, behaviour: str) -> dict[str, Any]:
    for note in loaded.notes:
        print(f"note: {note}", file=sys.stderr)
    env, algorithm = loaded.saved.config.env, loaded.program.algorithm
    if num_episodes < 1:
        raise InputError(f"episodes = {num_episodes} must be at least 1")

    def play(learner: Any, key: jax.Array) -> Any:
        return episodes(env, algorithm, learner, key, num_episodes=num_episodes, behaviour=behaviour)

    hosted = loaded.program.host is not None
    played = (play if hosted else jax.jit(play))(loaded.state.learner, jax.random.key(seed))
    found, returns = figures(played), np.asarray(played.episode_return, np.float64)
    if num_episodes > 1:
        found["return_stderr"] = returns.std(ddof=1).item() / num_episodes**0.5
    spread = f" ± {found['return_stderr']:.4g} (standard error)" if num_episodes > 1 else ""
    print(f"return      {found['return']:.6g}{spread}, of {num_episodes} episodes")
    return {**found, "episodes": num_episodes, "env_steps": int(loaded.state.num_steps)}


def _tell(tuned: Tuned) -> None:
    print("".join(f"note        {note}\n" for note in tuned.notes), end="")
    print(f"rows        {tuned.counts}\nmodel       {tuned.folder}")
    report(tuned.result)
