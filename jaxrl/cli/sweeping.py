"""jaxrl sweep: many configurations times many seeds."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxrl.algorithms import ALGORITHMS, DPO, KTO, SFT, Reward
from jaxrl.cli.experiment import named, names, parse
from jaxrl.config_file import from_dict, load_config, read_document
from jaxrl.lm import LMConfig
from jaxrl.ops.platform import cores
from jaxrl.reports.sweep.ranking import SWEEP
from jaxrl.reports.sweep.ranking import read_sweep as ranking
from jaxrl.reports.sweep.verdict import sentences
from jaxrl.runs.driver import Schedule
from jaxrl.runs.finetuning import ADAPTER, Materials, complete_materials, read_materials
from jaxrl.runs.loading import LoadedRun, load_run
from jaxrl.settings import check, known, replace
from jaxrl.sweeps import Plan, SweepResult, load_member
from jaxrl.sweeps import sweep as run_sweep
from jaxrl.sweeps.directory import BEST, read_sweep
from jaxrl.sweeps.space import shown, value_of
from jaxrl.training import takes
from jaxrl.types import InputError

_PREFIX = "--sweep."
_OWN = ("base", "sweep", "plan")  # of a file that describes a sweep
_FROM_ROWS = {"sft": SFT, "reward": Reward, "dpo": DPO, "kto": KTO}


@dataclasses.dataclass(frozen=True)
class SweepOptions(Plan):
    """What is asked of the sweep, beside its fields."""

    seeds: str = "1"
    """Seeds of every configuration: "16" for 0 to 15, "100:148" for 100 to 147, or "3,5,8"."""
    run_dir: Path | None = None
    """Where to write; by default a new directory under runs/."""
    resume: bool = False
    """Go on with the sweep in run_dir, exactly."""
    dry_run: bool = False
    """Compile, say how much memory and time it will take, and end."""


def sweep(argv: list[str]) -> None:
    """Train many configurations, each with many seeds, in as few compiled programs as they have shapes.

        jaxrl sweep ppo/cartpole --sweep.learning-rate log:1e-4:1e-2:8 --sweep.gae-lambda .9,.95 --seeds 16
        jaxrl sweep ppo/cartpole --sweep.hidden "64,64;256,256" --total-steps 102400
        jaxrl sweep ppo/acrobot --sweep.learning-rate log:1e-5:1e-1 --method random --samples 32
        jaxrl sweep dpo --path pairs.jsonl --name MODEL_FOLDER --sweep.beta .05,.1,.5 --score eval_rewards/accuracy
        jaxrl sweep mine.yaml --dry-run

    The first argument is a config as for jaxrl train; sft, reward, dpo or kto; or a file that describes a sweep.
    --sweep.FIELD takes the values listed (lists apart by semicolons), or a range: log:LOW:HIGH:COUNT or
    lin:LOW:HIGH:COUNT, without a count where values are drawn. All other options set what the configurations have in
    common. Rows of every member are in table.csv and table.parquet; jaxrl report DIRECTORY ranks them, jaxrl resume
    DIRECTORY goes on.

    A file has what --sweep takes in `sweep:` and the options of the sweep in `plan:`. What the configurations have in
    common is as in any config file; or a config is named by `base:`, and such sections change it:

        base: ppo/cartpole
        algorithm: {total_steps: 102400}
        sweep: {learning_rate: log:1e-4:1e-2:8, hidden: [[64, 64], [256]]}
        plan: {seeds: 16, run_dir: runs/mine}
    """
    from jaxrl.cli.training import first

    _spread_over_cores(argv)
    learning = [*_FROM_ROWS, *names()]
    name = first(argv, sweep.__doc__, "ppo/cartpole", learning)
    base, fields, planned = _described(name)
    words, own = _taken(argv[1:])
    fields = {field.replace("-", "_"): spec for field, spec in fields.items()}
    config, options = parse(base, sweep.__doc__, [*planned, *words], SweepOptions())
    options["seeds"] = _seeds(options["seeds"])
    plan = {f.name: options.pop(f.name) for f in dataclasses.fields(Plan)}
    fields |= own
    _tell(run_sweep(config, fields, Plan(**plan), load=loader(config, fields), **options))


def is_sweep(directory: Path) -> bool:
    """Whether a directory holds a sweep."""
    return (directory / SWEEP).is_file()


def load(run: Path, checkpoint: str, member: int | None) -> LoadedRun:
    """A run that learned by acting, or a member of a sweep, by default the best. Raises InputError as loading does,
    and for what is of the other."""
    if not is_sweep(run):
        if member is not None:
            raise InputError(f"member = {member} is of a sweep, and {run} holds none; leave it out")
        return load_run(run, checkpoint=checkpoint)
    if checkpoint != "newest":
        raise InputError(f"checkpoint = {checkpoint!r}: of a member of a sweep the newest is kept; leave it out")
    loaded = load_member(run, member)
    about = loaded.saved.about
    values = "".join(f", {name} = {shown(value_of(loaded.saved.config, name))}" for name in about["fields"])
    print(f"member      {about['member']} (config {about['config']}, seed {about['seed']}{values})")
    return loaded


def resume_sweep(directory: Path) -> None:
    """Go on with a sweep that the command line can make again."""
    about = read_sweep(directory)
    asked = about["asked"]
    if asked["given"]:
        what = ", ".join(f"{name} ({told['is']})" for name, told in asked["given"].items())
        raise InputError(f"{directory} was given {what} as objects of Python; resume it from there: resume=True")
    if "result" in about:
        print(f"{directory} had ended: these are its figures")
        print(json.dumps(about["result"]))
        return
    _cpu_devices(asked["devices"])
    config = load_config(directory / "config.yaml", ALGORITHMS)
    plan = {f.name: asked[f.name] for f in dataclasses.fields(Plan) if f.name in asked}
    plan |= {"seeds": tuple(asked["seeds"]), "schedule": Schedule(**asked["schedule"])}
    fields = asked["fields"]
    _tell(run_sweep(config, fields, Plan(**plan), directory, resume=True, load=loader(config, fields)))


def _tell(result: SweepResult) -> None:
    if result.table is not None:
        print(f"table       {result.table}\nreport      jaxrl report {result.run_dir}")
        if (best := result.run_dir / BEST).is_file():
            print(f"best        {best}")
        print(f"verdict     {sentences(ranking(result.run_dir))[0]}")
    print(json.dumps(result.figures))


def loader(config: Any, fields: Iterable[str]) -> Any:
    """What loads the model and the rows that a config names, for each program: again only where they are others than
    those before. None for those that act. Raises InputError for what cannot be swept.
    """
    if "env" in takes(config):
        return None
    lost = [field for field in fields if config.lm.lora_continue and field.rpartition(".")[2] in ADAPTER]
    if lost:
        raise InputError(f"sweep.{lost[0]}: with lm.lora_continue it is the adapter's own; leave it out")
    kept: list[tuple[Any, Materials]] = []  # the programs keep them anyway

    def load(config: Any) -> tuple[Any, dict[str, Any]]:
        found = next((told for like, told in kept if like == _read_by_loading(config)), None)
        if found is None:
            found = read_materials(config)
            kept.append((_read_by_loading(config), found))
        config = replace(config, lm=found.config.lm) if config.lm.lora_continue else config
        return config, complete_materials(config, found).given

    return load


def _read_by_loading(config: Any) -> tuple[Any, ...]:
    """What of a config decides which model and which rows are loaded."""
    lm, without = config.lm, {name: getattr(LMConfig(), name) for name in ADAPTER}
    return lm if lm.lora_continue else replace(lm, **without), config.data


def _described(name: str) -> tuple[Any, dict[str, Any], list[str]]:
    """(base config, fields, options as they would be typed) of a config by its name, or of a file that describes a
    sweep: one that has a section of `_OWN`.
    """
    document = read_document(name) if Path(name).is_file() else None
    if not isinstance(document, dict) or not set(_OWN) & set(document):
        return _base(name), {}, []
    own = {title: document.get(title) or {} for title in _OWN}
    for title in ("sweep", "plan"):
        _as_section(name, title, own[title])
    if own["base"]:
        sections = {title: fields for title, fields in document.items() if title not in _OWN}
        base = _overridden(_base(own["base"]), sections, name)
    else:
        base = load_config(name, ALGORITHMS, apart=_OWN)
    return base, own["sweep"], _typed(SweepOptions, own["plan"], "plan.")


def _base(name: Any) -> Any:
    return _FROM_ROWS[name]() if name in _FROM_ROWS else named(str(name))


def _overridden(base: Any, sections: Mapping[str, Any], name: str) -> Any:
    nested = {f.name for f in dataclasses.fields(base) if dataclasses.is_dataclass(f.type)}
    for title, section in sections.items():
        _as_section(name, title, section)
        if title == "algorithm":
            base = from_dict(type(base), section, default=base)
        elif title in nested:
            within = getattr(base, title)
            inner = from_dict(type(within), section, f"{title}.", within)
            base = dataclasses.replace(base, **{title: inner})
        else:
            known = ", ".join(f"`{n}:`" for n in (*_OWN, "algorithm", *sorted(nested)))
            raise InputError(f"{name} has a section `{title}:`, which nothing reads; its sections are {known}")
    check(base)
    return base


def _as_section(name: str, title: str, section: Any) -> None:
    if not isinstance(section, dict):
        raise InputError(f"{name}: {title} = {section!r} should be a section with fields of its own")


def _typed(options: type, section: Mapping[str, Any], where: str) -> list[str]:
    """A section of a file as it would be typed. Raises InputError for what is no option."""
    known(options, section, where)
    inner = {f.name: f.type for f in dataclasses.fields(options) if dataclasses.is_dataclass(f.type)}
    words = []
    for name, value in section.items():
        option = name.replace("_", "-")
        if (name in inner) != isinstance(value, dict):
            raise InputError(f"{where}{name} = {value!r} cannot be read; `jaxrl sweep NAME --help` lists what can")
        if name in inner:
            words += _typed(inner[name], value, f"{where}{name}.")
        elif isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words.append(f"--{option}={shown(tuple(value) if isinstance(value, list) else value)}")
    return words


def _taken(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words without --sweep.FIELD and what follows it; and those, by field."""
    rest, fields, of = [], {}, None
    for word in words:
        if word.startswith(_PREFIX):
            of, equals, spec = word.removeprefix(_PREFIX).partition("=")
            of = of.replace("-", "_")
            if of in fields:
                raise InputError(f"{_PREFIX}{of} is given twice; give all its values at once, apart by commas")
            fields[of] = [spec] if equals else []
        elif of is not None and not word.startswith("--"):
            fields[of].append(word)
        else:
            of = None
            if rest and rest[-1] == "--score":  # -eval_loss is no option
                rest[-1] += f"={word}"
            else:
                rest.append(word)
    for field, specs in fields.items():
        if len(specs) != 1:
            told = ",".join(specs) or "1e-4,1e-3"
            raise InputError(f"{_PREFIX}{field} needs values, all in one word, as in {_PREFIX}{field} {told}")
    return rest, {field: specs[0] for field, specs in fields.items()}


def _seeds(text: str) -> int | tuple[int, ...]:
    try:
        if ":" in text:
            low, high = map(int, text.split(":"))
            return tuple(range(low, high))
        return tuple(map(int, text.split(","))) if "," in text else int(text)
    except ValueError:
        raise InputError(f'seeds = {text!r} cannot be read; write "16", "100:148" or "3,5,8"') from None


def _spread_over_cores(argv: list[str]) -> None:
    asked = [argv[i + 1] for i, word in enumerate(argv[:-1]) if word == "--devices"]
    asked += [word.partition("=")[2] for word in argv if word.startswith("--devices=")]
    _cpu_devices(int(asked[-1]) if asked and asked[-1].isdigit() else cores())


def _cpu_devices(count: int) -> None:
    """Of a CPU, one device for each core; of other platforms nothing is changed."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX has started already, with as many as it was told then
        return
