"""Fine-tune and align: from a model's name and rows of text to a folder that other libraries load."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.config import check
from jaxrl.data import prepare
from jaxrl.data.rows import Row
from jaxrl.lm import LanguageModel, Pretrained, language_model, load, save
from jaxrl.lm.lora import trained
from jaxrl.run import RunResult, run
from jaxrl.types import Params


class Tuned(NamedTuple):
    """result: of `run`. params: the model after training, adapters merged. base: what it was before.

    counts: of the training rows, what was truncated, dropped or odd. folder: safetensors, config.json and tokenizer.
    """

    result: RunResult
    model: LanguageModel
    params: Params
    base: Pretrained
    counts: dict[str, int]
    folder: Path


def tune(
    config: Any, rows: Sequence[Row] | None = None, held_out: Sequence[Row] | None = None, **options: Any
) -> Tuned:
    """Load `config.lm`, learn from rows as `config` says (SFT), and save the model in the run's directory.

    rows: to train on; None reads `config.data.path`. held_out: to measure on; None splits off `config.data.held_out`.
    options: as for `run`: seed, run_dir, resume, schedule, progress. Raises ValueError as `load`, `read`, `run` do.
    """
    check(config)
    base = load(config.lm.name)
    if base.tokenizer is None:
        raise ValueError(f"lm.name = {config.lm.name!r} has no tokenizer; put its tokenizer.json beside the weights")
    model = language_model(base.config, dtype=config.lm.dtype, remat=config.lm.remat)
    data, counts = prepare(config.data, base.tokenizer, rows, held_out)
    result = run(config, **options, network=model, params=base.params, data=data)
    params = trained(config.lm, base.params).merged(result.state.learner.trained)
    folder = result.run_dir / "model"
    if not folder.exists():  # a resume of a run that had ended
        save(folder, base.config, params, base.tokenizer)
    return Tuned(result, model, params, base, counts, folder)
