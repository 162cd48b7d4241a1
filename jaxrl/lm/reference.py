"""How far a language model is from its reference: log-probs computed once and kept in a file, and divergences."""

import uuid
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrl.lm.log_probs import CHUNK, Scores, TokenRows, completion_mask, completion_scores, completion_stats
from jaxrl.lm.transformer import LanguageModel
from jaxrl.settings import check_unread
from jaxrl.types import InputError, Params, PyTree


def sampled_kl(
    model: LanguageModel, params: Params, reference: Params, rows: PyTree
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """KL(π ‖ ref) of whole completions, in nats, from completions that π itself said: (k1, k3), unbiased both.

    k1 = Σ_t Δ_t with Δ = ln π - ln ref; k3 = Σ_t e^(-Δ_t) - 1 + Δ_t, never negative, of less variance where the two are
    close (Schulman 2020, "Approximating KL divergence"). rows: tokens, prompt_length, length.
    """
    stats, where = completion_stats(model, params, rows)
    other, _ = completion_stats(model, reference, rows)
    ratio = jnp.where(where, stats.log_prob - other.log_prob, 0.0)
    return jnp.sum(ratio, axis=1), jnp.sum(jnp.expm1(-ratio) + ratio, axis=1)


def exact_kl(
    model: LanguageModel, params: Params, reference: Params, rows: PyTree, chunk: int = CHUNK
) -> Float[Array, " B"]:
    """Σ over the completion's tokens of KL(π(·|before) ‖ ref(·|before)), the whole vocabulary summed: what sampling
    the next token at these places costs, without the noise of drawing it. rows: tokens, prompt_length, length.
    """
    where = completion_mask(rows)
    hidden = [model.hidden(p, rows.tokens)[:, :-1] for p in (params, reference)]
    count = where.size
    flat = [
        jnp.pad(h.reshape(count, -1), ((0, -count % chunk), (0, 0))).reshape(-1, chunk, h.shape[-1]) for h in hidden
    ]

    def divergence(pair: tuple[Array, Array]) -> Float[Array, " n"]:
        p, q = (jax.nn.log_softmax(model.unembed(w, h)) for w, h in zip((params, reference), pair, strict=True))
        return jnp.sum(jnp.exp(p) * (p - q), axis=-1)

    per_token = jax.lax.map(divergence, flat).reshape(-1)[:count].reshape(where.shape)
    return jnp.sum(jnp.where(where, per_token, 0.0), axis=1)


def score_sides(model: LanguageModel, params: Params, rows: PyTree, chunk: int | None = CHUNK) -> tuple[Scores, ...]:
    """Scores of single answers, (answers,), or of pairs, (chosen, rejected): in one forward pass, chosen rows first."""
    sides = [TokenRows(side.tokens, side.prompt_length, side.length) for side in _sides(rows)]
    scores, n = completion_scores(model, params, jax.tree.map(lambda *x: jnp.concatenate(x), *sides), chunk), len(sides)
    return tuple(jax.tree.map(lambda x, i=i: jnp.split(x, n)[i], scores) for i in range(n))


def with_reference(
    buckets: tuple[PyTree, ...],
    path: Path,
    identity: str,
    model: LanguageModel,
    params: Params,
    batch_size: int,
    chunk: int | None = CHUNK,
) -> tuple[PyTree, ...]:
    """The rows with `ref_log_prob` filled in: read from `path`, or computed and written there.

    batch_size, chunk: rows in a forward pass and tokens whose logits exist at the same time, as in training: bfloat16
    rounds otherwise in other shapes, by a tenth of a nat on a text. identity: of everything that the numbers depend on
    (weights, rows, dtype, shapes). Processes may call this at once: each writes a file of its own, and the last to be
    renamed stays. Raises InputError if the file was made for another identity, or is damaged: stale numbers are
    refused, never silently used or replaced.
    """
    sides = [side for rows in buckets for side in _sides(rows)]
    if path.exists():
        found = _read(path, identity, [side.length.shape for side in sides])
    else:
        score = jax.jit(lambda params, rows: [x.log_prob for x in score_sides(model, params, rows, chunk)])
        found = [x for rows in buckets for x in _compute(score, params, rows, batch_size)]
        _write(path, {"identity": np.array(identity), **{str(i): x for i, x in enumerate(found)}})
    filled = iter([side._replace(ref_log_prob=x) for side, x in zip(sides, found, strict=True)])
    return tuple(
        next(filled) if hasattr(rows, "tokens") else type(rows)(next(filled), next(filled)) for rows in buckets
    )


def check_cached(config: Any, sides: Sequence[Any]) -> None:
    """Raises InputError if `config` reads cached log-probs, and rows come without them."""
    if config.reference == "cached" and any(side.ref_log_prob is None for side in sides):
        raise InputError(
            "reference = 'cached' needs the rows' log-probs computed before: `finetune` does it, or call "
            "`with_reference`; or set reference = 'frozen'"
        )


def check_cache_read(config: Any) -> None:
    """Raises InputError if `config` names a cache of log-probs that it does not read."""
    if config.reference != "cached":
        why = f"with reference = {config.reference!r}"
        check_unread(config, ("reference_cache",), why, "set reference = 'cached'")


def start_tolerance(config: Any) -> float:
    """How far from its value a loss may start where policy and reference are equal: they are computed alike, but not
    by one and the same program, and bfloat16 keeps three digits of what lies in between.
    """
    return 1e-3 if config.lm.dtype == "bfloat16" else 1e-6


def _sides(rows: PyTree) -> tuple[Any, ...]:
    return (rows,) if hasattr(rows, "tokens") else tuple(rows)


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.npz")
    try:
        np.savez(draft, **arrays)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path, identity: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file}
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"the reference cache {path} is damaged ({error}); remove it") from error
    if str(arrays.pop("identity", "")) != identity:
        raise InputError(
            f"the reference cache {path} was made with other weights, rows or settings; remove it, or name another"
        )
    found = [arrays.get(str(i), np.empty(0)) for i in range(len(shapes))]
    if [x.shape for x in found] != shapes:
        raise InputError(f"the reference cache {path} is damaged (it has other numbers of rows); remove it")
    return found


def _compute(score: Callable, params: Params, rows: PyTree, batch_size: int) -> list[np.ndarray]:
    count = len(_sides(rows)[0].length)
    batches = np.arange(-(-count // batch_size) * batch_size).reshape(-1, batch_size) % count
    made = [score(params, jax.tree.map(lambda x, i=i: x[i], rows)) for i in batches]
    return [np.concatenate([np.asarray(x) for x in side])[:count] for side in zip(*made, strict=True)]
