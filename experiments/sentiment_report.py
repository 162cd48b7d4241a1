# needs: lm, sentiment
"""What an alignment run on the reviews has done: gold reward against the KL it cost, before and after, with intervals.

    scripts/run experiments/sentiment_report.py runs/one runs/another    # table and picture of runs that have ended

The reward is sentiment as a classifier sees it. It is not helpfulness, and a high one is not a good review.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from sentiment import judges, prompt

from jaxrl import cli
from jaxrl.evaluators.samples import as_texts
from jaxrl.lm import Generation, generate
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.reference import exact_kl, sampled_kl
from jaxrl.runs.finetuning import Tuned

BATCH, NEW = 32, 64  # rows sampled side by side; tokens


def report(tuned: Tuned, held_out: list[dict[str, Any]], direction: str, seed: int, **more: float) -> None:
    """Measure the model on the films of the rows held out; print where things are, and all figures as JSON.

    more: further figures, which are told and written with those measured here.
    """
    films, run_dir = sorted({row["movie"] for row in held_out}), tuned.result.run_dir
    found = measure(tuned, films, direction, seed, **more)
    print(f"samples     {run_dir / 'samples.md'}\nreward      {run_dir / 'reward.png'}\nmodel       {tuned.folder}")
    cli.report(tuned.result, report=found)


def measure(
    tuned: Tuned, films: list[str], direction: str, seed: int, count: int = 256, **more: float
) -> dict[str, Any]:
    """Sample `count` reviews of films that were not trained on, from the model before and after; score and compare.

    Writes report.json, samples.md and reward.png into the run's directory. Means are over films, and beside each is the
    half-width of its 95 % interval, name_ci, films being what was drawn. gain: in gold reward, in the direction asked
    for, review by review (before and after share prompt and key); gain_low: the lower end of its interval. kl: of whole
    reviews of at most NEW tokens, in nats, by k1; kl_k3, of less variance; kl_exact, next-token KL summed.
    more: further figures of the run, told with them.
    """
    both, sign, film = judges(), 1 if direction == "positive" else -1, np.arange(count) % len(films)
    prompts = [prompt(films[i]) for i in film]
    made = {
        name: sample(tuned, params, prompts, seed)
        for name, params in (("before", tuned.base.params), ("after", tuned.params))
    }
    texts = {name: [row["completion"].strip() for row in spoken(tuned, batches)] for name, batches in made.items()}
    scores = {name: {"gold": both.gold(said), "vader": both.vader(said)} for name, said in texts.items()}
    gains = {judge: sign * (scores["after"][judge] - scores["before"][judge]) for judge in ("gold", "vader")}
    figures = {
        "direction": direction,
        "about": "sentiment as a classifier sees it, not helpfulness",
        **{name: describe(scores[name], made[name], texts[name], film) for name in made},
        **mean("gain", gains["gold"], film),
        **mean("vader_gain", gains["vader"], film),
    }
    for name, values in divergence(tuned, made["after"]).items():
        figures |= mean(name, values, film)
    figures |= {f"{name}_low": figures[name] - figures[f"{name}_ci"] for name in ("gain", "vader_gain")}
    figures |= more
    run_dir = tuned.result.run_dir
    (run_dir / "report.json").write_text(json.dumps(figures, indent=1) + "\n")
    (run_dir / "samples.md").write_text(table(prompts, texts))
    draw(run_dir / "reward.png", {run_dir.name: figures})
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


def spoken(tuned: Tuned, made: list[Generation]) -> list[dict[str, str]]:
    """Prompts and completions of all batches, as text."""
    return [row for batch in made for row in as_texts(tuned.base.tokenizer, batch)]


def divergence(tuned: Tuned, made: list[Generation]) -> dict[str, np.ndarray]:
    """KL of the model after to the model before, over each review that it said: k1, k3 and next-token KL summed."""
    both = jax.jit(lambda p, ref, rows: (*sampled_kl(tuned.model, p, ref, rows), exact_kl(tuned.model, p, ref, rows)))
    found = [
        both(tuned.params, tuned.base.params, TokenRows(batch.tokens, batch.prompt_length, batch.length))
        for batch in made
    ]
    return dict(zip(("kl", "kl_k3", "kl_exact"), map(np.concatenate, zip(*found, strict=True)), strict=True))


def describe(
    scores: dict[str, np.ndarray], made: list[Generation], texts: list[str], film: np.ndarray
) -> dict[str, float]:
    """Mean scores of one model's reviews, their length in tokens, the share that ended, and how varied they are."""
    figures = {name: x for judge, values in scores.items() for name, x in mean(judge, values, film).items()}
    lengths = np.concatenate([batch.length - batch.prompt_length for batch in made])
    figures |= {"length": float(lengths.mean()), "ended": float(np.concatenate([b.finished for b in made]).mean())}
    return figures | {f"distinct_{n}": distinct(texts, n) for n in (1, 2)}


def mean(name: str, values: np.ndarray, film: np.ndarray) -> dict[str, float]:
    """The mean over films of each film's mean, and the half-width of its 95 % interval."""
    of_film = np.array([values[film == i].mean() for i in np.unique(film)])
    return {name: float(of_film.mean()), f"{name}_ci": float(1.96 * of_film.std(ddof=1) / np.sqrt(len(of_film)))}


def distinct(texts: list[str], n: int) -> float:
    """Different n-grams of words over all n-grams (Li et al. 2016): falls with repetition, and with length."""
    grams = [tuple(words[i : i + n]) for text in texts if (words := text.split()) for i in range(len(words) - n + 1)]
    return len(set(grams)) / max(len(grams), 1)


def table(prompts: list[str], texts: dict[str, list[str]], count: int = 20) -> str:
    """Some reviews before and after, as Markdown."""
    lines = ["Asked for was sentiment, not helpfulness or truth.", "", "| prompt | before | after |", "|---|---|---|"]
    for row in list(zip(prompts, texts["before"], texts["after"], strict=True))[:count]:
        lines.append("| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in row) + " |")
    return "\n".join(lines) + "\n"


def draw(path: Path, reports: dict[str, dict[str, Any]]) -> None:
    """Gold reward and VADER against KL: where the model began, and where each run has taken it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    titles = (("gold", "gold reward: P(positive)"), ("vader", "VADER compound"))
    for axis, (name, ylabel) in zip(figure.subplots(1, 2), titles, strict=True):
        for i, (run, found) in enumerate(reports.items()):
            points = [(0.0, 0.0, found["before"]), (found["kl"], found["kl_ci"], found["after"])]
            x, xerr, judged = zip(*points, strict=True)
            y, yerr = ([each[k] for each in judged] for k in (name, f"{name}_ci"))
            axis.errorbar(x, y, yerr, xerr, f"{'os^Dv*'[i % 6]}:", ms=5, lw=1, capsize=3, label=Path(run).name)
        axis.set(xlabel="KL to the model before, nats per review", ylabel=ylabel)
        axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)


def main(run_dirs: list[Path]) -> None:
    """Print a table of runs that have ended, and draw them into one picture, sentiment.png beside the first."""
    reports = {str(run_dir): json.loads((run_dir / "report.json").read_text()) for run_dir in run_dirs}
    heads = ("run", "direction", "gold reward", "gain", "VADER's gain", "KL, nats", "distinct-2")
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, r in reports.items():
        gold, varied = (" → ".join(f"{r[when][k]:.3g}" for when in ("before", "after")) for k in ("gold", "distinct_2"))
        means = " | ".join(f"{r[k]:.3f} ± {r[f'{k}_ci']:.3f}" for k in ("gain", "vader_gain", "kl"))
        print(f"| {name} | {r['direction']} | {gold} | {means} | {varied} |")
    draw(run_dirs[0].parent / "sentiment.png", reports)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
