"""Fine-tune and align: from a model's name and rows of text to a folder that other libraries load."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.data import Data, prepare
from jaxrl.data.rows import Row
from jaxrl.lm import LanguageModel, Pretrained, language_model, load_model, save_model
from jaxrl.lm.lora import trained
from jaxrl.lm.pretrained.assets import cache
from jaxrl.lm.reference import with_reference
from jaxrl.runs.directory import fingerprints, run_name
from jaxrl.runs.driver import RunResult, run
from jaxrl.runs.samples import first_prompts, sampler
from jaxrl.settings import check, replace
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


def finetune(
    config: Any,
    rows: Sequence[Row] | None = None,
    held_out: Sequence[Row] | None = None,
    *,
    samples: int = 0,
    sample_length: int = 64,
    **options: Any,
) -> Tuned:
    """Load `config.lm`, learn from rows as `config` says (SFT, DPO, KTO), and save the model in the run's directory.

    rows: to train on; None reads `config.data.path`. held_out: to measure on; None splits off `config.data.held_out`.
    samples: at every evaluation, complete so many of the held-out prompts by up to `sample_length` tokens, into
    samples.jsonl, and measure the KL to the model before. options: as for `run`: seed, run_dir, resume, schedule,
    progress. Raises ValueError as `load`, `read`, `run` do.
    """
    check(config)
    run_dir = options.pop("run_dir", None) or run_name(config, options.get("seed", 0), options.get("resume", False))
    base = load_model(config.lm.name)
    if base.tokenizer is None:
        raise ValueError(f"lm.name = {config.lm.name!r} has no tokenizer; put its tokenizer.json beside the weights")
    model = language_model(base.config, dtype=config.lm.dtype, remat=config.lm.remat)
    data, counts = prepare(config.data, base.tokenizer, rows, held_out)
    if getattr(config, "reference", None) == "cached":
        replace(config, reference="frozen").check_data(data)  # before hours of scoring
        data = _with_reference(config, model, base.params, data)
    weights = trained(config.lm, base.params)
    run_dir, probe = Path(run_dir), None
    if samples:
        of_learner = lambda learner: weights.model(learner.trained)  # noqa: E731
        prompts = first_prompts(data.held_out or data.train, samples)
        file = run_dir / "samples.jsonl"
        probe = sampler(model, base.params, of_learner, base.tokenizer, prompts, sample_length, file)
    result = run(config, **options, run_dir=run_dir, network=model, params=base.params, data=data, probe=probe)
    params = weights.merged(result.state.learner.trained)
    folder = run_dir / "model"
    if not folder.exists():  # a resume of a run that had ended
        save_model(folder, base.config, params, base.tokenizer)
    return Tuned(result, model, params, base, counts, folder)


def _with_reference(config: Any, model: LanguageModel, params: Params, data: Data) -> Data:
    about = fingerprints({"params": params, "data": data})
    identity = hashlib.sha256(f"{about} {model.config} {model.dtype} 1".encode()).hexdigest()
    path = Path(config.reference_cache or cache() / "reference" / f"{identity}.npz")
    buckets = with_reference(data.train + data.held_out, path, identity, model, params, config.loop.batch_size)
    return Data(buckets[: len(data.train)], buckets[len(data.train) :])
