"""What an alignment run on the reviews has done: gold reward against the KL it cost, before and after, with intervals.

The reward is sentiment as a classifier sees it. It is not helpfulness, and a high one is not a good review.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sentiment import Judges, prompt

from jaxrl.lm import Generation, generate
from jaxrl.lm.log_probs import Rows
from jaxrl.lm.reference import exact_kl, sampled_kl
from jaxrl.samples import said
from jaxrl.tune import Tuned

BATCH, NEW = 32, 64  # rows sampled side by side; tokens


def report(tuned: Tuned, films: list[str], direction: str, seed: int, count: int = 256) -> dict[str, Any]:
    """Sample `count` reviews of films that were not trained on from the model before and after; score and compare.

    Writes report.json, samples.md and reward.png into the run's directory. Every mean has the half-width of its 95 %
    interval beside it, name_ci. gain: in gold reward, in the direction asked for; kl: of whole reviews, in nats.
    """
    judges, sign = Judges(), 1 if direction == "positive" else -1
    prompts = [prompt(film) for film in (films * count)[:count]]
    texts, figures, divergences = {}, {}, []
    for name, params in (("before", tuned.base.params), ("after", tuned.params)):
        made = sample(tuned, params, prompts, seed)
        texts[name] = [row["completion"].strip() for batch in made for row in said(tuned.base.tokenizer, batch)]
        scores = {"gold": judges.gold(texts[name]), "vader": judges.vader(texts[name])}
        figures[name] = {k: x for judge, values in scores.items() for k, x in mean(judge, values).items()}
        figures[name] |= {"distinct_1": distinct(texts[name], 1), "distinct_2": distinct(texts[name], 2)}
        if name == "after":
            divergences = [divergence(tuned, params, batch) for batch in made]
    for i, name in enumerate(("kl", "kl_k3", "kl_exact")):
        figures["after"] |= mean(name, np.concatenate([d[i] for d in divergences]))
    for judge, name in (("gold", "gain"), ("vader", "vader_gain")):
        gain = sign * (figures["after"][judge] - figures["before"][judge])
        figures |= {
            name: gain,
            f"{name}_ci": float(np.hypot(*(figures[w][f"{judge}_ci"] for w in ("before", "after")))),
        }
    run_dir = tuned.result.run_dir
    figures |= {"direction": direction, "about": "sentiment as a classifier sees it, not helpfulness", "reviews": count}
    (run_dir / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    (run_dir / "samples.md").write_text(table(prompts, texts))
    draw(run_dir, figures)
    return figures


def sample(tuned: Tuned, params: Any, prompts: list[str], seed: int) -> list[Generation]:
    """One review per prompt at temperature 1, BATCH at a time."""
    tokenizer = tuned.base.tokenizer
    ids = [[*tokenizer.prefix, *tokenizer.encode(text, specials=False)] for text in prompts]
    tokens = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    length, keys = np.array([len(own) for own in ids], np.int32), jax.random.split(jax.random.key(seed), len(ids))
    parts = [slice(i, i + BATCH) for i in range(0, len(ids), BATCH)]
    stop = sorted(tokenizer.stops)
    return [generate(tuned.model, params, tokens[p], length[p], keys[p], max_new_tokens=NEW, stop=stop) for p in parts]


def divergence(tuned: Tuned, params: Any, made: Generation) -> list[np.ndarray]:
    """k1, k3 and the exact next-token KL, summed over each review."""
    rows = Rows(made.tokens, made.prompt_length, made.length)
    both = jax.jit(lambda p, ref: (*sampled_kl(tuned.model, p, ref, rows), exact_kl(tuned.model, p, ref, rows)))
    return [np.asarray(x) for x in both(params, tuned.base.params)]


def mean(name: str, values: np.ndarray) -> dict[str, float]:
    """The mean, and the half-width of its 95 % interval."""
    return {name: float(values.mean()), f"{name}_ci": float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))}


def distinct(texts: list[str], n: int) -> float:
    """Share of n-grams of words that are different from all others: falls when the model repeats itself."""
    grams = [tuple(words[i : i + n]) for text in texts if (words := text.split()) for i in range(len(words) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def table(prompts: list[str], texts: dict[str, list[str]], count: int = 20) -> str:
    """Some reviews before and after, as Markdown."""
    lines = ["| prompt | before | after |", "|---|---|---|"]
    for row in list(zip(prompts, texts["before"], texts["after"], strict=True))[:count]:
        lines.append("| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in row) + " |")
    return "\n".join(lines) + "\n"


def draw(run_dir: Path, figures: dict[str, Any]) -> Path:
    """Gold reward and VADER against KL: where the model began, and where it is now."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    after, before = figures["after"], figures["before"]
    titles = (("gold", "gold reward: P(positive)"), ("vader", "VADER compound"))
    for axis, (name, ylabel) in zip(figure.subplots(1, 2), titles, strict=True):
        axis.errorbar([0], [before[name]], [before[f"{name}_ci"]], fmt="o", capsize=3, label="before")
        spread = {"xerr": [after["kl_ci"]], "yerr": [after[f"{name}_ci"]]}
        axis.errorbar([after["kl"]], [after[name]], **spread, fmt="s", capsize=3, label="after")
        axis.set(xlabel="KL to the model before, nats per review", ylabel=ylabel)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    path = run_dir / "reward.png"
    figure.savefig(path, dpi=120)
    return path
