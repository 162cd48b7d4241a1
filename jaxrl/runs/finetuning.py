"""Fine-tune and align: from a model's name and rows of text to a folder that other libraries load."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.data import prepare
from jaxrl.data.rows import Row
from jaxrl.evaluators import Ask
from jaxrl.evaluators.samples import first_prompts
from jaxrl.lm import LanguageModel, Pretrained, language_model, load_model, save_model
from jaxrl.lm.vocabulary import check_tokenizer, grow
from jaxrl.runs.driver import RunResult, run
from jaxrl.settings import check
from jaxrl.training import program
from jaxrl.types import InputError, Params, TrainState


class Tuned(NamedTuple):
    """result: of `run`. params: the model after training, adapters merged. base: what it was before.

    counts: of all rows, what was truncated, dropped, odd or held out. notes: sentences on what was made of them.
    folder: safetensors, config.json and tokenizer.
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
    **options: Any,
) -> Tuned:
    """Load `config.lm`, learn from rows as `config` says (SFT, DPO, KTO), and save the model in the run's directory.

    rows: to train on; None reads `config.data.path`. held_out: to measure on; None splits off `config.data.held_out`.
    samples: at every evaluation, complete so many of the held-out prompts by up to `sample_length` tokens, into
    samples.jsonl, and measure the KL to the model before. options: as for `run`: seed, run_dir, resume, schedule,
    progress, probe. Raises InputError as `load_model`, `read_rows` and `run` do.
    """
    check(config)
    base = load_model(config.lm.name)
    if base.tokenizer is None:
        raise InputError(f"lm.name = {config.lm.name!r} has no tokenizer; put its tokenizer.json beside the weights")
    if config.lm.grow_vocabulary:
        base = base._replace(**grow(base.config, base.params, base.tokenizer.vocab_size)._asdict())
    check_tokenizer(base.tokenizer, base.config)
    model = language_model(base.config, dtype=config.lm.dtype, remat=config.lm.remat)
    data, counts, notes = prepare(
        config.data, base.tokenizer, rows, held_out, learns_from=config.learns_from, model=base.config
    )
    data = config.complete_data(model, base.params, data)
    given = {"network": model, "params": base.params, "data": data}
    if samples:
        room = base.config.max_position_embeddings
        prompts = first_prompts(data.held_out or data.train, samples, at_most=room - 1)
        given["samples"] = Ask(prompts, min(sample_length, room - int(prompts.length.max())), base.tokenizer)
    learned = program(config, **given).export

    def export(state: TrainState, run_dir: Path) -> None:
        folder = run_dir / "model"
        if not folder.exists():  # it does on a resume of a run that had ended
            save_model(folder, base.config, learned(state.learner), base.tokenizer, base.generation)

    result = run(config, **options, **given, export=export)
    return Tuned(result, model, learned(result.state.learner), base, counts, notes, result.run_dir / "model")
