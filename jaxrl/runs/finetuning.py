"""Fine-tune and align: from a model's name and rows of text to a folder that other libraries load."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxrl.data import Data, prepare
from jaxrl.data.preparation import prepare_prompts
from jaxrl.data.rows import Row
from jaxrl.evaluators import Ask
from jaxrl.evaluators.samples import first_prompts
from jaxrl.lm import (
    LanguageModel,
    LMConfig,
    ModelParallel,
    Pretrained,
    language_model,
    load_adapter,
    load_model,
    save_model,
)
from jaxrl.lm.layout import mesh_of, parameter_places
from jaxrl.lm.lora import attach, scale_of
from jaxrl.lm.pretrained.adapters import save_adapters
from jaxrl.lm.pretrained.tensors import Places
from jaxrl.lm.pretrained.weights import is_adapter
from jaxrl.lm.vocabulary import check_tokenizer, grow
from jaxrl.runs.driver import RunResult, run
from jaxrl.settings import check, replace
from jaxrl.sources.rewards import as_reward
from jaxrl.training import program
from jaxrl.training.parallel import over_devices
from jaxrl.training.processes import gathered
from jaxrl.types import InputError, Params, TrainState

ADAPTER = ("lora_rank", "lora_alpha", "lora_targets", "lora_rank_stabilized")


class Tuned(NamedTuple):
    """result: of `run`. params: the model after training, adapters merged. base: what it was before; its adapters are
    on where they were continued.

    counts: of all rows, what was truncated, dropped, odd or held out. notes: sentences on what was made of them.
    folder: safetensors, config and tokenizer, of the whole model or of the adapters alone.
    """

    result: RunResult
    model: LanguageModel
    params: Params
    base: Pretrained
    counts: dict[str, int]
    notes: tuple[str, ...]
    folder: Path


def finetune(
    config: Any,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
    *,
    samples: int = 0,
    sample_length: int = 64,
    adapter_only: bool = False,
    reward: Any = None,
    reward_timeout: float | None = None,
    **options: Any,
) -> Tuned:
    """Load `config.lm`, learn as `config` says, from rows (SFT, Reward, DPO, KTO) or from a reward of what it says to
    prompts (RLHF, GRPO), and save the model in the run's directory.

    rows: to train on; None reads `config.data.path`. held_out: to measure on; None splits off `config.data.held_out`.
    samples: at every evaluation, complete so many of the held-out prompts by up to `sample_length` tokens, into
    samples.jsonl, and measure the KL to the model before; where there is a reward, its config says how many. reward,
    reward_timeout: what scores completions, and the seconds that it may take for a batch: as for `as_reward`.
    adapter_only: save the adapters alone, as PEFT does, in run_dir/adapter, and not the model with them merged in
    run_dir/model. options: as for `run`: seed, run_dir, resume, schedule, progress, probe. Raises InputError as
    `load_model`, `read_rows`, `as_reward` and `run` do.

    With `config.lm.lora_continue` training starts from the adapter that `config.lm.name` is. What DPO and KTO compare
    with is then the model as given, base and adapter: it is what the policy is when training starts.
    """
    check(config)
    if adapter_only:
        _check_adapter_only(config.lm)
    config, given, base, whole, counts, notes = materials(config, rows, held_out, reward, reward_timeout)
    lm, model, data = config.lm, given["network"], given["data"]
    if samples:
        room = base.config.max_position_embeddings
        prompts = first_prompts(data.held_out or data.train, samples, at_most=room - 1)
        given["samples"] = Ask(prompts, min(sample_length, room - int(prompts.length.max())), base.tokenizer)
    made, name = program(over_devices(config), **given), "adapter" if adapter_only else "model"
    learned = made.export
    if adapter_only and made.adapters is None:
        raise InputError("adapter_only saves adapters alone, without the head of a reward model; leave it out")

    def export(state: TrainState, run_dir: Path) -> None:
        folder = run_dir / name
        if folder.exists():  # it does on a resume of a run that had ended
            return
        if adapter_only:
            save_adapters(folder, replace(lm, name=whole), _on_host(made.adapters(state.learner)), base.tokenizer)
        else:
            save_model(folder, base.config, _on_host(learned(state.learner)), base.tokenizer, base.generation)

    asked = {"samples": samples, "sample_length": sample_length, "adapter_only": adapter_only}
    if isinstance(reward, str | Path):
        asked |= {"reward": str(reward), "reward_timeout": reward_timeout}
    more = {"finetune": {**asked, "rows": "given" if rows is not None else config.data.path}}
    result = run(config, **options, **given, export=export, more=more)
    return Tuned(result, model, learned(result.state.learner), base, counts, notes, result.run_dir / name)


class Materials(NamedTuple):
    """What learning from rows needs. config: as it is run. given: what its program takes beside it: network, params and
    data. base, whole: the model before, and the name of the whole of it. counts, notes: as in Tuned.
    """

    config: Any
    given: dict[str, Any]
    base: Pretrained
    whole: str
    counts: dict[str, int]
    notes: tuple[str, ...]


def materials(
    config: Any,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
    reward: Any = None,
    reward_timeout: float | None = None,
) -> Materials:
    """Load the model that a config names, and prepare its rows. Arguments and errors as for `finetune`."""
    found = read_materials(config, rows, held_out, reward, reward_timeout)
    return complete_materials(found.config, found)


def complete_materials(config: Any, found: Materials) -> Materials:
    """With what a config adds to its rows; the same object where that is nothing."""
    network, params, data = (found.given[name] for name in ("network", "params", "data"))
    made = config.complete_data(network, params, data)
    return found if made is data else found._replace(given={**found.given, "data": made})


def read_materials(
    config: Any,
    rows: Iterable[Row] | None = None,
    held_out: Iterable[Row] | None = None,
    reward: Any = None,
    reward_timeout: float | None = None,
) -> Materials:
    """What of `materials` the model, the rows and the reward alone decide."""
    if (config.learns_from == "prompts") != (reward is not None):
        kind = type(config).__name__
        raise InputError(
            f"{kind} learns from a reward; give one: reward= a function of (prompts, completions), or --reward"
            if reward is None
            else f"reward is not read by {kind}, which learns from rows; leave it out, or use RLHF or GRPO"
        )
    if reward is None and reward_timeout is not None:
        raise InputError(f"reward_timeout = {reward_timeout} is read where there is a reward; leave it out")
    base, lm, whole = _loaded(config.lm, _places(config))
    config = replace(config, lm=lm)
    model = language_model(base.config, dtype=lm.dtype, remat=lm.remat)
    if reward is not None:
        data, asked, counts = prepare_prompts(config.data, base.tokenizer, rows, held_out)
        scores = as_reward(reward, base.tokenizer, asked, reward_timeout)
        given = {"network": model, "params": base.params, "data": data, "reward": scores, "tokenizer": base.tokenizer}
        return Materials(config, given, base, whole, counts, ())
    data, counts, notes = prepare(
        config.data, base.tokenizer, rows, held_out, learns_from=config.learns_from, model=base.config
    )
    given = {"network": model, "params": base.params, "data": data}
    return Materials(config, given, base, whole, counts, notes)


def held_out_figures(config: Any, folder: str | Path, path: str | None = None) -> dict[str, float]:
    """The held-out figures of the model in `folder` as a run of `config` measures them, by their names at its end.

    path: measure on all rows of this file, and not on those that `config.data` holds out. What DPO and KTO compare with
    is the model that `config.lm` names. Raises InputError as `finetune` does, and where no rows are held out.
    """
    if config.learns_from == "prompts":
        raise InputError(f"{type(config).__name__} holds out prompts, whose figures are in the run's metrics.jsonl")
    plain = LMConfig(config.lm.name, config.lm.grow_vocabulary, config.lm.dtype, False, config.lm.logit_chunk)
    before, after = _with_room(load_model(plain.name), plain), load_model(folder)
    model, asked = language_model(before.config, dtype=plain.dtype, remat=False), config.data
    if path is not None:
        asked = replace(asked, path=str(path), split=None, held_out=0.0)
    train, held_out = prepare(asked, before.tokenizer, learns_from=config.learns_from, model=before.config).data
    rows = held_out if path is None else train
    if not rows:
        raise InputError(f"data.held_out = {config.data.held_out} holds out no rows; name a file of rows: --path FILE")
    config = replace(config, lm=plain, max_updates=None)  # of training on other rows
    data = config.complete_data(model, before.params, Data(rows, rows))

    def asked_of(params: Params, data: Data) -> Any:
        return program(config, network=model, params=params, data=data)

    def measured(after: Params, before: Params, data: Data) -> Any:
        p, key = asked_of(before, data), jax.random.key(0)
        return p.evaluators[0].measure(key, p.algorithm.init(key)._replace(trained=after), 0)

    return asked_of(before.params, data).evaluators[0].read("", jax.jit(measured)(after.params, before.params, data))


def _on_host(params: Params) -> Params:
    """Where parts of them lie with other processes, all of them."""
    leaves, structure = jax.tree.flatten(params)
    return params if jax.process_count() == 1 else jax.tree.unflatten(structure, gathered(leaves))


def _places(config: Any) -> Places | None:
    """Where the model's parameters will lie in training; None for one device."""
    mesh = mesh_of(getattr(over_devices(config), "parallel", ModelParallel()))
    return None if mesh is None else functools.partial(parameter_places, mesh)


def _loaded(lm: LMConfig, places: Places | None) -> tuple[Pretrained, LMConfig, str]:
    """The model to train, an adapter to continue attached; the settings, with that adapter's; the whole model's name.

    Raises InputError for settings that are not the adapter's.
    """
    if not lm.lora_continue:
        return _with_room(load_model(lm.name, score=None, places=places), lm), lm, lm.name
    base, own, adapters = load_adapter(lm.name, places=places)
    taken = {name: getattr(own, name) for name in ADAPTER}
    given = {**taken, **{name: getattr(lm, name) for name in ADAPTER if lm.lora_rank}}
    for name, value in taken.items():
        same = set(given[name]) == set(value) if name == "lora_targets" else given[name] == value
        if not same:
            raise InputError(
                f"lm.{name} = {given[name]!r}, and the adapter that lm.lora_continue goes on from has {value!r}; leave "
                "out all that it says itself"
            )
    base = _with_room(base, lm)
    return base._replace(params=attach(base.params, adapters, scale_of(own))), replace(lm, **taken), own.name


def _with_room(base: Pretrained, lm: LMConfig) -> Pretrained:
    """The model with its tokenizer, every id of which that begins or ends a text it has an embedding for."""
    if base.tokenizer is None:
        raise InputError(f"lm.name = {lm.name!r} has no tokenizer; put its tokenizer.json beside the weights")
    if lm.grow_vocabulary:
        base = base._replace(**grow(base.config, base.params, base.tokenizer.vocab_size)._asdict())
    check_tokenizer(base.tokenizer, base.config)
    return base


def _check_adapter_only(lm: LMConfig) -> None:
    if lm.grow_vocabulary:
        raise InputError(
            "adapter_only saves no embedding, and lm.grow_vocabulary = True changes it; leave one of them out"
        )
    if not lm.lora_rank and not lm.lora_continue:
        raise InputError("adapter_only saves adapters, and with lm.lora_rank = 0 there are none; set lm.lora_rank")
    if not lm.lora_continue and is_adapter(lm.name):
        raise InputError(
            f"lm.name = {lm.name!r} is an adapter: another one, saved alone, has no whole model to be loaded on; set "
            "lm.lora_continue to train this one on, or merge it first (`jaxrl merge`)"
        )
